#include "launch/deepspeed_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <utility>

#include "core/error.h"
#include "core/json_file.h"
#include "launch/config_node.h"
#include "launch/deepspeed_keys.h"

namespace strata {
namespace {

using nlohmann::json;
using Node = ConfigNode;

constexpr int kMaxDepth = 32;
constexpr std::int64_t kMostSequences = 1 << 20;

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

bool is_off(const Node& node, std::string_view off) {
  if (!node || node.automatic()) return true;
  const json& value = node.value();
  if (!off.empty()) return value == json::parse(off);
  if (value.is_object() && value.contains("enabled")) return is_off(node["enabled"], off);
  return value == false || value.empty();
}

/// Everything that is read from one document.
class Reader {
 public:
  Reader(const std::string& file, const json& document, const std::vector<std::string>& flags)
      : root_(file, document), flags_(flags) {}

  DeepSpeedConfig read() {
    check_keys(root_, known_keys(""));
    read_native(root_["strata"]);
    if (root_.value().size() == (root_["strata"] ? 1 : 0)) return std::move(config_);
    read_batch();
    read_precision();
    read_optimizer(root_["optimizer"]);
    read_scheduler(root_["scheduler"]);
    read_zero(root_["zero_optimization"]);
    read_aio(root_["aio"]);
    whole_number(root_["steps_per_print"], "--logging_steps", 1);
    real_number(root_["gradient_clipping"], "--max_grad_norm", Node::kAnyReal);
    set_default("gradient_clipping", "--max_grad_norm", "1");
    const Node offload = root_["activation_checkpointing"]["cpu_checkpointing"];
    if (offload && offload.boolean()) set(offload, "--activations", {"dram"});
    read_tensorboard(root_["tensorboard"]);
    return std::move(config_);
  }

 private:
  /// Every key of the object is known, and what it asks for can be had.
  void check_keys(const Node& node, std::span<const KnownKey> keys) {
    node.expect_object();
    if (!node || keys.empty()) return;
    for (const auto& [name, value] : node.value().items()) {
      const Node child = node[name];
      const auto known = std::ranges::find(keys, std::string_view(name), &KnownKey::name);
      if (known == keys.end()) refuse_unknown(child, name, keys);
      check_key(child, *known);
      if (!known_keys(child.path()).empty()) check_keys(child, known_keys(child.path()));
    }
  }

  void refuse_unknown(const Node& child, const std::string& name,
                      std::span<const KnownKey> keys) const {
    const std::string meant = key_meant_by(child.path(), name.substr(0, 100), keys, flags_);
    child.refuse(meant.empty() ? std::string("there is no such key; remove it")
                               : fmt::format("there is no such key; did you mean {}?", meant));
  }

  void check_key(const Node& child, const KnownKey& known) {
    if (known.use == KeyUse::kReplaced ||
        (known.use == KeyUse::kExtra && !is_off(child, known.off))) {
      config_.ignored.push_back(child.path());
    }
    if (known.use != KeyUse::kRefused || is_off(child, known.off)) return;
    if (known.name == "max_grad_norm") {
      child.refuse("DeepSpeed takes it as gradient_clipping, beside \"optimizer\"");
    }
    child.refuse(known.off.empty()
                     ? fmt::format("{} asks for what does not exist here; remove it", child.shown())
                     : fmt::format("{} asks for what does not exist here; use {}", child.shown(),
                                   known.off));
  }

  void set(const Node& node, const std::string& flag, std::vector<std::string> values) {
    config_.settings.push_back({node.path(), node.shown(), flag, std::move(values)});
  }
  /// Unless the file has said something about the flag.
  void set_default(const char* key, const char* flag, const char* value) {
    if (std::ranges::find(config_.settings, flag, &ConfigSetting::flag) != config_.settings.end()) {
      return;
    }
    config_.settings.push_back({key, value, flag, {value}, true});
  }
  /// For what no flag says.
  void note(const Node& node) { config_.settings.push_back({node.path(), node.shown(), "", {}}); }

  void whole_number(const Node& node, const char* flag, std::int64_t low,
                    std::int64_t high = Node::kMost) {
    if (!node) return;
    set(node, flag,
        node.automatic() ? std::vector<std::string>()
                         : std::vector{std::to_string(node.whole(low, high))});
  }
  void real_number(const Node& node, const char* flag, double high) {
    if (!node) return;
    set(node, flag,
        node.automatic() ? std::vector<std::string>()
                         : std::vector{fmt::format("{}", node.real(0, high))});
  }

