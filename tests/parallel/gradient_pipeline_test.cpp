#include "parallel/gradient_pipeline.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <thread>

#include "core/model/transformer.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/tiny_training.h"

namespace strata {
namespace {

using namespace std::chrono_literals;

/// A pipeline of one rank whose gradients rest in bf16, in DRAM or on swap.
class GradientPipelineTest : public testing::TestWithParam<bool> {
 protected:
  GradientPipelineTest() {
    ShardLayout layout;
    for (int b = 0; b < partition_.block_count(); ++b) {
      layout.shard_numel.push_back(partition_.part(b).shard_numel());
    }
    const Residency residency(partition_.block_count(), !GetParam());
    staging_ = allocate_host(GradientPipeline::staging_bytes(layout, residency));
    store_ = std::make_unique<ShardStore>(layout, residency, [this](std::uint64_t bytes) {
      const std::vector<SwapDirectory> directories{{directory_.path(), 1}};
      return std::make_unique<SwapSpace>(*engine_, directories, bytes);
    });
    pipeline_ =
        std::make_unique<GradientPipeline>(*device_, *compute_, *self_, model_, partition_, *store_,
                                           Dtype::kBf16, std::span(memory_.data(), memory_.bytes()),
                                           std::span(staging_.data(), staging_.bytes()), clock_);
  }
  /// Sends a gradient of `value` everywhere for a block that is not tiled.
  Event send(int block, float value) {
    const TensorView gradient = pipeline_->begin_dense(block);
    for (std::int64_t i = 0; i < gradient.numel(); ++i) {
      EXPECT_EQ(gradient.as<float>()[i], 0.0f) << "accumulators start as zeros";
      gradient.as<float>()[i] = value;
    }
    pipeline_->finish_dense();
    return pipeline_->finish_block(block);
  }

  test::TemporaryDirectory directory_;
  std::unique_ptr<IoEngine> engine_ = make_io_engine({});
  std::unique_ptr<Device> device_ = make_cpu_device(1);
  std::unique_ptr<Stream> compute_ = device_->make_stream();
  std::unique_ptr<Communicator> self_ = make_self_communicator();
  Model model_ = make_transformer(test::tiny_llama());
  Partition partition_{model_, 1};
  Trace trace_{false};
  LaneClock clock_{trace_};
  Buffer memory_ = allocate_host(GradientPipeline::largest_bytes(model_, partition_));
  Buffer staging_;
  std::unique_ptr<ShardStore> store_;
  std::unique_ptr<GradientPipeline> pipeline_;
};

TEST_P(GradientPipelineTest, GradientsRestRoundedOnceAndTheirNormIsThatOfTheRoundedOnes) {
  for (int step = 0; step < 2; ++step) {
    double squares = 0;
    for (const int block : {3, 2, 1}) {
      const float value = static_cast<float>(block) + 0x1p-10f;  // no bf16
      send(block, value).wait();
      squares += static_cast<double>(partition_.part(block).numel()) * block * block;
    }
    const GradientNorm norm = pipeline_->collect();
    EXPECT_TRUE(norm.finite);
    EXPECT_NEAR(norm.sum_of_squares, squares, 1e-9 * squares);
    const Buffer memory = allocate_host(staging_.bytes() + (1 << 20));
    MemoryPool pool({memory.data(), memory.bytes() / 4096 * 4096});
    for (const int block : {1, 2, 3}) {
      const std::int64_t numel = partition_.part(block).shard_numel();
      const Lease lease = store_->fetch({block, Section::kGradient}, 0, numel, pool);
      lease.ready().wait();
      for (std::int64_t i = 0; i < numel; ++i) {
        ASSERT_EQ(static_cast<float>(lease.as<bf16>()[i]), static_cast<float>(block));
      }
    }
  }
}

TEST_P(GradientPipelineTest, OneInfinityMakesTheNormNotFiniteInThatStepOnly) {
  send(3, 1.0f);
  send(2, std::numeric_limits<float>::infinity());
  send(1, 1.0f);
  EXPECT_FALSE(pipeline_->collect().finite);
  send(2, 1.0f);
  EXPECT_TRUE(pipeline_->collect().finite);
}

TEST_P(GradientPipelineTest, CanGoWhileItsLanesAreAtWork) {
  const HostEvent late;
  self_->stream().wait(late.event());
  send(3, 1.0f);
  std::thread destroyer([this] { pipeline_.reset(); });
  std::this_thread::sleep_for(50ms);  // it waits for its lanes by now
  late.complete();
  destroyer.join();
}

INSTANTIATE_TEST_SUITE_P(Homes, GradientPipelineTest, testing::Bool(),
                         [](const auto& on_swap) { return on_swap.param ? "Swap" : "Dram"; });

}  // namespace
}  // namespace strata
