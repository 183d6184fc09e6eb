#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "swap/io_engine.h"

namespace strata::test {

/// A real engine together with a double that stands in front of it, to be handed to a trainer.
template <typename Double>
class DecoratedEngine final : public IoEngine {
 public:
  template <typename... Arguments>
  explicit DecoratedEngine(std::unique_ptr<IoEngine> real, Arguments&&... arguments)
      : real_(std::move(real)), double_(*real_, std::forward<Arguments>(arguments)...) {}

  std::string name() const override { return double_.name(); }
  IoFile open_file(int descriptor, std::string path) override {
    return double_.open_file(descriptor, std::move(path));
  }
  void register_memory(std::span<std::byte> memory) override { double_.register_memory(memory); }
  IoCounters counters() const override { return double_.counters(); }
  Event submit(std::span<const IoRequest> requests) override { return double_.submit(requests); }

 private:
  std::unique_ptr<IoEngine> real_;
  Double double_;  // goes first
};

/// For TrainerOptions::make_engine.
template <typename Double, typename... Arguments>
std::function<std::unique_ptr<IoEngine>(const IoEngineOptions&)> decorate(Arguments... arguments) {
  return [=](const IoEngineOptions& options) -> std::unique_ptr<IoEngine> {
    return std::make_unique<DecoratedEngine<Double>>(make_io_engine(options), arguments...);
  };
}

}  // namespace strata::test
