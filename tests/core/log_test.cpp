#include "core/log.h"

#include <gtest/gtest.h>
#include <pty.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "core/progress.h"
#include "tests/support/files.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

/// Standard output and error of a Log, as files.
struct Streams {
  test::TemporaryDirectory directory;
  std::FILE* output = std::fopen((directory / "out").c_str(), "w");
  std::FILE* errors = std::fopen((directory / "err").c_str(), "w");
  ~Streams() {
    std::fclose(output);
    std::fclose(errors);
  }
  std::string printed() const { return test::read_file(directory / "out"); }
  std::string warned() const { return test::read_file(directory / "err"); }
};

TEST(Log, PrintsOnRankZeroOnly) {
  Streams streams;
  Log first(0, streams.output, streams.errors);
  Log second(1, streams.output, streams.errors);
  first.info("one");
  second.info("two");
  second.warn("three");
  EXPECT_EQ(streams.printed(), "one\n");
  EXPECT_EQ(streams.warned(), "");
}

TEST(Log, WarnsOnceAboutTheSameThing) {
  Streams streams;
  Log log(0, streams.output, streams.errors);
  log.warn("slow drive");
  log.warn("slow drive");
  log.warn("other");
  EXPECT_EQ(streams.warned(), "strata: warning: slow drive\nstrata: warning: other\n");
}

TEST(Log, DrawsNoStatusWhereThereIsNoTerminal) {
  Streams streams;
  Log log(0, streams.output, streams.errors);
  EXPECT_FALSE(log.has_terminal());
  Progress progress(log, "step", 10);
  progress.update(10);
  EXPECT_EQ(streams.warned(), "");
}

TEST(Log, PutsLinesAboveTheStatusLineOfATerminal) {
  int master = -1;
  int terminal = -1;
  if (openpty(&master, &terminal, nullptr, nullptr, nullptr) != 0) {
    GTEST_SKIP() << "there is no pseudo-terminal here";
  }
  std::FILE* file = fdopen(terminal, "w");
  {
    Log log(0, file, file);
    EXPECT_TRUE(log.has_terminal());
    Progress progress(log, "step", 4);
    progress.update(1, "loss 2.5");
    log.info("step 1");
  }
  std::fclose(file);
  std::string text;  // comes in pieces; the read after the last one fails
  char piece[4096];
  for (ssize_t size = 0; (size = read(master, piece, sizeof piece)) > 0;) {
    text.append(piece, static_cast<std::size_t>(size));
  }
  close(master);
  const std::size_t bar = text.find("1/4");
  const std::size_t erased = text.find("\r\033[K");
  const std::size_t line = text.find("step 1\r\n");
  EXPECT_LT(bar, erased) << text;
  EXPECT_EQ(erased + 4, line) << text;
  EXPECT_NE(text.find("loss 2.5", line), std::string::npos)
      << "the status comes back after the line";
  EXPECT_TRUE(text.ends_with("\r\033[K")) << "nothing is left of it at the end";
}

TEST(ProgressLine, ShowsShareRateAndTimeLeft) {
  EXPECT_EQ(progress_line("step", 84, 200, 31, "loss 2.1", 200),
            " 42%|████████▍           | 84/200 [00:31<00:42, 2.71 step/s] loss 2.1");
  EXPECT_EQ(progress_line("step", 0, 200, 0, "", 200),
            "  0%|                    | 0/200 [00:00<?, ? step/s]");
  EXPECT_EQ(progress_line("step", 2, 2, 8, "", 200),
            "100%|████████████████████| 2/2 [00:08<00:00, 4.00 s/step]");
  EXPECT_EQ(progress_line("MB", 5, 0, 2, "", 200), "5 MB [00:02, 2.50 MB/s]");
}

TEST(ProgressLine, NeverGetsWiderThanTheTerminal) {
  EXPECT_EQ(progress_line("step", 84, 200, 31, "", 8), " 42%|███");
}

}  // namespace
}  // namespace strata
