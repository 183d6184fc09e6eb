#include "optimizer/adamw_benchmark.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <memory>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "optimizer/adamw.h"
#include "optimizer/memory_loops.h"
#include "optimizer/split.h"
#include "optimizer/update_parts.h"

namespace strata {
namespace {

/// Anonymous memory on huge pages where the kernel grants them, as long as the object lives.
template <typename T>
class Array {
 public:
  explicit Array(std::int64_t numel) : bytes_(static_cast<std::size_t>(numel) * sizeof(T)) {
    data_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data_ == MAP_FAILED) {
      throw Error(describe_errno(
          fmt::format("a benchmark array of {} bytes (choose fewer elements)", bytes_), errno));
    }
    madvise(data_, bytes_, MADV_HUGEPAGE);
  }
  ~Array() { munmap(data_, bytes_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  T* data() const noexcept { return static_cast<T*>(data_); }

 private:
  std::size_t bytes_;
  void* data_;
};

/// Writes every element from the thread that will use it, which is where its page then lies.
template <typename Body>
void fill(std::int64_t numel, int threads, const Body& body) {
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int part = 0; part < threads; ++part) {
    const std::int64_t end = part_begin(numel, part + 1, threads);
    for (std::int64_t i = part_begin(numel, part, threads); i < end; ++i) body(i);
  }
}

/// Seconds of every run of one loop.
class Timings {
 public:
  template <typename Body>
  void run(const Body& body) {
    const auto start = std::chrono::steady_clock::now();
    body();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    seconds_.push_back(elapsed.count());
  }
  double median() {
    const auto middle = seconds_.begin() + static_cast<std::ptrdiff_t>(seconds_.size() / 2);
    std::nth_element(seconds_.begin(), middle, seconds_.end());
    return *middle;
  }

 private:
  std::vector<double> seconds_;
};

class MemoryLoops {
 public:
  explicit MemoryLoops(const MemoryBenchmarkOptions& options)
      : options_(options), a_(options.numel), b_(options.numel), c_(options.numel) {
    fill(options.numel, options.threads, [&](std::int64_t i) {
      a_.data()[i] = 1.0f;
      b_.data()[i] = 1.0f;
      c_.data()[i] = 1.0f;
    });
  }

  void run_each_once() {
    triad_.run([&] {
      triad_loop(a_.data(), b_.data(), c_.data(), 0.5f, options_.numel, options_.threads);
    });
    scale_.run([&] { scale_loop(b_.data(), 1.0001f, options_.numel, options_.threads); });
    sum_.run([&] { total_ += sum_loop(c_.data(), options_.numel, options_.threads); });
  }

  MemoryBandwidth result() {
    expects(total_ > 0.0f, "the sum of positive numbers was not positive");
    const double billions = static_cast<double>(options_.numel) * 1e-9;
    return {.triad = 12 * billions / triad_.median(),
            .scale = 8 * billions / scale_.median(),
            .sum = 4 * billions / sum_.median()};
  }

 private:
  MemoryBenchmarkOptions options_;
  Array<float> a_, b_, c_;
  Timings triad_, scale_, sum_;
  float total_ = 0.0f;
};

class AdamWLoop {
 public:
  explicit AdamWLoop(const MemoryBenchmarkOptions& options)
      : options_(options),
        hi_(options.numel),
        lo_(options.numel),
        m_(options.numel),
        v_(options.numel),
        gradient_(options.numel),
        rule_(make_adamw({})) {
    fill(options.numel, options.threads, [&](std::int64_t i) {
      const float value = 0.01f + 1e-6f * static_cast<float>(i % 1021);
      const SplitFloat halves = split(value);
      hi_.data()[i] = halves.hi;
      lo_.data()[i] = halves.lo;
      m_.data()[i] = 0.1f * value;
      v_.data()[i] = value * value;
      gradient_.data()[i] = bf16(value);
    });
  }

  void run_once() {
    const UpdateChunk chunk{.numel = options_.numel,
                            .hi = hi_.data(),
                            .lo = lo_.data(),
                            .m = m_.data(),
                            .v = v_.data(),
                            .gradient = gradient_.data(),
                            .gradient_dtype = Dtype::kBf16};
    const UpdateSegment all{0, options_.numel, true};
    step_.step += 1;
    timings_.run([&] { rule_->update(chunk, {&all, 1}, step_, options_.threads); });
  }

  double seconds_per_parameter() { return timings_.median() / static_cast<double>(options_.numel); }

 private:
  MemoryBenchmarkOptions options_;
  Array<std::uint16_t> hi_;
  Array<std::int16_t> lo_;
  Array<float> m_, v_;
  Array<bf16> gradient_;
  std::unique_ptr<UpdateRule> rule_;
  UpdateStep step_{.step = 0, .learning_rate = 1e-5f, .gradient_scale = 1.0f};
  Timings timings_;
};

void check_option(std::string_view name, std::int64_t value, std::int64_t largest) {
  if (value < 1 || value > largest) {
    throw UsageError(
        fmt::format("memory benchmark: {} is {}; choose 1 to {}", name, value, largest));
  }
}

void check(const MemoryBenchmarkOptions& options) {
  check_option("threads", options.threads, 4096);
  check_option("numel", options.numel, std::int64_t{1} << 48);
  check_option("rounds", options.rounds, 1'000'000);
}

}  // namespace

MemoryBandwidth measure_memory(const MemoryBenchmarkOptions& options) {
  check(options);
  MemoryLoops loops(options);
  for (int round = 0; round < options.rounds; ++round) loops.run_each_once();
  return loops.result();
}

AdamWBenchmark measure_adamw(const MemoryBenchmarkOptions& options) {
  check(options);
  MemoryLoops loops(options);
  AdamWLoop adamw(options);
  for (int round = 0; round < options.rounds; ++round) {
    loops.run_each_once();
    adamw.run_once();
  }
  const double seconds = adamw.seconds_per_parameter();
  return {.memory = loops.result(),
          .gigabytes_per_second = AdamWBenchmark::kBytesPerParameter * 1e-9 / seconds,
          .nanoseconds_per_parameter = seconds * 1e9};
}

}  // namespace strata
