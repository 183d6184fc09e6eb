#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>

#include "core/error.h"
#include "swap/io_engine.h"
#include "tests/support/aligned_memory.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

using test::AlignedMemory;

/// Makes io_uring_setup fail with `system_error` in this process, as a container's profile does.
void forbid_io_uring(unsigned system_error) {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | system_error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{std::size(program), program};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) std::perror("seccomp");
}

/// Prints what a process without io_uring gets, and ends it with 0 if transfers work there.
[[noreturn]] void run_without_io_uring(unsigned system_error, int descriptor) {
  forbid_io_uring(system_error);
  auto io = make_io_engine({});
  const AlignedMemory out(kIoAlignment);
  const IoRequest request{IoRequest::Kind::kWrite, io->open_file(descriptor, "file"), 0,
                          out.span()};
  io->submit({&request, 1}).wait();
  std::fprintf(stderr, "%s: %s", io->name().c_str(), io->notice().c_str());
  try {
    make_io_engine({.kind = IoEngineOptions::Kind::kUring});
  } catch (const Error&) {
    std::_Exit(0);
  }
  std::_Exit(1);
}

/// Prints the notice of an engine that may pin 64 KiB, and ends the process with 0 if transfers
/// work.
[[noreturn]] void run_without_locked_memory(int descriptor) {
  const rlimit limit{64 * 1024, 64 * 1024};
  setrlimit(RLIMIT_MEMLOCK, &limit);
  if (geteuid() == 0 && setuid(65534) != 0) std::_Exit(2);  // root may pin what it likes
  auto io = make_uring_io_engine({});
  const AlignedMemory memory(4 << 20);
  io->register_memory(memory.span());
  const IoRequest request{IoRequest::Kind::kWrite, io->open_file(descriptor, "file"), 0,
                          memory.span()};
  io->submit({&request, 1}).wait();
  std::fprintf(stderr, "%s", io->notice().c_str());
  std::_Exit(io->counters().bytes_written == memory.span().size() ? 0 : 1);
}

class IoFallback : public testing::Test {
 protected:
  int open_scratch() const {
    return open((directory_.path() + "/file").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  }
  test::TemporaryDirectory directory_;
};

TEST_F(IoFallback, TakesThreadsWhereTheKernelForbidsIoUringAndSaysWhy) {
  const int descriptor = open_scratch();
  EXPECT_EXIT(run_without_io_uring(EPERM, descriptor), testing::ExitedWithCode(0),
              "threads: io_uring is not available: Operation not permitted; .*seccomp");
  EXPECT_EXIT(run_without_io_uring(ENOSYS, descriptor), testing::ExitedWithCode(0),
              "threads: io_uring is not available: Function not implemented");
  close(descriptor);
}

TEST_F(IoFallback, WorksWithoutPinnedMemoryAndAdvises) {
  try {
    make_uring_io_engine({});
  } catch (const Error& cause) {
    GTEST_SKIP() << cause.what();
  }
  const int descriptor = open_scratch();
  EXPECT_EXIT(run_without_locked_memory(descriptor), testing::ExitedWithCode(0), "ulimit -l");
  close(descriptor);
}

}  // namespace
}  // namespace strata
