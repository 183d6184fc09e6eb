// strata_tokenizer_bench TOKENIZER.json TEXT [rounds]: one thread, MB (10^6 bytes) per second of
// its processor time, the best round. With TEXT.jsonl also how fast its rows are parsed, before any
// tokens are made.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <limits>
#include <memory>

#include "core/json_file.h"
#include "core/text/json_row.h"
#include "core/text/tokenizer.h"

namespace {

/// The seconds of the fastest of `rounds` calls of `work`.
template <typename Prepare, typename Work>
double fastest(int rounds, const Prepare& prepare, const Work& work) {
  double best = std::numeric_limits<double>::infinity();
  for (int round = 0; round < rounds; ++round) {
    prepare();
    const std::clock_t begin = std::clock();
    work();
    const auto ticks = static_cast<double>(std::clock() - begin);
    best = std::min(best, ticks / CLOCKS_PER_SEC);
  }
  return best;
}

void run(const char* tokenizer_file, const char* text_file, int rounds) {
  const std::string text = strata::read_text_file(text_file, std::size_t{1} << 32);
  const double megabytes = static_cast<double>(text.size()) / 1e6;
  const std::string_view all = text;
  const bool is_rows = std::string_view(text_file).ends_with(".jsonl");
  if (is_rows) {
    const auto nothing = [] {};
    const double seconds = fastest(rounds, nothing, [&] {
      for (std::size_t begin = 0; begin < all.size();) {
        const std::size_t end = std::min(all.find('\n', begin), all.size());
        strata::parse_json_row(all.substr(begin, end - begin), text_file);
        begin = end + 1;
      }
    });
    std::printf("rows %.1f MB/s\n", megabytes / seconds);
  }
  std::uint64_t sum = 0;
  std::size_t count = 0;
  std::unique_ptr<strata::Tokenizer> tokenizer;
  // A tokenizer of its own for each round, which does not know the words of the last one.
  const auto load = [&] { tokenizer = strata::read_tokenizer(tokenizer_file); };
  const double seconds = fastest(rounds, load, [&] {
    sum = count = 0;
    std::vector<std::int32_t> ids;
    constexpr std::size_t kPiece = 1 << 16;
    for (std::size_t begin = 0; begin < all.size();) {
      std::size_t end = all.find('\n', std::min(begin + kPiece, all.size()));
      end = std::min(end, all.size() - 1) + 1;
      ids.clear();
      tokenizer->encode(all.substr(begin, end - begin), {}, ids);
      count += ids.size();
      for (const std::int32_t id : ids) sum = sum * 31 + static_cast<std::uint64_t>(id);
      begin = end;
    }
  });
  std::printf("tokens %.1f MB/s, %zu tokens, checksum %016llx\n", megabytes / seconds, count,
              static_cast<unsigned long long>(sum));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s TOKENIZER.json TEXT [rounds]\n", argv[0]);
    return 2;
  }
  try {
    run(argv[1], argv[2], argc > 3 ? std::atoi(argv[3]) : 3);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
