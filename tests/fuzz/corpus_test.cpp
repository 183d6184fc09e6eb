#include <gtest/gtest.h>

#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "tests/fuzz/targets.h"
#include "tests/support/files.h"

namespace strata::test {
namespace {

struct Target {
  const char* name;
  void (*run)(std::string_view);
};

class Corpus : public testing::TestWithParam<Target> {
 protected:
  std::vector<std::string> inputs() const {
    const auto folder =
        std::filesystem::path(STRATA_SOURCE_DIR) / "tests/fuzz/corpus" / GetParam().name;
    std::vector<std::string> all;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      all.push_back(read_file(entry.path()));
    }
    return all;
  }
};

TEST_P(Corpus, IsAcceptedOrRefusedAsAFormatError) {
  const std::vector<std::string> all = inputs();
  ASSERT_GE(all.size(), 3u);
  for (const std::string& input : all) EXPECT_NO_THROW(GetParam().run(input)) << input;
}

TEST_P(Corpus, MayBeCutAnywhere) {
  for (const std::string& input : inputs()) {
    const std::size_t step = 1 + input.size() / 500;
    for (std::size_t length = 0; length < input.size(); length += step) {
      EXPECT_NO_THROW(GetParam().run(std::string_view(input).substr(0, length))) << length;
    }
  }
}

TEST_P(Corpus, MayHaveAnyOfItsBytesChanged) {
  std::minstd_rand random(1);
  constexpr std::string_view kBytes = "\"{}[]:,0129-.eE\\u\xff\x80 tn\n";
  for (const std::string& input : inputs()) {
    for (int round = 0; round < 300 && !input.empty(); ++round) {
      std::string changed = input;
      for (unsigned change = 0; change <= random() % 3; ++change) {
        changed[random() % changed.size()] = kBytes[random() % kBytes.size()];
      }
      EXPECT_NO_THROW(GetParam().run(changed)) << changed;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, Corpus,
                         testing::Values(Target{"safetensors", fuzz_safetensors},
                                         Target{"index", fuzz_index}, Target{"config", fuzz_config},
                                         Target{"tokenizer", fuzz_tokenizer},
                                         Target{"shard", fuzz_shard},
                                         Target{"deepspeed", fuzz_deepspeed},
                                         Target{"metrics", fuzz_metrics}, Target{"rows", fuzz_rows},
                                         Target{"requests", fuzz_requests}),
                         [](const auto& p) { return std::string(p.param.name); });

}  // namespace
}  // namespace strata::test
