#include "launch/runtime_options.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/error.h"

namespace strata {
namespace {

// argv as main() gets it: writable, with a null at the end.
class Arguments {
 public:
  explicit Arguments(std::vector<std::string> words) : words_(std::move(words)) {
    for (std::string& word : words_) argv_.push_back(word.data());
    count = static_cast<int>(argv_.size());
    argv_.push_back(nullptr);
  }
  char** argv() { return argv_.data(); }
  std::vector<std::string> left() const { return {argv_.begin(), argv_.begin() + count}; }

  int count = 0;

 private:
  std::vector<std::string> words_;
  std::vector<char*> argv_;
};

TEST(RuntimeOptions, AreTakenOutAndTheRestStaysInOrder) {
  Arguments arguments({"train", "--steps", "3", "--strata.bind=keep", "data.txt",
                       "--strata.threads=5", "--strata.timeout=2.5",
                       "--strata.collectives=messages", "--stratagem"});
  const RuntimeOptions options = take_runtime_options(arguments.count, arguments.argv());
  EXPECT_EQ(options.bind, BindMode::kKeep);
  EXPECT_EQ(options.threads, 5);
  EXPECT_EQ(options.timeout.count(), 2500);
  EXPECT_EQ(options.collectives, MpiRoute::kMessages);
  EXPECT_EQ(arguments.left(),
            (std::vector<std::string>{"train", "--steps", "3", "data.txt", "--stratagem"}));
  EXPECT_EQ(arguments.argv()[arguments.count], nullptr);
}

TEST(RuntimeOptions, KeepTheDefaultsThatNobodyChanges) {
  Arguments arguments({"train", "--strata.bind=auto"});
  const RuntimeOptions options = take_runtime_options(arguments.count, arguments.argv(),
                                                      {.bind = BindMode::kKeep, .threads = 3});
  EXPECT_EQ(options.bind, BindMode::kAuto);
  EXPECT_EQ(options.threads, 3);
  EXPECT_EQ(options.timeout, std::chrono::seconds(600));
}

TEST(RuntimeOptions, RefuseWhatTheyDoNotKnowByName) {
  for (const char* wrong :
       {"--strata.bin=keep", "--strata.bind", "--strata.bind=socket", "--strata.threads=0",
        "--strata.threads=two", "--strata.threads=3x", "--strata.threads=99999999999",
        "--strata.timeout=0", "--strata.timeout=nan", "--strata.timeout=", "--strata.timeout=-1",
        "--strata.collectives=tcp", "--strata."}) {
    Arguments arguments({"train", wrong});
    try {
      take_runtime_options(arguments.count, arguments.argv());
      ADD_FAILURE() << wrong << " was accepted";
    } catch (const UsageError& error) {
      EXPECT_EQ(std::string(error.what()).rfind(wrong, 0), 0u) << error.what();
    }
  }
}

}  // namespace
}  // namespace strata
