#include "parallel/mpi/node_memory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>

namespace strata::mpi {
namespace {

using Name = std::array<char, 64>;

// Closes on every way out; the mapping keeps the memory.
struct Descriptor {
  int value = -1;
  ~Descriptor() {
    if (value >= 0) close(value);
  }
};

Name unique_name() {
  Name name{};
  const auto now = std::chrono::steady_clock::now().time_since_epoch().count();
  std::snprintf(name.data(), name.size(), "/strata-%d-%llx", getpid(),
                static_cast<unsigned long long>(now));
  return name;
}

int error_unless(bool success) { return success ? 0 : errno; }

// Reserves this rank's part, so that a full /dev/shm is an error here instead of a SIGBUS later,
// and so that the pages come from the memory next to the rank.
int reserve(int descriptor, const Group& node, std::size_t bytes) {
  const auto edge = [&](int rank) {
    constexpr std::size_t kPage = 4096;
    const std::size_t at =
        bytes * static_cast<std::size_t>(rank) / static_cast<std::size_t>(node.size());
    return static_cast<off_t>(rank == node.size() ? bytes : at / kPage * kPage);
  };
  const off_t begin = edge(node.rank());
  const off_t length = edge(node.rank() + 1) - begin;
  return length > 0 ? posix_fallocate(descriptor, begin, length) : 0;
}

int agree(int error, const Group& node) {
  int worst = 0;
  check(MPI_Allreduce(&error, &worst, 1, MPI_INT, MPI_MAX, node.get()),
        "agree on the node's shared memory");
  return worst;
}

void expects_no_error(int error, std::size_t bytes) {
  if (error == 0) return;
  throw Error(describe_errno(
      fmt::format("/dev/shm: the ranks of this node could not share {} bytes; make it larger (in "
                  "containers --shm-size) and common to all ranks, or use "
                  "--strata.collectives=messages",
                  bytes),
      error));
}

}  // namespace

NodeMemory::NodeMemory(const Group& node, std::size_t bytes) : bytes_(bytes) {
  Name name{};
  Descriptor descriptor;
  int error = 0;
  if (node.rank() == 0) {
    name = unique_name();
    descriptor.value = shm_open(name.data(), O_CREAT | O_EXCL | O_RDWR, S_IRUSR | S_IWUSR);
    error = error_unless(descriptor.value >= 0);
    if (error == 0)
      error = error_unless(ftruncate(descriptor.value, static_cast<off_t>(bytes)) == 0);
  }
  check(MPI_Bcast(name.data(), static_cast<int>(name.size()), MPI_CHAR, 0, node.get()),
        "tell the name of the node's shared memory");
  error = agree(error, node);
  if (error == 0 && node.rank() != 0) {
    descriptor.value = shm_open(name.data(), O_RDWR, 0);
    error = error_unless(descriptor.value >= 0);
  }
  if (error == 0) error = reserve(descriptor.value, node, bytes);
  if (error == 0) {
    void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor.value, 0);
    error = error_unless(mapped != MAP_FAILED);
    if (error == 0) data_ = static_cast<std::byte*>(mapped);
  }
  error = agree(error, node);  // also: everybody has opened it, so its name may go
  if (node.rank() == 0) shm_unlink(name.data());
  if (error != 0 && data_ != nullptr) munmap(data_, bytes_);
  expects_no_error(error, bytes);
}

NodeMemory::~NodeMemory() { munmap(data_, bytes_); }

}  // namespace strata::mpi
