#include <chrono>
#include <thread>

#include "parallel/thread_communicator.h"
#include "tests/parallel/communicator_contract.h"
#include "tests/support/run_on_threads.h"

namespace strata::test {
namespace {

using namespace std::chrono_literals;

World self() {
  return {"Self", [](const auto& body) {
            const auto communicator = make_self_communicator();
            body(*communicator);
          }};
}

World threads(int ranks, std::size_t piece_bytes, const std::string& name) {
  return {name, [=](const auto& body) {
            run_on_threads(ranks, body, {.piece_bytes = piece_bytes, .timeout = 60s});
          }};
}

World threads(int ranks) {
  return threads(ranks, CommunicatorContract::kPieceBytes, "Threads" + std::to_string(ranks));
}

INSTANTIATE_TEST_SUITE_P(All, CommunicatorContract,
                         testing::Values(self(), threads(1), threads(2), threads(3), threads(8),
                                         threads(3, CollectiveOptions{}.piece_bytes,
                                                 "Threads3WithDefaultPieces"),
                                         threads(3, 12, "Threads3WithTinyPieces")),
                         [](const auto& world) { return world.param.name; });

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(ThreadWorld, NamesTheRankThatDoesNotComeInTime) {
  const std::string message = message_of([] {
    run_on_threads(3,
                   [](Communicator& world) {
                     if (world.rank() == 1) return;
                     std::vector<float> values(256, 1.0f);
                     world.broadcast(std::as_writable_bytes(std::span(values)), 1);
                     world.stream().synchronize();
                   },
                   {.timeout = 50ms});
  });
  EXPECT_NE(message.find("broadcast of 1024 bytes"), std::string::npos) << message;
  EXPECT_NE(message.find("for rank 1:"), std::string::npos) << message;
}

TEST(ThreadWorld, NamesBothCallsWhenRanksDisagree) {
  const std::string message = message_of([] {
    run_on_threads(2,
                   [](Communicator& world) {
                     std::vector<float> values(64, 1.0f);
                     if (world.rank() == 0) {
                       world.all_reduce_sum(view(values));
                     } else {
                       world.broadcast(std::as_writable_bytes(std::span(values)), 0);
                     }
                     world.stream().synchronize();
                   },
                   {.timeout = 60s});
  });
  EXPECT_NE(message.find("disagree"), std::string::npos) << message;
  EXPECT_NE(message.find("broadcast"), std::string::npos) << message;
  EXPECT_NE(message.find("reduce_scatter_sum"), std::string::npos) << message;
}

TEST(ThreadWorld, PassesOnTheFirstExceptionAndFreesTheOtherRanks) {
  const auto start = std::chrono::steady_clock::now();
  const std::string message = message_of([] {
    run_on_threads(3, [](Communicator& world) {
      if (world.rank() == 2) throw Error("rank 2 lost its drive");
      world.barrier();
    });
  });
  EXPECT_EQ(message, "rank 2 lost its drive");
  EXPECT_LT(std::chrono::steady_clock::now() - start, 10s);
}

TEST(ThreadWorld, AbandonsWhatOneRankWaitsFor) {
  ThreadWorld group(2);
  const auto communicator = group.communicator(0);
  std::vector<float> values(16, 1.0f);
  communicator->all_reduce_sum(view(values));
  std::this_thread::sleep_for(10ms);
  communicator->abandon();
  EXPECT_NE(message_of([&] { communicator->stream().synchronize(); }).find("abandoned"),
            std::string::npos);
}

TEST(ThreadWorld, RefusesPiecesSmallerThanItsRanks) {
  EXPECT_THROW(ThreadWorld(8, {.piece_bytes = 28}), Error);
}

}  // namespace
}  // namespace strata::test
