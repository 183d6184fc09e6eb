#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/memory_pool.h"
#include "core/stream.h"
#include "swap/io_engine.h"
#include "swap/swap_file.h"

namespace strata {

/// Reads files that others wrote, in place: bytes that lie anywhere come by aligned reads of the
/// blocks around them, past the page cache where the filesystem allows it. A swap space is read as
/// one more file.
///
/// The jobs run in the order of read(), on lanes of the reader; reads run ahead of the bytes being
/// taken as far as the pool allows. read() never waits; it is called by one thread.
class FileReader {
 public:
  /// Bytes that are read at once. The pool holds as many as fill an engine's queue: with 16, passes
  /// over a model of 2.6 GB took 1.15 times as long.
  static constexpr std::size_t kPieceBytes = 1 << 20;
  static constexpr std::size_t kPoolBytes = 64 * (kPieceBytes + 2 * kIoAlignment);

  /// @param engine borrowed, outlives the reader, whose files stay open until it goes
  /// @param pool kPoolBytes at least, aligned as MemoryPool wants it
  FileReader(IoEngine& engine, std::span<std::byte> pool);
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  /// A number for the file, the same if it was opened before. @throws IoError, FormatError
  int open(const std::string& path);
  int open(SwapSpace& space);  ///< likewise; borrowed, outlives the reader

  struct Range {
    int file = 0;
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
    /// Called with consecutive pieces of the range, `begin` bytes into it, on the reader's lane.
    /// Pieces begin and end at multiples of 8 bytes of the range, but for its end.
    std::function<void(std::uint64_t begin, std::span<const std::byte> bytes)> take;
  };
  /// Reads all ranges once `free` happened. The event happens when all was taken; waiting for it
  /// throws what went wrong.
  Event read(std::vector<Range> ranges, std::vector<Event> free);

 private:
  class File;
  struct Piece;
  struct Job;
  void submit(Job& job);
  void submit_range(Job& job, std::size_t range);
  void take(Job& job, Piece& piece);

  IoEngine& engine_;
  MemoryPool pool_;
  std::vector<std::unique_ptr<File>> files_;
  std::unique_ptr<Stream> read_;
  std::unique_ptr<Stream> take_;
};

}  // namespace strata
