#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "checkpoint/parameter_patterns.h"
#include "checkpoint/pretrained.h"
#include "core/model/transformer.h"
#include "core/text/tokenizer.h"
#include "parallel/context.h"
#include "parallel/trainer.h"
#include "parallel/weight_storage.h"

namespace strata {

/// A model as a trainer wants it: what it computes, where its parameters start, and how text
/// becomes its tokens. Made by load_pretrained() or init_pretrained(). Move-only; model() stays
/// where it is when this moves, and must outlive the trainer.
class PretrainedModel {
 public:
  const ModelConfig& config() const noexcept { return config_; }
  const Model& model() const noexcept { return *model_; }
  /// Leaves parameters as they are: before a trainer is made of the model.
  /// @throws UsageError as frozen_parameters() does
  void freeze(const ParameterPatterns& patterns);
  /// All of them: before a generator is made of the model.
  void freeze_all() noexcept;
  /// The values to start from. Any range of any parameter is read when it is asked for, so that
  /// each rank reads only its shards. May outlive this object.
  const ParameterSource& source() const noexcept { return source_; }
  /// Where parameters lie in the directory's files. May outlive this object.
  const ParameterLocator& locator() const noexcept { return locator_; }
  /// Read from the directory when it is first asked for: a model without one can be trained on
  /// tokens. Not thread-safe.
  /// @throws UsageError if there is none, FormatError if it has ids that the model does not
  const Tokenizer& tokenizer();
  /// Where it was loaded from; empty for a fresh model.
  const std::filesystem::path& directory() const noexcept { return directory_; }
  /// How the directory keeps its weights quantised; none: it has all of their values.
  const std::optional<WeightStorage>& kept() const noexcept { return kept_; }

 private:
  friend PretrainedModel load_pretrained(const std::filesystem::path& directory,
                                         const DropoutChoice& dropout);
  friend PretrainedModel init_pretrained(const ModelConfig& config, std::uint64_t seed);
  PretrainedModel(const ModelConfig& config, const DropoutRates& dropout, ParameterSource source,
                  ParameterLocator locator, std::filesystem::path directory);

  ModelConfig config_;
  std::unique_ptr<Model> model_;
  ParameterSource source_;
  ParameterLocator locator_;
  std::filesystem::path directory_;
  std::optional<WeightStorage> kept_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

/// The file in which a model's directory keeps quantised weights, in place of others.
inline constexpr const char* kQuantizedFile = "quantized.safetensors";

/// Opens a Hugging Face model directory, or one with a QuantizedFile in place of weights, and
/// checks all of it but the values: config.json, and that the weights are the ones it promises. Not
/// collective; every rank opens its own.
/// @param dropout what training applies, whatever config() keeps for the saved model
/// @throws FormatError, IoError that name the file at fault; UsageError as chosen_dropout()
PretrainedModel load_pretrained(const std::filesystem::path& directory,
                                const DropoutChoice& dropout = {});

/// A model of `config` with fresh values that depend on `seed` only, and the byte tokenizer.
/// @throws FormatError if the config is not consistent
PretrainedModel init_pretrained(const ModelConfig& config, std::uint64_t seed);

/// How weights are written.
enum class SaveDtype : std::uint8_t {
  kSource,  ///< as the config says: fp32, bf16 or fp16 (rounded as fp16 training does)
  kF32,     ///< the masters, every bit
  kBf16,    ///< the weights that bf16 training computes with (optimizer/split.h: ties away from 0)
};

struct SaveOptions {
  SaveDtype dtype = SaveDtype::kSource;
  bool overwrite = false;  ///< write into a directory that is not empty; other files stay
  std::uint64_t max_shard_bytes = 5'000'000'000;
};

/// Refuses what save_pretrained() would refuse: call it before hours of training. Needs nothing of
/// the weights, and makes nothing.
/// @param bytes of the weights; none: as many as the options make of the config
/// @throws UsageError if `out` cannot be made, is not empty and is not to be overwritten, or lies
/// on a drive without room for the model
void check_save_target(const ModelConfig& config, const std::filesystem::path& out,
                       const SaveOptions& options = {}, std::optional<std::uint64_t> bytes = {});

/// Writes the trainer's parameters as transformers lays them out, with config.json, and the
/// tokenizer and generation settings that lie beside the source. Frozen parameters are those of the
/// source, every bit, whatever precision the trainer computed in. Collective: all ranks read, piece
/// by piece, rank 0 writes; every rank returns when the model is durable. Beside the trainer each
/// rank needs about 16 MiB, rank 0 also what PretrainedWriter assembles.
///
/// Missing directories are made. Files have their names only when all weights were written; when it
/// fails, nothing is left behind. A failure of rank 0 is thrown there while other ranks wait for
/// it: let it reach main(), which ends the job.
/// @throws UsageError on all ranks if `out` is refused or the trainer's model is not the
/// transformer of the config, and on rank 0 if a value is beyond the range of fp16; IoError on rank
/// 0
void save_pretrained(const Context& context, Trainer& trainer, const PretrainedModel& source,
                     const std::filesystem::path& out, const SaveOptions& options = {});

/// The same beside the step that follows, as Trainer::read_beside(): returns at once, saves the
/// model as it is now. `durable` is called on rank 0, on another thread, when the model is.
/// @param source borrowed until then
void save_pretrained_beside(const Context& context, Trainer& trainer, const PretrainedModel& source,
                            const std::filesystem::path& out, const SaveOptions& options,
                            std::function<void()> durable);

/// The first for a model that came from nowhere: no tokenizer is written, and frozen parameters are
/// as the trainer computes with them.
void save_pretrained(const Context& context, Trainer& trainer, const ModelConfig& config,
                     const std::filesystem::path& out, const SaveOptions& options = {});

}  // namespace strata
