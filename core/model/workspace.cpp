#include "core/model/workspace.h"

#include <fmt/format.h>

#include <limits>

namespace strata {
namespace {

/// Where a measuring workspace pretends to lie. Never followed.
std::byte* nowhere() { return reinterpret_cast<std::byte*>(Workspace::kAlignment); }

}  // namespace

WorkspaceBlock::~WorkspaceBlock() { workspace_->ranges_.release(offset_); }

Workspace::Workspace(Buffer memory)
    : memory_(std::move(memory)), base_(memory_.data()), ranges_(memory_.bytes(), kAlignment) {}

Workspace::Workspace()
    : base_(nowhere()), ranges_(std::numeric_limits<std::size_t>::max() / 2, kAlignment) {}

std::shared_ptr<WorkspaceBlock> Workspace::allocate(std::size_t bytes) {
  const auto offset = ranges_.allocate(bytes);
  if (!offset) {
    throw Error(
        fmt::format("a block's forward needs {} bytes more than the {} of its workspace; "
                    "did its shapes change after the plan was made?",
                    bytes, ranges_.capacity()));
  }
  return std::make_shared<WorkspaceBlock>(this, *offset, base_ + *offset);
}

}  // namespace strata
