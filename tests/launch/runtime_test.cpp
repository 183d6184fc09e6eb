#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <chrono>
#include <cstdio>
#include <string>

namespace strata {
namespace {

struct Outcome {
  std::string output;  // standard output and errors
  int status = -1;     // as a shell would report it
  double seconds = 0;
};

Outcome run_command(const std::string& command) {
  Outcome outcome;
  const auto start = std::chrono::steady_clock::now();
  std::FILE* pipe = popen(("exec " + command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return outcome;
  char buffer[4096];
  while (std::fgets(buffer, sizeof buffer, pipe) != nullptr) outcome.output += buffer;
  const int status = pclose(pipe);
  outcome.status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return outcome;
}

// Without what an outer Strata job, a test preset or an outer mpirun may have put there.
const std::string kClean =
    "env -u OMP_WAIT_POLICY -u OMP_NUM_THREADS -u GOMP_SPINCOUNT OMPI_ALLOW_RUN_AS_ROOT=1 "
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 ";

Outcome run_alone(const std::string& arguments) {
  return run_command(kClean + STRATA_RUNTIME_PROGRAM + " " + arguments);
}
Outcome run_ranks(int ranks, const std::string& arguments, const std::string& flags = "") {
  return run_command(kClean + STRATA_MPIEXEC + " -n " + std::to_string(ranks) + " " + flags + " " +
                     STRATA_RUNTIME_PROGRAM + " " + arguments);
}

int count(const std::string& text, const std::string& word) {
  int found = 0;
  for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) {
    ++found;
  }
  return found;
}

TEST(Runtime, RunsWithoutMpirunAsAWorldOfOneWithPassiveThreads) {
  const Outcome outcome = run_alone("report --strata.threads=3 --steps 5");
  EXPECT_EQ(outcome.status, 0) << outcome.output;
  EXPECT_EQ(count(outcome.output, "this is rank 0 of 1 on "), 1) << outcome.output;
  EXPECT_EQ(count(outcome.output,
                  "threads 3, policy passive after a moment, arguments report --steps 5\n"),
            1)
      << outcome.output;
}

TEST(Runtime, KeepsTheWaitPolicyThatItFinds) {
  const Outcome outcome =
      run_command(kClean + "OMP_WAIT_POLICY=active " + STRATA_RUNTIME_PROGRAM + " report");
  EXPECT_EQ(count(outcome.output, "policy active, arguments report\n"), 1) << outcome.output;
}

TEST(Runtime, GivesEveryRankItsArgumentsAndLogsOnce) {
  const Outcome outcome = run_ranks(2, "report --strata.timeout=30 --steps 5");
  EXPECT_EQ(outcome.status, 0) << outcome.output;
  EXPECT_EQ(count(outcome.output, "this is rank 0 of 2 on "), 1) << outcome.output;
  EXPECT_EQ(count(outcome.output, "this is rank 1 of 2 on "), 1) << outcome.output;
  EXPECT_EQ(count(outcome.output, "policy passive after a moment, arguments report --steps 5\n"), 2)
      << outcome.output;
  EXPECT_EQ(count(outcome.output, "only once: rank 0 of 2 on this node: core"), 1)
      << outcome.output;
}

TEST(Runtime, TakesAllCoresForOneRankThatMpirunBoundToOneCore) {
  const Outcome alone = run_alone("report");
  const std::size_t begin = alone.output.find(" on ");
  ASSERT_NE(begin, std::string::npos) << alone.output;
  const std::string cores = alone.output.substr(begin, alone.output.find(" cores") - begin + 6);
  EXPECT_EQ(count(run_ranks(1, "report").output, cores), 1);
  EXPECT_EQ(count(run_ranks(1, "report --strata.bind=keep").output, " on 1 cores"), 1);
  EXPECT_EQ(count(run_ranks(1, "report", "--bind-to core").output, " on 1 cores"), 1);
}

TEST(Runtime, EndsAllRanksWhenOneThrowsAndNamesTheCauseOnce) {
  const Outcome outcome = run_ranks(3, "fail");
  EXPECT_EQ(outcome.status, 1) << outcome.output;
  EXPECT_EQ(count(outcome.output, "[rank 2] the drive is gone\n"), 1) << outcome.output;
  EXPECT_EQ(count(outcome.output, "[rank "), 1) << outcome.output;
  EXPECT_LT(outcome.seconds, 10);  // most of it is mpirun's start
}

TEST(Runtime, EndsAllRanksWhenOneHangsAndNamesIt) {
  const Outcome outcome = run_ranks(2, "hang --strata.timeout=1");
  EXPECT_EQ(outcome.status, 1) << outcome.output;
  EXPECT_EQ(count(outcome.output, "[rank 0] all_gather of 1 bytes"), 1) << outcome.output;
  EXPECT_EQ(count(outcome.output, "waited 1.0 s for rank 1:"), 1) << outcome.output;
  EXPECT_LT(outcome.seconds, 10);
}

TEST(Runtime, EndsWithStatus2ForAWrongUseThatRank0Names) {
  for (const char* arguments : {"usage", "report --strata.bind=sideways"}) {
    const Outcome outcome = run_ranks(2, arguments);
    EXPECT_EQ(outcome.status, 2) << outcome.output;
    EXPECT_EQ(count(outcome.output, "[rank 0] "), 1) << outcome.output;
    EXPECT_EQ(count(outcome.output, "[rank 1] "), 0) << outcome.output;
  }
  EXPECT_EQ(run_alone("usage").status, 2);
}

TEST(Runtime, NamesTheRankAmongAllNodesBeforeMpiIsUp) {
  // The second of two nodes, as mpirun starts its ranks there.
  const Outcome outcome = run_command(
      kClean +
      "OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=0 "
      "OMPI_COMM_WORLD_LOCAL_SIZE=2 " STRATA_RUNTIME_PROGRAM " report --strata.bind=sideways");
  EXPECT_EQ(outcome.status, 2);
  EXPECT_EQ(count(outcome.output, "[rank 2] --strata.bind=sideways"), 1) << outcome.output;
  EXPECT_GT(outcome.seconds, 2) << "the first rank of all speaks first";
}

TEST(Runtime, ReturnsTheStatusOfItsBody) { EXPECT_EQ(run_alone("status").status, 7); }

TEST(Runtime, UsesAnMpiThatIsUpAndLeavesItUp) {
  const Outcome outcome = run_ranks(2, "mpi-is-up");
  EXPECT_EQ(outcome.status, 0) << outcome.output;
  EXPECT_EQ(count(outcome.output, "still up with 2\n"), 2) << outcome.output;
}

TEST(Runtime, TurnsTheFirstSignalsIntoAQuestion) {
  const Outcome outcome = run_ranks(2, "stop");
  EXPECT_EQ(outcome.status, 0) << outcome.output;
  EXPECT_EQ(count(outcome.output, "stopped ranks: 2\n"), 1) << outcome.output;
}

TEST(Runtime, EndsAtOnceOnASecondSigterm) {
  const Outcome outcome = run_alone("stop-twice");
  EXPECT_EQ(outcome.status, 128 + SIGTERM) << outcome.output;
  EXPECT_LT(outcome.seconds, 10);
}

}  // namespace
}  // namespace strata
