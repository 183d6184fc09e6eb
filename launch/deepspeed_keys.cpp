#include "launch/deepspeed_keys.h"

#include <fmt/format.h>

#include <array>
#include <string>
#include <utility>

#include "core/nearest_name.h"

namespace strata {
namespace {

// DeepSpeed 0.19.6: runtime/constants.py, config.py, precision_config.py, zero/config.py,
// zero/offload_config.py, swap_tensor/constants.py, activation_checkpointing/config.py and
// monitor/config.py; optimizers and schedules by their constructors.

using enum KeyUse;

constexpr KnownKey kDocument[] = {
    {"train_batch_size", kHonoured},
    {"train_micro_batch_size_per_gpu", kHonoured},
    {"gradient_accumulation_steps", kHonoured},
    {"gradient_clipping", kHonoured},
    {"steps_per_print", kHonoured},
    {"optimizer", kHonoured},
    {"scheduler", kHonoured},
    {"fp16", kHonoured},
    {"bf16", kHonoured},
    {"bfloat16", kHonoured},  // the old name of bf16
    {"zero_optimization", kHonoured},
    {"aio", kHonoured},
    {"activation_checkpointing", kHonoured},
    {"tensorboard", kHonoured},
    {"strata", kHonoured},
    {"managed_gradient_accumulation"},
    {"zero_allow_untested_optimizer"},
    {"zero_force_ds_cpu_optimizer"},
    {"communication_data_type"},
    {"seq_parallel_communication_data_type"},
    {"data_types"},
    {"prescale_gradients"},
    {"gradient_predivide_factor"},
    {"sparse_gradients"},
    {"disable_allgather"},
    {"graph_harvesting"},
    {"vocabulary_size"},
    {"dataloader_drop_last"},
    {"checkpoint"},
    {"compile"},
    {"use_data_before_expert_parallelism"},
    {"wall_clock_breakdown", kExtra},
    {"memory_breakdown", kExtra},
    {"dump_state", kExtra},
    {"csv_monitor", kExtra},
    {"wandb", kExtra},
    {"comet", kExtra},
    {"flops_profiler", kExtra},
    {"comms_logger", kExtra},
    {"autotuning", kExtra},
    {"nebula", kExtra},
    {"hybrid_engine", kExtra},
    {"amp", kRefused},
    {"torch_autocast", kRefused},
    {"gradient_allreduce_op", kRefused, "\"mean\""},
    {"sparse_attention", kRefused},
    {"progressive_layer_drop", kRefused},
    {"eigenvalue", kRefused},
    {"curriculum_learning", kRefused},
    {"data_efficiency", kRefused},
    {"compression_training", kRefused},
    {"quantize_training", kRefused},
    {"weight_quantization", kRefused},
    {"elasticity", kRefused},
    {"pipeline", kRefused},
    {"tensor_parallel", kRefused},
    {"expert_parallel", kRefused},
    {"sequence_parallel_size", kRefused, "1"},
};

constexpr KnownKey kZero[] = {
    {"stage", kHonoured},
    {"offload_param", kHonoured},
    {"offload_optimizer", kHonoured},
    {"cpu_offload", kHonoured},
    {"cpu_offload_param", kHonoured},
    // Models are always saved whole.
    {"stage3_gather_16bit_weights_on_model_save", kHonoured},
    {"stage3_gather_fp16_weights_on_model_save", kHonoured},
    {"gather_16bit_weights_on_model_save", kHonoured},
    {"contiguous_gradients"},
    {"reduce_scatter"},
    {"reduce_bucket_size"},
    {"use_multi_rank_bucket_allreduce"},
    {"allgather_partitions"},
    {"allgather_bucket_size"},
    {"overlap_comm"},
    {"load_from_fp32_weights"},
    {"elastic_checkpoint"},
    {"cpu_offload_use_pin_memory"},
    {"sub_group_size"},
    {"stage3_prefetch_bucket_size"},
    {"prefetch_bucket_size"},
    {"stage3_param_persistence_threshold"},
    {"param_persistence_threshold"},
    {"stage3_model_persistence_threshold"},
    {"model_persistence_threshold"},
    {"stage3_max_live_parameters"},
    {"max_live_parameters"},
    {"stage3_max_reuse_distance"},
    {"max_reuse_distance"},
    {"stage3_module_granularity_threshold"},
    {"module_granularity_threshold"},
    {"stage3_use_all_reduce_for_fetch_params"},
    {"use_all_reduce_for_fetch_params"},
    {"stage3_allgather_sequential"},
    {"allgather_sequential"},
    {"ignore_unused_parameters"},
    {"legacy_stage1"},
    {"round_robin_gradients"},
    {"zero_hpz_partition_size"},
    {"mics_shard_size"},
    {"mics_hierarchical_params_gather"},
    {"memory_efficient_linear"},
    {"pipeline_loading_checkpoint"},
    {"override_module_apply"},
    {"log_trace_cache_warnings"},
    {"enable_sanity_checks"},
    {"save_muon_momentum_buffer_in_memory"},
    {"leaf_module"},
    {"zero_quantized_weights", kRefused},
    {"zero_quantized_nontrainable_weights", kRefused},
    {"zero_quantized_gradients", kRefused},
    {"zeropp_loco_param", kRefused},
    {"zenflow", kRefused},
};

constexpr KnownKey kOffloadParam[] = {
    {"device", kHonoured}, {"nvme_path", kHonoured}, {"buffer_count"},
    {"buffer_size"},       {"max_in_cpu"},           {"pin_memory"},
};

constexpr KnownKey kOffloadOptimizer[] = {
    {"device", kHonoured},
    {"nvme_path", kHonoured},
    {"buffer_count"},
    {"pin_memory"},
    {"pipeline_read"},
    {"pipeline_write"},
    {"pipeline"},
    {"fast_init"},
    {"ratio"},
    {"super_offload"},
    {"cpuadam_cores_perc"},
};

constexpr KnownKey kAio[] = {
    {"block_size", kHonoured},
    {"queue_depth", kHonoured},
    {"intra_op_parallelism"},
    {"thread_count"},
    {"single_submit"},
    {"overlap_events"},
    {"use_gds"},
};

constexpr KnownKey kFp16[] = {
    {"enabled", kHonoured},
    {"loss_scale", kHonoured},
    {"initial_scale_power", kHonoured},
    {"loss_scale_window", kHonoured},
    {"hysteresis", kHonoured},
    {"consecutive_hysteresis", kHonoured},
    {"min_loss_scale", kHonoured},
    {"auto_cast", kRefused},
    {"fp16_master_weights_and_grads", kRefused},
};

constexpr KnownKey kBf16[] = {
    {"enabled", kHonoured},
    {"check_grad_overflow", kExtra, "true"},  // gradients are always checked
    {"immediate_grad_update"},
    {"bf16_master_weights_and_grads", kRefused},
    {"bf16_optimizer_states", kRefused},
};

constexpr KnownKey kActivationCheckpointing[] = {
    {"cpu_checkpointing", kHonoured},    {"partition_activations"},
    {"contiguous_memory_optimization"},  {"number_checkpoints"},
    {"synchronize_checkpoint_boundary"}, {"profile"},
};

constexpr KnownKey kOptimizer[] = {{"type", kHonoured}, {"params", kHonoured}, {"legacy_fusion"}};
constexpr KnownKey kScheduler[] = {{"type", kHonoured}, {"params", kHonoured}};
constexpr KnownKey kFileMonitor[] = {
    {"enabled", kHonoured}, {"output_path", kHonoured}, {"job_name", kHonoured}};

constexpr KnownKey kAdam[] = {
    {"lr", kHonoured},
    {"betas", kHonoured},
    {"eps", kHonoured},
    {"weight_decay", kHonoured},
    {"adam_w_mode", kHonoured},
    {"torch_adam"},
    {"set_grad_none"},
    {"foreach"},
    {"fused"},
    {"bias_correction", kRefused, "true"},
    {"amsgrad", kRefused},
    {"fp32_optimizer_states", kRefused, "true"},
    {"max_grad_norm", kRefused},
};

constexpr KnownKey kLion[] = {
    {"lr", kHonoured},
    {"betas", kHonoured},
    {"weight_decay", kHonoured},
    {"set_grad_none"},
    {"fp32_optimizer_states", kRefused, "true"},
    {"max_grad_norm", kRefused},
};

constexpr KnownKey kSgd[] = {
    {"lr", kHonoured},
    {"momentum", kHonoured},
    {"weight_decay", kHonoured},
    {"foreach"},
    {"fused"},
    {"dampening", kRefused, "0"},
    {"nesterov", kRefused},
    {"maximize", kRefused},
    {"max_grad_norm", kRefused},
};

constexpr KnownKey kWarmup[] = {
    {"warmup_min_lr", kHonoured},
    {"warmup_max_lr", kHonoured},
    {"warmup_num_steps", kHonoured},
    {"warmup_type", kHonoured},
    {"last_batch_iteration", kRefused, "-1"},
};

constexpr KnownKey kWarmupDecay[] = {
    {"total_num_steps", kHonoured}, {"warmup_min_lr", kHonoured},
    {"warmup_max_lr", kHonoured},   {"warmup_num_steps", kHonoured},
    {"warmup_type", kHonoured},     {"last_batch_iteration", kRefused, "-1"},
};

constexpr KnownKey kWarmupCosine[] = {
    {"total_num_steps", kHonoured},  {"warmup_min_ratio", kHonoured},
    {"warmup_num_steps", kHonoured}, {"cos_min_ratio", kHonoured},
    {"warmup_type", kHonoured},      {"last_batch_iteration", kRefused, "-1"},
};

using Named = std::pair<std::string_view, std::span<const KnownKey>>;

constexpr Named kSections[] = {
    {"", kDocument},
    {"zero_optimization", kZero},
    {"zero_optimization.offload_param", kOffloadParam},
    {"zero_optimization.offload_optimizer", kOffloadOptimizer},
    {"aio", kAio},
    {"fp16", kFp16},
    {"bf16", kBf16},
    {"bfloat16", kBf16},
    {"activation_checkpointing", kActivationCheckpointing},
    {"optimizer", kOptimizer},
    {"scheduler", kScheduler},
    {"tensorboard", kFileMonitor},
    {"csv_monitor", kFileMonitor},
};
constexpr Named kOptimizers[] = {{"adam", kAdam}, {"adamw", kAdam}, {"lion", kLion}, {"sgd", kSgd}};
constexpr Named kSchedulers[] = {
    {"WarmupLR", kWarmup}, {"WarmupDecayLR", kWarmupDecay}, {"WarmupCosineLR", kWarmupCosine}};

void add_paths(std::string_view section, std::span<const KnownKey> keys,
               std::vector<std::string>& paths) {
  for (const KnownKey& key : keys) {
    paths.push_back(fmt::format("{}.{}", section, key.name));
  }
}

/// Of the keys that are not in the document itself.
std::vector<std::string> paths_of_sections() {
  std::vector<std::string> paths;
  for (const auto& [section, keys] : kSections) {
    if (!section.empty()) add_paths(section, keys, paths);
  }
  for (const auto& [type, keys] : kOptimizers) add_paths("optimizer.params", keys, paths);
  for (const auto& [type, keys] : kSchedulers) add_paths("scheduler.params", keys, paths);
  return paths;
}

std::span<const KnownKey> find(std::span<const Named> tables, std::string_view name) {
  for (const auto& [known, keys] : tables) {
    if (known == name) return keys;
  }
  return {};
}

}  // namespace

std::span<const KnownKey> known_keys(std::string_view path) { return find(kSections, path); }

std::span<const KnownKey> optimizer_keys(std::string_view lower_case_type) {
  return find(kOptimizers, lower_case_type);
}

std::span<const KnownKey> scheduler_keys(std::string_view type) { return find(kSchedulers, type); }

std::string key_meant_by(std::string_view path, std::string_view name,
                         std::span<const KnownKey> keys, const std::vector<std::string>& flags) {
  std::vector<std::string> names;
  for (const KnownKey& key : keys) names.emplace_back(key.name);
  const std::string nearest = nearest_name(name, names);
  if (!nearest.empty()) return nearest;
  for (std::string& elsewhere : paths_of_sections()) {
    const bool same_name = elsewhere.ends_with(fmt::format(".{}", name));
    if (same_name && elsewhere != path) return std::move(elsewhere);
  }
  const std::string flag = nearest_name(name, flags);
  return flag.empty() ? flag : fmt::format("strata.{}", flag);
}

}  // namespace strata
