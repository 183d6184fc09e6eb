#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "parallel/thread_communicator.h"

namespace strata::test {

/// Runs `body` on `ranks` threads of this process, each with its own communicator of one world, and
/// returns when all are done. When a rank throws, the others fail soon instead of waiting for it,
/// and the first exception is rethrown here.
inline void run_on_threads(int ranks, const std::function<void(Communicator&)>& body,
                           const CollectiveOptions& options = {}) {
  ThreadWorld world(ranks, options);
  std::mutex mutex;
  std::exception_ptr first;  // guarded by mutex
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      const std::unique_ptr<Communicator> communicator = world.communicator(rank);
      try {
        body(*communicator);
        communicator->stream().synchronize();
      } catch (...) {
        {
          const std::lock_guard lock(mutex);
          if (!first) first = std::current_exception();
        }
        world.abandon();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace strata::test
