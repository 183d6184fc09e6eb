// One contract for sections in DRAM, on swap, and on a drive that promises no order.
#include "swap/shard_store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <vector>

#include "core/error.h"
#include "tests/support/aligned_memory.h"
#include "tests/support/hostile_io_engine.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

using test::AlignedMemory;

constexpr std::uint64_t k64KiB = 64 << 10;
constexpr SectionKey kMiddle{1, Section::kM};

/// The last one is frozen.
ShardLayout layout() {
  return {.shard_numel = {2048, 6 * 2048, 40 * 2048, 8 * 2048},
          .frozen = {false, false, false, true}};
}
constexpr int kShards = 4;

enum class Home { kDram, kSwap, kHostileSwap };

class ShardStoreContract : public testing::TestWithParam<Home> {
 protected:
  ShardStoreContract()
      : engine_(make_io_engine({})),
        hostile_(*engine_),
        store_(layout(), Residency(kShards, GetParam() == Home::kDram),
               [this](std::uint64_t bytes) {
                 const std::vector<SwapDirectory> directories{{directory_.path(), 1}};
                 IoEngine& engine = GetParam() == Home::kSwap ? *engine_ : hostile_;
                 return std::make_unique<SwapSpace>(engine, directories, bytes);
               }) {}

  bool resident() const { return GetParam() == Home::kDram; }

  /// Overwrites a range with bytes that tell `seed` and position.
  void put(SectionKey key, std::int64_t begin, std::int64_t numel, std::uint64_t seed) {
    const Lease lease = store_.reserve(key, begin, numel, pool_);
    const AlignedMemory bytes = pattern(lease.memory().size(), seed);
    std::ranges::copy(bytes.span(), lease.memory().begin());
    store_.store(lease).wait();
  }
  static AlignedMemory pattern(std::size_t bytes, std::uint64_t seed) {
    AlignedMemory memory(bytes);
    memory.fill(seed);
    return memory;
  }
  static bool equal(std::span<const std::byte> a, std::span<const std::byte> b) {
    return std::ranges::equal(a, b);
  }

  test::TemporaryDirectory directory_;
  std::unique_ptr<IoEngine> engine_;
  test::HostileIoEngine hostile_;
  ShardStore store_;
  AlignedMemory memory_{4 << 20};
  MemoryPool pool_{memory_.span()};
};

TEST_P(ShardStoreContract, StartsAsZeros) {
  for (int block = 0; block < kShards; ++block) {
    for (int s = 0; s < kSectionCount; ++s) {
      const SectionKey key{block, static_cast<Section>(s)};
      if (!store_.keeps(key)) continue;
      const std::int64_t numel = layout().shard_numel[static_cast<std::size_t>(block)];
      const Lease lease = store_.fetch(key, 0, numel, pool_);
      lease.ready().wait();
      EXPECT_EQ(lease.memory().size(), layout().bytes(key));
      EXPECT_TRUE(std::ranges::all_of(lease.memory(), [](std::byte b) { return b == std::byte{}; }))
          << block << " " << name(key.section);
    }
  }
}

TEST_P(ShardStoreContract, AFetchSeesTheLastStoreBeforeAnybodyWaitedForIt) {
  for (std::uint64_t round = 1; round <= 3; ++round) {
    const Lease written = store_.reserve(kMiddle, 0, 6 * 2048, pool_);
    const AlignedMemory want = pattern(written.memory().size(), round);
    std::ranges::copy(want.span(), written.memory().begin());
    const Event stored = store_.store(written);
    const Lease read = store_.fetch(kMiddle, 0, 6 * 2048, pool_);
    read.ready().wait();
    EXPECT_TRUE(equal(read.memory(), want.span())) << "round " << round;
    stored.wait();
  }
}

TEST_P(ShardStoreContract, SectionsDoNotOverlap) {
  std::uint64_t seed = 1;
  std::map<SectionKey, std::uint64_t> seeds;
  for (int block = 0; block < kShards; ++block) {
    for (int s = 0; s < kSectionCount; ++s) {
      const SectionKey key{block, static_cast<Section>(s)};
      if (!store_.keeps(key)) continue;
      seeds[key] = seed++;
      put(key, 0, layout().shard_numel[static_cast<std::size_t>(block)], seeds[key]);
    }
  }
  for (const auto& [key, own] : seeds) {
    const std::int64_t numel = layout().shard_numel[static_cast<std::size_t>(key.block)];
    const Lease lease = store_.fetch(key, 0, numel, pool_);
    lease.ready().wait();
    EXPECT_TRUE(equal(lease.memory(), pattern(layout().bytes(key), own).span()))
        << key.block << " " << name(key.section);
  }
}

