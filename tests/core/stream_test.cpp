#include "core/stream.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

namespace strata {
namespace {

TEST(HostStream, RunsWorkInOrderBesideTheCaller) {
  std::vector<int> order;
  const HostEvent gate;
  auto lane = make_host_stream("lane");
  lane->wait(gate.event());
  for (int i = 0; i < 3; ++i) lane->enqueue([&order, i] { order.push_back(i); });
  const Event done = lane->record();
  EXPECT_FALSE(done.ready());
  gate.complete();
  done.wait();
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2}));
}

TEST(HostStream, OrdersTwoLanesByAnEvent) {
  int value = 0;
  auto first = make_host_stream("first");
  auto second = make_host_stream("second");
  first->enqueue([&value] { value = 1; });
  second->wait(first->record());
  int seen = 0;
  second->enqueue([&] { seen = value; });
  second->synchronize();
  EXPECT_EQ(seen, 1);
}

TEST(HostStream, DropsWorkBehindAFailureAndRethrowsItsCause) {
  auto lane = make_host_stream("lane");
  bool ran = false;
  lane->enqueue([] { throw std::runtime_error("broken drive"); });
  lane->enqueue([&ran] { ran = true; });
  EXPECT_THROW(lane->synchronize(), std::runtime_error);
  EXPECT_THROW(lane->record().wait(), std::runtime_error);
  EXPECT_FALSE(ran);
}

TEST(HostStream, TakesOverTheFailureOfAnEventItWaitsFor) {
  const HostEvent broken;
  auto lane = make_host_stream("lane");
  lane->wait(broken.event());
  bool ran = false;
  lane->enqueue([&ran] { ran = true; });
  broken.fail(std::make_exception_ptr(std::runtime_error("broken drive")));
  EXPECT_THROW(lane->synchronize(), std::runtime_error);
  EXPECT_FALSE(ran);
}

TEST(InlineStream, RunsWorkBeforeEnqueueReturns) {
  auto stream = make_inline_stream();
  int value = 0;
  stream->enqueue([&value] { value = 7; });
  EXPECT_EQ(value, 7);
  EXPECT_TRUE(stream->record().ready());
}

}  // namespace
}  // namespace strata
