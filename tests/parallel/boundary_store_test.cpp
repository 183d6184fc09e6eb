#include "parallel/boundary_store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>

#include "core/error.h"
#include "tests/support/aligned_memory.h"
#include "tests/support/delaying_io_engine.h"
#include "tests/support/hostile_io_engine.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

using test::AlignedMemory;
using Shape = BoundaryStore::Shape;

enum class Drive { kNone, kReal, kHostile, kSlow };

/// A store and all that it works with. Calls it in the order of a step, with a compute stream that
/// is a lane of its own, and compares every tensor that comes back.
class Steps {
 public:
  Steps(const Shape& shape, Drive drive)
      : shape_(shape),
        memory_(drive == Drive::kNone
                    ? BoundaryStore::memory_bytes(shape)
                    : shape.tensor_bytes() *
                          static_cast<std::size_t>(BoundaryStore::least_slots(shape))) {
    if (drive == Drive::kNone) {
      store_ = std::make_unique<BoundaryStore>(shape, memory_.span());
      return;
    }
    IoEngine& engine = drive == Drive::kHostile ? static_cast<IoEngine&>(hostile_)
                       : drive == Drive::kSlow  ? static_cast<IoEngine&>(slow_)
                                                : *engine_;
    const std::vector<SwapDirectory> directories{{directory_.path(), 1}};
    swap_ = std::make_unique<SwapSpace>(
        engine, directories, std::max<std::uint64_t>(4096, BoundaryStore::swap_bytes(shape)));
    store_ = std::make_unique<BoundaryStore>(shape, memory_.span(),
                                             BoundaryStore::least_slots(shape), *swap_, clock_);
  }

  void train(std::uint64_t seed) {
    forward(seed, true);
    // The last block looks at all of its inputs before it drops the first.
    const int last = shape_.boundaries - 1;
    for (int i = 0; i < shape_.micro_batches; ++i) expect_input(last, i, seed);
    for (int b = last; b >= shape_.passing; --b) {
      for (int i = 0; i < shape_.micro_batches; ++i) {
        expect_input(b, i, seed);
        store_->drop(b, i, *compute_);
      }
    }
  }
  void evaluate(std::uint64_t seed) {
    forward(seed, false);
    for (int i = 0; i < shape_.micro_batches; ++i) {
      expect_input(shape_.boundaries - 1, i, seed);
      store_->drop(shape_.boundaries - 1, i, *compute_);
    }
  }
  IoCounters counters() const {
    compute_->synchronize();
    return engine_->counters();
  }
  BoundaryStore& store() { return *store_; }
  Stream& compute() { return *compute_; }

 private:
  void forward(std::uint64_t seed, bool keep) {
    store_->begin(keep);
    for (int b = 0; b < shape_.boundaries; ++b) {
      for (int i = 0; i < shape_.micro_batches; ++i) {
        if (b > 0) {
          expect_input(b - 1, i, seed);
          store_->drop(b - 1, i, *compute_);
        }
        const TensorView output = store_->output(b, i);
        compute_->enqueue([=, want = pattern(b, i, seed)] {
          std::ranges::copy(want->span().first(output.bytes()),
                            static_cast<std::byte*>(output.data()));
        });
        store_->finish_output(b, i, *compute_);
      }
    }
  }
  void expect_input(int boundary, int micro_batch, std::uint64_t seed) {
    const TensorView input = store_->input(boundary, micro_batch);
    EXPECT_EQ(input.shape(), (strata::Shape{shape_.tokens, shape_.hidden}));
    EXPECT_EQ(input.dtype(), shape_.dtype);
    compute_->enqueue([=, want = pattern(boundary, micro_batch, seed)] {
      EXPECT_TRUE(std::equal(want->span().begin(),
                             want->span().begin() + static_cast<std::ptrdiff_t>(input.bytes()),
                             static_cast<const std::byte*>(input.data())))
          << "boundary " << boundary << ", micro-batch " << micro_batch << ", step " << seed;
    });
  }
  std::shared_ptr<AlignedMemory> pattern(int boundary, int micro_batch, std::uint64_t seed) const {
    auto memory = std::make_shared<AlignedMemory>(shape_.tensor_bytes());
    memory->fill(seed * 1000 + static_cast<std::uint64_t>(boundary * 20 + micro_batch));
    return memory;
  }

  test::TemporaryDirectory directory_;
  Trace trace_{false};
  LaneClock clock_{trace_};
  Shape shape_;
  AlignedMemory memory_;
  std::unique_ptr<IoEngine> engine_ = make_io_engine({});
  test::HostileIoEngine hostile_{*engine_};
  test::DelayingIoEngine slow_{*engine_, std::chrono::milliseconds(1)};
  std::unique_ptr<SwapSpace> swap_;
  std::unique_ptr<BoundaryStore> store_;
  std::unique_ptr<Stream> compute_ = make_host_stream("compute");
};