  void read_native(const Node& section) {
    section.expect_object();
    if (!section) return;
    for (const auto& [name, value] : section.value().items()) {
      const Node node = section[name];
      if (!node) continue;
      std::vector<std::string> values;
      if (!node.automatic()) values = native_values(node);
      set(node, "--" + name, std::move(values));
    }
  }
  static std::vector<std::string> native_values(const Node& node) {
    const json& value = node.value();
    if (!value.is_array()) return {native_value(node, value)};
    std::vector<std::string> values;
    for (const json& element : value) values.push_back(native_value(node, element));
    if (values.empty()) node.refuse("the list is empty; remove the key");
    return values;
  }
  static std::string native_value(const Node& node, const json& value) {
    if (value.is_string()) return value.get<std::string>();
    if (value.is_boolean() || value.is_number_integer()) return value.dump();
    if (value.is_number()) return fmt::format("{}", value.get<double>());
    node.refuse_value("what a flag takes: a string, a number, true, false, or a list of them");
  }

  void read_batch() {
    whole_number(root_["train_batch_size"], "--train_batch_size", 1);
    whole_number(root_["train_micro_batch_size_per_gpu"], "--per_device_train_batch_size", 1);
    whole_number(root_["gradient_accumulation_steps"], "--gradient_accumulation_steps", 1);
  }

  void read_precision() {
    const Node fp16 = root_["fp16"]["enabled"];
    const Node bf16 = root_[root_["bf16"] ? "bf16" : "bfloat16"]["enabled"];
    const auto on = [](const Node& node) { return node && !node.automatic() && node.boolean(); };
    if (on(fp16) && on(bf16)) fp16.refuse("bf16.enabled is true as well; choose one of them");
    if (on(fp16) || fp16.automatic()) read_loss_scale(root_["fp16"]);
    if (on(fp16)) return set(fp16, "--compute", {"fp16"});
    if (on(bf16)) return set(bf16, "--compute", {"bf16"});
    if (bf16.automatic() || fp16.automatic()) {
      return set(bf16.automatic() ? bf16 : fp16, "--compute", {});
    }
    if (bf16) return set(bf16, "--compute", {"fp32"});
    if (fp16) return set(fp16, "--compute", {"fp32"});
    set_default("bf16.enabled", "--compute", "fp32");
  }

  void read_loss_scale(const Node& fp16) {
    real_number(fp16["loss_scale"], "--loss_scale", Node::kAnyReal);
    whole_number(fp16["initial_scale_power"], "--initial_scale_power", 0, 100);
    whole_number(fp16["loss_scale_window"], "--loss_scale_window", 1);
    whole_number(fp16["hysteresis"], "--hysteresis", 1);
    real_number(fp16["min_loss_scale"], "--min_loss_scale", Node::kAnyReal);
    const Node consecutive = fp16["consecutive_hysteresis"];
    if (!consecutive) return;
    set(consecutive, "--consecutive_hysteresis",
        consecutive.automatic()
            ? std::vector<std::string>()
            : std::vector<std::string>{consecutive.boolean() ? "true" : "false"});
  }

  void read_optimizer(const Node& section) {
    if (!section) return;
    config_.extras.decay_everywhere = true;
    const Node type = section["type"];
    if (!type) section.refuse("it has no \"type\"; add Adam, AdamW, Lion or SGD");
    const std::string name = lower(type.text());
    const auto keys = optimizer_keys(name);
    if (keys.empty()) type.refuse_value("an optimizer that exists here: Adam, AdamW, Lion or SGD");
    const Node params = section["params"];
    check_keys(params, keys);
    set(type, "--optim", {rule_of(name, params["adam_w_mode"])});
    const Node rate = params["lr"];
    const Node scheduler = root_["scheduler"];
    if (!scheduler["params"]["warmup_max_lr"] && !is_decay(scheduler["type"])) {
      real_number(rate, "--learning_rate", Node::kAnyReal);
      set_default("optimizer.params.lr", "--learning_rate", "0.001");
    } else if (rate && !rate.automatic()) {  // the schedule has a peak of its own
      rate.real(0, Node::kAnyReal);
    }
    read_betas(params["betas"]);
    real_number(params["eps"], "--adam_epsilon", 1);
    real_number(params["weight_decay"], "--weight_decay", Node::kAnyReal);
    real_number(params["momentum"], "--momentum", 1);
  }