TEST_P(ShardStoreContract, ARangeIsReadAndWrittenAlone) {
  put(kMiddle, 0, 6 * 2048, 1);
  put(kMiddle, 2048, 2 * 2048, 2);
  const Lease all = store_.fetch(kMiddle, 0, 6 * 2048, pool_);
  all.ready().wait();
  const AlignedMemory before = pattern(6 * 2048 * 4, 1);
  const AlignedMemory middle = pattern(2 * 2048 * 4, 2);
  EXPECT_TRUE(equal(all.memory().first(2048 * 4), before.span().first(2048 * 4)));
  EXPECT_TRUE(equal(all.memory().subspan(2048 * 4, 2 * 2048 * 4), middle.span()));
  EXPECT_TRUE(equal(all.memory().subspan(3 * 2048 * 4), before.span().subspan(3 * 2048 * 4)));
  const Lease part = store_.fetch(kMiddle, 2048, 2 * 2048, pool_);
  part.ready().wait();
  EXPECT_TRUE(equal(part.memory(), middle.span()));
}

TEST_P(ShardStoreContract, FetchIntoFillsTheCallersMemoryAndStoresFromIt) {
  put(kMiddle, 0, 6 * 2048, 5);
  const AlignedMemory own(6 * 2048 * 4);
  const Lease lease = store_.fetch_into(kMiddle, 0, 6 * 2048, own.span());
  lease.ready().wait();
  EXPECT_EQ(lease.memory().data(), own.span().data());
  EXPECT_TRUE(own == pattern(6 * 2048 * 4, 5));
  own.fill(6);
  store_.store(lease).wait();
  const Lease read = store_.fetch(kMiddle, 0, 6 * 2048, pool_);
  read.ready().wait();
  EXPECT_TRUE(equal(read.memory(), own.span()));
}

TEST_P(ShardStoreContract, AnAdoptedLeaseReadsNothingAndStoresWhatTheCallerHas) {
  put(kMiddle, 0, 6 * 2048, 7);
  const IoCounters before = engine_->counters();
  const AlignedMemory own = pattern(2048 * 4, 8);
  const Lease lease = store_.adopt(kMiddle, 2048, 2048, own.span());
  EXPECT_TRUE(lease.ready().ready());
  EXPECT_EQ(lease.memory().data(), own.span().data());
  EXPECT_TRUE(own == pattern(2048 * 4, 8)) << "the caller's bytes were overwritten";
  EXPECT_EQ(engine_->counters().bytes_read, before.bytes_read);
  store_.store(lease).wait();
  const Lease read = store_.fetch(kMiddle, 2048, 2048, pool_);
  read.ready().wait();
  EXPECT_TRUE(equal(read.memory(), own.span()));
}

TEST_P(ShardStoreContract, ReserveReadsNothing) {
  put(kMiddle, 0, 6 * 2048, 1);
  const IoCounters before = engine_->counters();
  const Lease lease = store_.reserve(kMiddle, 0, 6 * 2048, pool_);
  EXPECT_TRUE(lease.ready().ready());
  EXPECT_EQ(engine_->counters().bytes_read, before.bytes_read);
}

TEST_P(ShardStoreContract, ALeaseHoldsPoolMemoryOnlyWhereItNeedsSome) {
  Lease held = store_.fetch({2, Section::kV}, 0, 40 * 2048, pool_);
  held.ready().wait();
  const std::byte* data = held.memory().data();
  const bool in_pool = data >= memory_.span().data() && data < memory_.span().data() + (4 << 20);
  EXPECT_NE(in_pool, resident());
  held = Lease();
  EXPECT_FALSE(held);
  EXPECT_EQ(pool_.acquire(4 << 20).memory().size(), 4u << 20) << "the lease kept its memory";
}

TEST_P(ShardStoreContract, RefusesRangesOutsideTheSection) {
  EXPECT_THROW(store_.fetch(kMiddle, 2048, 6 * 2048, pool_), Error);
  EXPECT_THROW(store_.reserve(kMiddle, -2048, 2048, pool_), Error);
  EXPECT_THROW(store_.adopt({0, Section::kHi}, 0, 4096, memory_.span().first(8192)), Error);
}

TEST_P(ShardStoreContract, OnlyResidentSectionsHaveMemory) {
  EXPECT_EQ(store_.resident(kMiddle), resident());
  EXPECT_EQ(store_.swap_space() == nullptr, resident());
  if (resident()) {
    EXPECT_EQ(store_.memory(kMiddle).size(), layout().bytes(kMiddle));
  } else {
    EXPECT_THROW(store_.memory(kMiddle), Error);
  }
}

std::string home_name(const testing::TestParamInfo<Home>& home) {
  return home.param == Home::kDram ? "Dram" : home.param == Home::kSwap ? "Swap" : "HostileSwap";
}
INSTANTIATE_TEST_SUITE_P(All, ShardStoreContract,
                         testing::Values(Home::kDram, Home::kSwap, Home::kHostileSwap), home_name);

