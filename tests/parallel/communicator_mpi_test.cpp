#include <chrono>
#include <thread>

#include "parallel/mpi/mpi_communicator.h"
#include "tests/parallel/communicator_contract.h"

namespace strata::test {
namespace {

using namespace std::chrono_literals;

World mpi_world(MpiRoute route, CollectiveOptions options, const std::string& name) {
  options.timeout = 30s;
  return {name, [=](const auto& body) {
            const auto communicator = make_mpi_communicator(route, options);
            body(*communicator);
            communicator->stream().synchronize();
          }};
}

constexpr CollectiveOptions kSmallPieces = {.piece_bytes = CommunicatorContract::kPieceBytes};
// Every larger operand crosses the seam between two messages, at no multiple of anything.
constexpr CollectiveOptions kSmallMessages = {.piece_bytes = CommunicatorContract::kPieceBytes,
                                              .largest_message_bytes = 1001};

INSTANTIATE_TEST_SUITE_P(
    Mpi, CommunicatorContract,
    testing::Values(mpi_world(MpiRoute::kAuto, {}, "Auto"),
                    mpi_world(MpiRoute::kShared, kSmallPieces, "Shared"),
                    mpi_world(MpiRoute::kMessages, {}, "Messages"),
                    mpi_world(MpiRoute::kMessages, kSmallPieces, "MessagesInSmallPieces"),
                    mpi_world(MpiRoute::kMessages, kSmallMessages, "SmallMessages")),
    [](const auto& world) { return world.param.name; });

class MpiCommunicator : public testing::TestWithParam<MpiRoute> {};

TEST_P(MpiCommunicator, NamesTheRankThatDoesNotComeInTime) {
  const auto judge = make_mpi_communicator();
  if (judge->size() == 1) GTEST_SKIP() << "nobody else can be late in a world of one";
  {
    const auto communicator = make_mpi_communicator(GetParam(), {.timeout = 100ms});
    if (communicator->rank() == 1) {
      std::this_thread::sleep_for(300ms);
    } else {
      try {
        std::vector<float> part(64, 1.0f);
        std::vector<float> full(part.size() * static_cast<std::size_t>(communicator->size()));
        communicator->reduce_scatter_sum(view(full), view(part));
        communicator->stream().synchronize();
        ADD_FAILURE() << "the sum ended without rank 1";
      } catch (const Error& error) {
        const std::string message = error.what();
        EXPECT_NE(message.find("reduce_scatter_sum of 256 bytes"), std::string::npos) << message;
        EXPECT_NE(message.find("for rank 1:"), std::string::npos) << message;
      }
    }
    judge->barrier();  // the group that failed goes away when nobody is inside any more
  }
}

TEST_P(MpiCommunicator, AbandonsWhatItWaitsFor) {
  const auto judge = make_mpi_communicator();
  if (judge->size() == 1) GTEST_SKIP() << "a world of one never waits";
  const auto communicator = make_mpi_communicator(GetParam());
  std::vector<float> values(16, 1.0f);
  if (communicator->rank() == 0) {
    communicator->reduce_sum(view(values), view(values), 0);
    std::this_thread::sleep_for(10ms);
    communicator->abandon();
    EXPECT_THROW(communicator->stream().synchronize(), Error);
  }
  judge->barrier();
}

INSTANTIATE_TEST_SUITE_P(BothRoutes, MpiCommunicator,
                         testing::Values(MpiRoute::kShared, MpiRoute::kMessages),
                         [](const auto& route) {
                           return route.param == MpiRoute::kShared ? "Shared" : "Messages";
                         });

TEST(MpiRoutes, RefuseMessagesThatMpiCannotCount) {
  EXPECT_THROW(
      make_mpi_communicator(MpiRoute::kMessages, {.largest_message_bytes = std::size_t{1} << 31}),
      Error);
}

}  // namespace
}  // namespace strata::test