Shape shape_of(int boundaries, int micro_batches, int passing = 0) {
  return {.boundaries = boundaries,
          .passing = passing,
          .micro_batches = micro_batches,
          .dtype = Dtype::kBf16,
          .tokens = 33,
          .hidden = 100};
}

class BoundaryStoreTest : public testing::TestWithParam<Drive> {};

TEST_P(BoundaryStoreTest, EveryTensorComesBackInTheOrderOfAStep) {
  for (const int micro_batches : {1, 2, 5}) {
    for (const int boundaries : {1, 2, 9}) {
      SCOPED_TRACE(testing::Message() << boundaries << " boundaries of " << micro_batches);
      Steps steps(shape_of(boundaries, micro_batches), GetParam());
      steps.train(1);
      steps.train(2);
      steps.evaluate(3);
      steps.train(4);
    }
  }
}

TEST_P(BoundaryStoreTest, BoundariesThatNobodyAsksForTakeTheMemoryOfOneAndAreNotWritten) {
  for (const int micro_batches : {1, 3}) {
    for (const int passing : {1, 2, 8}) {
      SCOPED_TRACE(testing::Message() << passing << " of 9 boundaries of " << micro_batches);
      const Shape shape = shape_of(9, micro_batches, passing);
      EXPECT_EQ(shape.tensors(), (9 - passing + 1) * micro_batches);
      EXPECT_EQ(BoundaryStore::swap_bytes(shape),
                shape.tensor_bytes() * static_cast<std::uint64_t>((8 - passing) * micro_batches));
      Steps steps(shape, GetParam());
      steps.train(1);
      steps.evaluate(2);
      steps.train(3);
      const std::uint64_t want =
          GetParam() == Drive::kNone ? 0 : 2 * BoundaryStore::swap_bytes(shape);
      EXPECT_EQ(steps.counters().bytes_written, want);
      EXPECT_EQ(steps.counters().bytes_read, want);
    }
  }
}

TEST_P(BoundaryStoreTest, EachByteIsWrittenOnceAndReadOnceAndEvaluationWritesNothing) {
  for (const int micro_batches : {1, 5}) {
    const Shape shape = shape_of(9, micro_batches);
    Steps steps(shape, GetParam());
    const std::uint64_t want = GetParam() == Drive::kNone ? 0 : BoundaryStore::swap_bytes(shape);
    EXPECT_EQ(BoundaryStore::swap_bytes(shape),
              8u * shape.tensor_bytes() * static_cast<std::uint64_t>(micro_batches));
    steps.train(1);
    EXPECT_EQ(steps.counters().bytes_written, want);
    EXPECT_EQ(steps.counters().bytes_read, want);
    steps.evaluate(2);
    EXPECT_EQ(steps.counters().bytes_written, want);
    EXPECT_EQ(steps.counters().bytes_read, want);
    steps.train(3);
    EXPECT_EQ(steps.counters().bytes_written, 2 * want);
    EXPECT_EQ(steps.counters().bytes_read, 2 * want);
  }
}

std::string drive_name(const testing::TestParamInfo<Drive>& drive) {
  switch (drive.param) {
    case Drive::kNone:
      return "Memory";
    case Drive::kReal:
      return "Swap";
    case Drive::kHostile:
      return "HostileSwap";
    case Drive::kSlow:
      return "SlowSwap";
  }
  return "";
}
INSTANTIATE_TEST_SUITE_P(All, BoundaryStoreTest,
                         testing::Values(Drive::kNone, Drive::kReal, Drive::kHostile, Drive::kSlow),
                         drive_name);

TEST(BoundaryStore, TensorsTakeWholePages) {
  const Shape shape = shape_of(9, 2);
  EXPECT_EQ(shape.tensor_bytes(), 8192u);  // 33 * 100 * 2 bytes
  EXPECT_EQ(BoundaryStore::memory_bytes(shape), 18u * 8192);
}

TEST(BoundaryStore, RefusesBoundariesOutOfOrder) {
  Steps steps(shape_of(4, 1), Drive::kReal);
  steps.train(1);
  steps.store().begin(true);
  EXPECT_THROW(steps.store().input(2, 0), Error);
  AlignedMemory small(4096);
  EXPECT_THROW(BoundaryStore(shape_of(4, 1), small.span()), Error);
}

}  // namespace
}  // namespace strata
