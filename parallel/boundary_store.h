#pragma once

#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "core/device.h"
#include "parallel/lane_clock.h"
#include "swap/swap_file.h"

namespace strata {

/// Activations between blocks, one [T, C] per boundary and micro-batch, from the forward phase to
/// the backward phase. Either all in memory, or on swap but for those in use: written once as they
/// are made, read once ahead of their backward visit; the last boundary is turned around in memory.
///
/// The first `passing` boundaries are not asked for by the backward phase: each gives its memory to
/// the next, and none is written.
///
/// Boundary b is the output of block b. A step calls, in this order: for b ascending, for every
/// micro-batch: input(b - 1) and drop(b - 1), output(b), finish_output(b); then for b descending,
/// for every micro-batch: input(b), drop(b). Evaluation ends after the last boundary's drops.
class BoundaryStore {
 public:
  struct Shape {
    int boundaries = 0;
    int passing = 0;  ///< of them; fewer than all
    int micro_batches = 0;
    Dtype dtype = Dtype::kBf16;
    std::int64_t tokens = 0;           ///< T
    std::int64_t hidden = 0;           ///< C
    std::size_t tensor_bytes() const;  ///< of one [T, C], a multiple of 4096
    int tensors() const;               ///< that are in memory at once where all of them are
  };

  /// Everything in `memory`, memory_bytes() of the device.
  BoundaryStore(const Shape& shape, std::span<std::byte> memory);
  /// On swap, `slots` tensors at a time in `memory`: slots >= least_slots().
  BoundaryStore(const Shape& shape, std::span<std::byte> memory, int slots, SwapSpace& swap,
                LaneClock& clock);

  static std::size_t memory_bytes(const Shape& shape);
  /// A whole boundary, one tensor being made, and one on its way.
  static int least_slots(const Shape& shape) { return shape.micro_batches + 2; }
  static std::uint64_t swap_bytes(const Shape& shape);

  /// `keep`: a backward phase follows; otherwise nothing is written and drops are final.
  void begin(bool keep);
  TensorView output(int boundary, int micro_batch);
  /// The output is complete on `compute`.
  void finish_output(int boundary, int micro_batch, Stream& compute);
  TensorView input(int boundary, int micro_batch);
  /// Nothing that is submitted to `compute` from now on uses the tensor.
  void drop(int boundary, int micro_batch, Stream& compute);

 private:
  struct Slot {
    std::span<std::byte> memory;
    bool taken = false;
    Event written;
    Event last_use;
    bool idle() const { return !taken && written.ready() && last_use.ready(); }
  };
  /// Where the tensor of one boundary and micro-batch is.
  struct Place {
    int slot = -1;
    Event ready;
  };

  Place& place(int boundary, int micro_batch);
  std::uint64_t offset(int boundary, int micro_batch) const;
  TensorView view(std::span<std::byte> memory) const;
  int written() const;  // tensors that a step writes and reads back
  int free_slot();
  void read_ahead();
  void read_next(int slot);

  Shape shape_;
  std::vector<Slot> slots_;
  SwapSpace* swap_ = nullptr;
  LaneClock* clock_ = nullptr;
  std::vector<Place> places_;  // [boundary * micro_batches + micro_batch]
  bool keep_ = true;
  int unread_ = -1;  // tensors still to be read back in the backward phase; -1: forward phase
};

}  // namespace strata
