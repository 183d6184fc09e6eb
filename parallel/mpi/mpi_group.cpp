#include "parallel/mpi/mpi_group.h"

#include <fmt/format.h>

#include <array>
#include <string>

namespace strata::mpi {

void check(int result, std::string_view operation, Where where) {
  if (result == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  if (MPI_Error_string(result, text.data(), &length) != MPI_SUCCESS) length = 0;
  throw Error(fmt::format("MPI could not {}: {} ({}:{})", operation,
                          std::string(text.data(), static_cast<std::size_t>(length)), where.file,
                          where.line));
}

Group::Group(MPI_Comm comm) : comm_(comm) {
  check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "set an error handler");
  check(MPI_Comm_rank(comm_, &rank_), "tell the rank");
  check(MPI_Comm_size(comm_, &size_), "tell the number of ranks");
}

Group Group::duplicate(MPI_Comm of) {
  MPI_Comm copy = MPI_COMM_NULL;
  check(MPI_Comm_dup(of, &copy), "duplicate a communicator");
  return Group(copy);
}

Group Group::on_this_node(const Group& of) {
  MPI_Comm node = MPI_COMM_NULL;
  check(MPI_Comm_split_type(of.get(), MPI_COMM_TYPE_SHARED, of.rank(), MPI_INFO_NULL, &node),
        "find the ranks of this node");
  return Group(node);
}

Group::~Group() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (comm_ != MPI_COMM_NULL && finalized == 0) MPI_Comm_free(&comm_);
}

Group::Group(Group&& other) noexcept : comm_(other.comm_), rank_(other.rank_), size_(other.size_) {
  other.comm_ = MPI_COMM_NULL;
}

}  // namespace strata::mpi
