#pragma once

#include <memory>

#include "core/device.h"
#include "core/memory_pool.h"

namespace strata {

class Workspace;

/// A piece of a workspace; gives itself back. Shared by the values that use it.
class WorkspaceBlock {
 public:
  WorkspaceBlock(Workspace* workspace, std::size_t offset, void* data)
      : workspace_(workspace), offset_(offset), data_(data) {}
  WorkspaceBlock(const WorkspaceBlock&) = delete;
  WorkspaceBlock& operator=(const WorkspaceBlock&) = delete;
  ~WorkspaceBlock();
  void* data() const noexcept { return data_; }

 private:
  Workspace* workspace_;
  std::size_t offset_;
  void* data_;
};

/// Device memory for the activations of one micro-batch in one block. Memory is reused as soon as a
/// value goes, which is safe because all users run on one compute stream. Not thread-safe.
///
/// Without memory behind it a workspace only measures: run the same blocks over it with measuring
/// operations and peak() is the size that the real one needs, exactly.
class Workspace {
 public:
  static constexpr std::size_t kAlignment = 64;

  explicit Workspace(Buffer memory);  ///< owns `memory`
  Workspace();                        ///< measures

  /// @throws Error when the workspace is full
  std::shared_ptr<WorkspaceBlock> allocate(std::size_t bytes);
  std::size_t peak() const noexcept { return ranges_.peak(); }

 private:
  friend class WorkspaceBlock;
  Buffer memory_;
  std::byte* base_;
  RangeAllocator ranges_;
};

}  // namespace strata