  static bool is_decay(const Node& type) { return type && type.value() == "WarmupDecayLR"; }

  /// "Adam" means AdamW, as in DeepSpeed, unless it says otherwise.
  static std::string rule_of(const std::string& type, const Node& adam_w_mode) {
    if (type != "adam") return type;
    return adam_w_mode && !adam_w_mode.boolean() ? "adam" : "adamw";
  }

  void read_betas(const Node& betas) {
    if (!betas) return;
    if (betas.automatic()) {
      set(betas, "--adam_beta1", {});
      return set(betas, "--adam_beta2", {});
    }
    const json& value = betas.value();
    const auto is_beta = [](const json& beta) {
      return beta.is_number() && beta.get<double>() >= 0 && beta.get<double>() < 1;
    };
    if (!value.is_array() || value.size() != 2 || !is_beta(value[0]) || !is_beta(value[1])) {
      betas.refuse_value("two numbers from 0 to below 1");
    }
    set(betas, "--adam_beta1", {fmt::format("{}", value[0].get<double>())});
    set(betas, "--adam_beta2", {fmt::format("{}", value[1].get<double>())});
  }

  void read_scheduler(const Node& section) {
    if (!section) return;
    const Node type = section["type"];
    if (!type) section.refuse("it has no \"type\"; add WarmupLR, WarmupDecayLR or WarmupCosineLR");
    const auto keys = scheduler_keys(type.text());
    if (keys.empty()) {
      type.refuse_value(
          "a schedule that exists here: WarmupLR, WarmupDecayLR or WarmupCosineLR; others are "
          "flags, --lr_scheduler_type");
    }
    const Node params = section["params"];
    check_keys(params, keys);
    set(type, "--lr_scheduler_type", {type.text()});
    real_number(params["warmup_max_lr"], "--learning_rate", Node::kAnyReal);
    if (is_decay(type)) {
      set_default("scheduler.params.warmup_max_lr", "--learning_rate", "0.001");
    }
    whole_number(params["warmup_num_steps"], "--warmup_steps", 1);
    set_default("scheduler.params.warmup_num_steps", "--warmup_steps", "1000");
    ConfigExtras& extras = config_.extras;
    const auto read = [&](const char* key, double high, double& target) {
      const Node node = params[key];
      if (!node) return;
      if (!node.automatic()) target = node.real(0, high);
      note(node);
    };
    read("warmup_min_lr", Node::kAnyReal, extras.warmup_start);
    read("warmup_min_ratio", 1, extras.warmup_start_ratio);
    read("cos_min_ratio", 1, extras.cosine_end);
    read_shape(params["warmup_type"]);
    const Node total = params["total_num_steps"];
    if (!total) return;
    if (!total.automatic()) extras.schedule_steps = total.whole(1);
    note(total);
  }

  void read_shape(const Node& type) {
    if (!type) return;
    const std::string text = type.text();
    if (text != "log" && text != "linear") type.refuse_value("\"log\" or \"linear\"");
    if (text == "linear") config_.extras.warmup_shape = WarmupShape::kLinear;
    note(type);
  }

  void read_zero(const Node& zero) {
    whole_number(zero["stage"], "--stage", 0, 3);
    set_default("zero_optimization.stage", "--stage", "0");
    std::vector<std::string> directories;
    std::string keys;
    const auto add = [&](const Node& path) {
      if (!path || path.automatic()) return;
      if (path.text().empty()) path.refuse_value("a directory");
      if (std::ranges::find(directories, path.text()) != directories.end()) return;
      directories.push_back(path.text());
      keys += (keys.empty() ? "" : ", ") + path.path();
    };
    const auto offload = [&](const Node& section, const Node& old,
                             const std::vector<std::string>& sections) {
      if (old && old.boolean()) return set(old, "--place", places(sections, "dram"));
      const Node device = section["device"];
      if (!device) return;
      const std::string text = device.text();
      if (text == "none") return;
      if (text != "cpu" && text != "nvme") device.refuse_value("\"none\", \"cpu\" or \"nvme\"");
      set(device, "--place", places(sections, text == "cpu" ? "dram" : "swap"));
      if (text == "nvme") add(section["nvme_path"]);
    };
    offload(zero["offload_param"], zero["cpu_offload_param"], {"hi"});
    offload(zero["offload_optimizer"], zero["cpu_offload"], {"lo", "m", "v"});
    if (directories.empty()) return;
    config_.settings.push_back({keys, json(directories).dump(), "--swap", directories});
  }
  static std::vector<std::string> places(const std::vector<std::string>& sections,
                                         const char* place) {
    std::vector<std::string> values;
    for (const std::string& section : sections) values.push_back(section + "=" + place);
    return values;
  }

