#pragma once

#include <sys/wait.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "tests/support/files.h"
#include "tests/support/temporary_directory.h"

namespace strata::test {

struct ProgramResult {
  int exit_code = -1;  ///< 128 + signal when one ended it
  std::string output;
  std::string errors;
};

/// Runs a program with its arguments, waits for it, and returns what it said.
inline ProgramResult run_program(const std::vector<std::string>& command) {
  const TemporaryDirectory directory;
  std::string line;
  for (const std::string& word : command) {
    line += '\'';
    for (const char c : word) line += c == '\'' ? std::string("'\\''") : std::string(1, c);
    line += "' ";
  }
  line += "> '" + (directory / "out").string() + "' 2> '" + (directory / "err").string() + "'";
  const int status = std::system(line.c_str());
  ProgramResult result;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.output = read_file(directory / "out");
  result.errors = read_file(directory / "err");
  return result;
}

}  // namespace strata::test
