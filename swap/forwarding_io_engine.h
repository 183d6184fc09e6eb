#pragma once

// Internal to what stands in front of an engine. Not installed.

#include <memory>
#include <string>
#include <utility>

#include "swap/io_engine.h"

namespace strata {

/// Passes everything on to another engine: what stands in front of one overrides what it changes.
class ForwardingIoEngine : public IoEngine {
 public:
  explicit ForwardingIoEngine(std::unique_ptr<IoEngine> real) : real_(std::move(real)) {}

  std::string name() const override { return real_->name(); }
  IoFile open_file(int descriptor, std::string path) override {
    return real_->open_file(descriptor, std::move(path));
  }
  void register_memory(std::span<std::byte> memory) override { real_->register_memory(memory); }
  Event submit(std::span<const IoRequest> requests) override { return real_->submit(requests); }
  IoCounters counters() const override { return real_->counters(); }
  std::string notice() const override { return real_->notice(); }

 private:
  std::unique_ptr<IoEngine> real_;
};

}  // namespace strata