TEST(ShardLayout, CountsBytesOfTheSectionsThatAreKept) {
  ShardLayout sgd = layout();
  sgd.element_bytes = {2, 2, 4, 0, 4, 4};
  EXPECT_EQ(sgd.bytes({1, Section::kM}), 6u * 2048 * 4);
  EXPECT_EQ(sgd.bytes({1, Section::kV}), 0u);
  EXPECT_EQ(sgd.bytes({2, Section::kGradient}), 40u * 2048 * 4);
  EXPECT_EQ(sgd.total_bytes(), 47u * 2048 * 12 + 8u * 2048 * 4);
}

TEST(ShardLayout, FrozenShardsHaveWeightsOnlyAndOthersHaveNone) {
  ShardLayout fp32 = layout();
  fp32.element_bytes = {2, 2, 4, 4, 4, 4};
  for (int s = 0; s < kSectionCount; ++s) {
    const auto section = static_cast<Section>(s);
    const bool weights = section == Section::kWeights;
    EXPECT_EQ(fp32.bytes({3, section}), weights ? 8u * 2048 * 4 : 0u) << name(section);
    EXPECT_EQ(fp32.bytes({0, section}) == 0, weights) << name(section);
  }
  EXPECT_EQ(fp32.weights(3), (SectionKey{3, Section::kWeights}));
  EXPECT_EQ(fp32.weights(2), (SectionKey{2, Section::kHi}));
  EXPECT_EQ(name(Section::kWeights), "weights");
}

TEST(ShardStore, SectionsOnSwapStartAtMultiplesOf64KiBAndOnlyThoseTakeSpace) {
  // 2048 elements: 4 KiB of hi, but each section takes 64 KiB. The last one is not padded.
  const ShardLayout small{.shard_numel = {2048}};
  EXPECT_EQ(ShardStore::swap_bytes(small, Residency(1)), 5 * k64KiB);
  EXPECT_EQ(ShardStore::swap_bytes(small, Residency(1, true)), 0u);
  Residency some(1);
  some.set({0, Section::kHi}, true);
  some.set({0, Section::kGradient}, true);
  EXPECT_EQ(ShardStore::swap_bytes(small, some), 3 * k64KiB);
  // 80 Ki elements: 160 KiB of hi take 192 KiB, 320 KiB of m are a multiple already.
  const ShardLayout large{.shard_numel = {40 * 2048}};
  EXPECT_EQ(ShardStore::swap_bytes(large, Residency(1)), (192u + 192 + 320 + 320 + 192) << 10);
  ShardLayout without_moments = large;
  without_moments.element_bytes = {2, 2, 0, 0, 2};
  EXPECT_EQ(ShardStore::swap_bytes(without_moments, Residency(1)), (3u * 192) << 10);
}

/// Notes where transfers go.
class NotingEngine final : public IoEngine {
 public:
  explicit NotingEngine(IoEngine& real) : real_(real) {}
  std::string name() const override { return "noting"; }
  IoFile open_file(int descriptor, std::string path) override {
    return real_.open_file(descriptor, std::move(path));
  }
  void register_memory(std::span<std::byte>) override {}
  IoCounters counters() const override { return real_.counters(); }
  Event submit(std::span<const IoRequest> requests) override {
    for (const IoRequest& request : requests) offsets.push_back(request.offset);
    return real_.submit(requests);
  }
  std::vector<std::uint64_t> offsets;

 private:
  IoEngine& real_;
};

TEST(ShardStore, ABlocksSectionsLieTogether) {
  const test::TemporaryDirectory directory;
  const auto real = make_io_engine({});
  NotingEngine engine(*real);
  Residency residency(kShards);
  residency.set({1, Section::kLo}, true);
  ShardStore store(layout(), residency, [&](std::uint64_t bytes) {
    const std::vector<SwapDirectory> directories{{directory.path(), 1}};
    return std::make_unique<SwapSpace>(engine, directories, bytes);
  });
  const AlignedMemory memory(8192);
  std::uint64_t before = 0;
  for (int block = 0; block < kShards; ++block) {
    for (const Section section : {Section::kHi, Section::kLo, Section::kM, Section::kV,
                                  Section::kGradient, Section::kWeights}) {
      const SectionKey key{block, section};
      if (store.resident(key) || !store.keeps(key)) continue;
      engine.offsets.clear();
      const std::size_t bytes = layout().element_bytes[static_cast<std::size_t>(section)] * 2048;
      store.fetch_into(key, 0, 2048, memory.span().first(bytes)).ready().wait();
      ASSERT_EQ(engine.offsets.size(), 1u);
      EXPECT_EQ(engine.offsets[0] % k64KiB, 0u);
      EXPECT_EQ(engine.offsets[0], before) << block << " " << name(section);
      before = engine.offsets[0] + (layout().bytes(key) + k64KiB - 1) / k64KiB * k64KiB;
    }
  }
}

}  // namespace
}  // namespace strata