  void read_aio(const Node& aio) {
    if (!aio) return;
    constexpr std::int64_t kAlignment = 4096;
    constexpr std::int64_t kMostBytes = std::int64_t{1} << 30;
    ConfigExtras& extras = config_.extras;
    const Node block = aio["block_size"];
    extras.io_block_bytes = std::size_t{1} << 20;
    if (block) {
      const std::int64_t bytes = block.whole(kAlignment, kMostBytes);
      if (bytes % kAlignment != 0) block.refuse_value("a multiple of 4096");
      extras.io_block_bytes = static_cast<std::size_t>(bytes);
      note(block);
    }
    const Node depth = aio["queue_depth"];
    extras.io_queue_depth = 8;
    if (!depth) return;
    extras.io_queue_depth = static_cast<unsigned>(depth.whole(1, 1024));
    note(depth);
  }

  /// As DeepSpeed: events go to output_path/job_name. To --out where the file has neither.
  void read_tensorboard(const Node& section) {
    if (!section) return;
    const Node enabled = section["enabled"];
    if (!enabled) return set_default("tensorboard.enabled", "--report_to", "none");
    if (enabled.automatic()) {
      set(enabled, "--report_to", {});
    } else {
      set(enabled, "--report_to", {enabled.boolean() ? "tensorboard" : "none"});
      if (!enabled.boolean()) return;
    }
    const Node path = section["output_path"], job = section["job_name"];
    const auto text = [](const Node& node, const char* otherwise) {
      return node && !node.automatic() ? node.text() : otherwise;
    };
    const std::filesystem::path directory =
        std::filesystem::path(text(path, "")) / text(job, path ? "DeepSpeedJobName" : "");
    if (directory.empty()) return;
    config_.settings.push_back(
        {path && job ? path.path() + ", " + job.path() : (path ? path : job).path(),
         json(directory.string()).dump(),
         "--logging_dir",
         {directory.string()}});
  }

  Node root_;
  const std::vector<std::string>& flags_;
  DeepSpeedConfig config_;
};

}  // namespace

DeepSpeedConfig parse_deepspeed_config(std::string_view text, const std::string& path,
                                       const std::vector<std::string>& flags) {
  const json document = parse_json_object(text, path, kMaxDepth);
  return Reader(path, document, flags).read();
}

BatchSizes derive_batch(BatchSizes given, int ranks) {
  BatchSizes batch = given;
  if (batch.train == 0 && batch.micro == 0) {
    throw UsageError(
        "a batch needs train_batch_size (--train_batch_size) or train_micro_batch_size_per_gpu "
        "(--per_device_train_batch_size)");
  }
  if (batch.accumulation == 0 && (batch.train == 0 || batch.micro == 0)) batch.accumulation = 1;
  if (batch.accumulation == 0) batch.accumulation = batch.train / batch.micro / ranks;
  if (batch.micro == 0) batch.micro = batch.train / ranks / batch.accumulation;
  const std::int64_t product = batch.micro * batch.accumulation * ranks;
  if (batch.train == 0) batch.train = product;
  if (std::max(batch.micro, batch.accumulation) > kMostSequences) {
    throw UsageError(
        fmt::format("--train_batch_size: {} makes micro-batches of {} sequences, {} "
                    "of them; use {} or less of both",
                    batch.train, batch.micro, batch.accumulation, kMostSequences));
  }
  if (batch.train == product && product > 0) return batch;
  throw UsageError(
      fmt::format("--train_batch_size: {} is not --per_device_train_batch_size {} x "
                  "--gradient_accumulation_steps {} x {} ranks = {}",
                  batch.train, batch.micro, batch.accumulation, ranks, product));
}

}  // namespace strata
