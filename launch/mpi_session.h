#pragma once

namespace strata {

/// MPI for the life of a job: initialised here, unless the caller already did (then it stays the
/// caller's to finalise) or nobody launched this process (then there is no MPI: its start takes
/// half a second that a world of one does not need).
class MpiSession {
 public:
  /// Blocks until all ranks have started. @throws Error when MPI lacks MPI_THREAD_SERIALIZED
  MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  static bool is_initialized();

  int rank() const noexcept { return rank_; }
  int size() const noexcept { return size_; }

  /// Waits for all ranks and finalises what this session initialised. Not in a destructor, which
  /// must not wait for others.
  void finish();
  /// Ends all ranks with exit status `code`. Returns only without MPI.
  void abort(int code) noexcept;

 private:
  bool active_ = false;
  bool owns_ = false;
  int rank_ = 0;
  int size_ = 1;
};

}  // namespace strata
