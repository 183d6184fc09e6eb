#include "core/model/config.h"

#include <gtest/gtest.h>

#include <map>

#include "core/model/batch.h"
#include "core/model/transformer.h"

namespace strata {
namespace {

constexpr const char* kGpt2 = R"({
  "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024,
  "n_ctx": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": null,
  "activation_function": "gelu_new", "layer_norm_epsilon": 1e-05, "initializer_range": 0.02,
  "resid_pdrop": 0.1, "bos_token_id": 50256, "eos_token_id": 50256})";

std::string llama(const std::string& more) {
  return R"({"model_type": "llama", "vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96, "hidden_act": "silu",
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-05)" +
         (more.empty() ? "" : ", " + more) + "}";
}

std::string qwen2(const std::string& more) {
  return R"({"model_type": "qwen2", "vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96)" +
         (more.empty() ? "" : ", " + more) + "}";
}

std::string message_of(const std::string& json) {
  try {
    parse_config(json, "model/config.json");
  } catch (const FormatError& error) {
    return error.what();
  }
  return "accepted";
}

void expect_refused(const std::string& json, const std::vector<std::string>& parts) {
  const std::string message = message_of(json);
  EXPECT_EQ(message.rfind("model/config.json: ", 0), 0u) << message;
  for (const std::string& part : parts) {
    EXPECT_NE(message.find(part), std::string::npos) << "\"" << part << "\" is not in " << message;
  }
}

TEST(Config, ReadsTheReleasedGpt2) {
  const ModelConfig config = parse_config(kGpt2, "config.json");
  EXPECT_EQ(config, preset("gpt2-124m"));
  EXPECT_EQ(config.intermediate, 3072);
  EXPECT_TRUE(config.tied);
  EXPECT_FLOAT_EQ(config.attention_scale(), 0.125f);
}

TEST(Config, ReadsLlamaInTheSpellingsOfTransformers4And5) {
  const std::string scaling =
      R"("rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 8192)";
  const ModelConfig four =
      parse_config(llama(R"("rope_theta": 500000.0, "torch_dtype": "bfloat16", "rope_scaling": {)" +
                         scaling + "}"),
                   "four");
  const ModelConfig five = parse_config(
      llama(R"("dtype": "bfloat16", "rope_parameters": {"rope_theta": 500000.0, )" + scaling + "}"),
      "five");
  EXPECT_EQ(four, five);
  EXPECT_EQ(four.rope_scaling.kind, RotaryScaling::Kind::kLlama3);
  EXPECT_EQ(four.rope_theta, 500000.0);
  EXPECT_EQ(four.weight_dtype, Dtype::kBf16);
  EXPECT_EQ(four.head_size, 16);
  EXPECT_EQ(four.key_value_width(), 32);
}

TEST(Config, TakesTheDefaultsOfTransformersForAbsentKeys) {
  const ModelConfig config = parse_config(llama(""), "config.json");
  EXPECT_EQ(config.rope_theta, 10000.0);
  EXPECT_EQ(config.rope_scaling.kind, RotaryScaling::Kind::kNone);
  EXPECT_EQ(config.weight_dtype, Dtype::kF32);
  EXPECT_FALSE(config.tied);
  EXPECT_FALSE(config.query_key_value_bias);
  EXPECT_EQ(parse_config(llama(R"("num_key_value_heads_": 1, "rope_scaling": null)"), "c"), config);
}

TEST(Config, KnowsWhereFamiliesDiffer) {
  const ModelConfig opt = parse_config(R"({"model_type": "opt", "vocab_size": 50272,
      "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "ffn_dim": 4096,
      "max_position_embeddings": 2048, "word_embed_proj_dim": 512,
      "do_layer_norm_before": false, "init_std": 0.006})",
                                       "opt-350m");
  EXPECT_EQ(opt.position_offset, 2);
  EXPECT_EQ(opt.table_width(), 512);
  EXPECT_FALSE(opt.pre_norm);
  EXPECT_FALSE(opt.final_norm);
  EXPECT_TRUE(opt.tied);
  EXPECT_EQ(opt.activation, Activation::kRelu);
  EXPECT_EQ(opt.initializer_range, 0.006f);
  EXPECT_EQ(parse_config(to_json(opt), "again"), opt);

  const std::string mistral = R"({"model_type": "mistral", "vocab_size": 99, "hidden_size": 64,
      "num_hidden_layers": 2, "num_attention_heads": 16, "intermediate_size": 96, "head_dim": 8)";
  EXPECT_EQ(parse_config(mistral + "}", "m").window, 4096) << "the default of transformers";
  EXPECT_EQ(parse_config(mistral + "}", "m").kv_heads, 8);
  EXPECT_EQ(parse_config(mistral + R"(, "sliding_window": null})", "m").window, 0);
  EXPECT_EQ(parse_config(mistral + R"(, "sliding_window": 7})", "m").window_of(0), 7);

  EXPECT_EQ(parse_config(qwen2(""), "q").window, 0) << "use_sliding_window is false";
  EXPECT_TRUE(parse_config(qwen2(""), "q").query_key_value_bias);
  EXPECT_FALSE(parse_config(qwen2(""), "q").output_bias);
  const ModelConfig windowed = parse_config(
      qwen2(R"("use_sliding_window": true, "sliding_window": 5, "max_window_layers": 1)"), "q");
  EXPECT_EQ(windowed.window_of(0), 0);
  EXPECT_EQ(windowed.window_of(1), 5);
  EXPECT_EQ(parse_config(to_json(windowed), "again"), windowed);
  EXPECT_EQ(parse_config(qwen2(R"("use_sliding_window": true, "sliding_window": 5,
                                  "layer_types": ["full_attention", "sliding_attention"])"),
                         "q"),
            windowed);

  const ModelConfig qwen3 = parse_config(R"({"model_type": "qwen3", "vocab_size": 9,
      "hidden_size": 1024, "num_hidden_layers": 1, "num_attention_heads": 16,
      "num_key_value_heads": 8, "intermediate_size": 96})",
                                         "q3");
  EXPECT_EQ(qwen3.query_width(), 2048) << "16 heads of 128";
  EXPECT_TRUE(qwen3.query_key_norm);
  EXPECT_EQ(parse_config(to_json(qwen3), "again"), qwen3);
}

TEST(Config, ReadsOneOrSeveralEndTokens) {
  EXPECT_EQ(parse_config(llama(R"("eos_token_id": 7)"), "c").end_tokens,
            (std::vector<std::int32_t>{7}));
  EXPECT_EQ(parse_config(llama(R"("eos_token_id": [7, 9])"), "c").end_tokens,
            (std::vector<std::int32_t>{7, 9}));
}

TEST(Config, KeepsTheRatesOfDropoutInTheSpellingOfItsFamily) {
  const ModelConfig gpt2 = parse_config(kGpt2, "c");
  EXPECT_EQ(gpt2.dropout, (DropoutRates{.embedding = 0.1f, .residual = 0.1f, .attention = 0.1f}));
  const std::string shape = R"("vocab_size": 9, "num_hidden_layers": 1, "hidden_size": 8,
      "num_attention_heads": 2, "intermediate_size": 8, )";
  const ModelConfig opt = parse_config(R"({"model_type": "opt", )" + shape +
                                           R"("dropout": 0.2, "attention_dropout": 0.3,
                                              "layerdrop": 0.05, "ffn_dim": 8})",
                                       "c");
  EXPECT_EQ(opt.dropout, (DropoutRates{.residual = 0.2f, .attention = 0.3f}));
  EXPECT_EQ(opt.layer_dropout, 0.05f);
  const ModelConfig llama2 = parse_config(llama(R"("attention_dropout": 0.25)"), "c");
  EXPECT_EQ(llama2.dropout, (DropoutRates{.attention = 0.25f}));
  EXPECT_FALSE(parse_config(llama(R"("attention_dropout": null)"), "c").dropout.any());
  for (const ModelConfig& config : {gpt2, opt, llama2}) {
    EXPECT_EQ(parse_config(to_json(config), "again"), config) << to_json(config);
  }
  expect_refused(llama(R"("attention_dropout": 1.0)"), {"dropout", "1", "below 1"});
  expect_refused(llama(R"("attention_dropout": -0.1)"), {"dropout", "-0.1"});
  expect_refused(llama(R"("attention_dropout": "0.1")"), {"attention_dropout", "0.1"});
}

TEST(ChosenDropout, IsNoneTheConfigsOrARateWhereTheFamilyHasOne) {
  ModelConfig gpt2 = preset("gpt2-124m");
  gpt2.dropout.attention = 0.3f;
  EXPECT_FALSE(chosen_dropout(gpt2, {}).any());
  EXPECT_EQ(chosen_dropout(gpt2, {.from_config = true}), gpt2.dropout);
  EXPECT_EQ(chosen_dropout(gpt2, {.rate = 0.2}),
            (DropoutRates{.embedding = 0.2f, .residual = 0.2f, .attention = 0.3f}));
  ModelConfig opt = preset("opt-125m");
  EXPECT_EQ(opt.dropout, (DropoutRates{.residual = 0.1f}));
  EXPECT_EQ(chosen_dropout(opt, {.rate = 0.2}), (DropoutRates{.residual = 0.2f}));
  ModelConfig llama2 = preset("llama-1b");
  EXPECT_THROW(chosen_dropout(llama2, {.rate = 0.2}), UsageError);
  EXPECT_FALSE(chosen_dropout(llama2, {.from_config = true}).any());
  opt.layer_dropout = 0.1f;
  EXPECT_FALSE(chosen_dropout(opt, {}).any());
  EXPECT_THROW(chosen_dropout(opt, {.from_config = true}), UsageError);
}

TEST(Config, RefusesWhatIsNotImplementedAndSaysWhatIs) {
  expect_refused(R"({"model_type": "gemma2"})",
                 {"model_type", "gemma2", "\"gpt2\", \"llama\", \"opt\""});
  expect_refused(llama(R"("architectures": ["LlamaForSequenceClassification"])"),
                 {"architectures", "LlamaForCausalLM"});
  expect_refused(llama(R"("rope_scaling": {"type": "dynamic", "factor": 4.0})"),
                 {"dynamic", "llama3", "yarn"});
  expect_refused(llama(R"("rope_scaling": {"type": "yarn", "factor": 4.0, "alpha": 1})"),
                 {"alpha", "yarn"});
  expect_refused(
      llama(R"("rope_scaling": {"type": "linear", "factor": 4.0, "attention_factor": 2})"),
      {"attention_factor", "2"});
  expect_refused(llama(R"("rope_parameters": {"full_attention": {"rope_type": "default"}})"),
                 {"full_attention"});
  expect_refused(llama(R"("quantization_config": {"bits": 4})"), {"quantization_config", "bits"});
  expect_refused(llama(R"("sliding_window": 4096)"), {"sliding_window", "4096"});
  expect_refused(llama(R"("partial_rotary_factor": 0.5)"), {"partial_rotary_factor", "0.5"});
  expect_refused(llama(R"("torch_dtype": "int8")"), {"torch_dtype", "int8", "bfloat16"});
  expect_refused(llama(R"("layer_types": ["full_attention", "sliding_attention"])"),
                 {"layer_types", "sliding_attention"});
  expect_refused(qwen2(R"("use_sliding_window": true,
                          "layer_types": ["sliding_attention", "full_attention"])"),
                 {"layer_types", "before"});
  expect_refused(qwen2(R"("layer_types": ["full_attention"])"), {"layer_types", "a list of 2"});
  expect_refused(R"({"model_type": "opt", "vocab_size": 9, "hidden_size": 8,
                     "num_hidden_layers": 1, "num_attention_heads": 2,
                     "layer_norm_elementwise_affine": false})",
                 {"layer_norm_elementwise_affine", "false"});
  const std::string gpt2 = R"({"model_type": "gpt2", "vocab_size": 9, "n_embd": 8, "n_layer": 1,
                               "n_head": 2, )";
  expect_refused(gpt2 + R"("activation_function": "gelu"})", {"activation_function", "gelu_new"});
  expect_refused(gpt2 + R"("scale_attn_by_inverse_layer_idx": true})",
                 {"scale_attn_by_inverse_layer_idx", "true", "false"});
  expect_refused(gpt2 + R"("reorder_and_upcast_attn": true})", {"reorder_and_upcast_attn"});
}

TEST(Config, SupportsUnscaledScores) {
  const ModelConfig config = parse_config(R"({"model_type": "gpt2", "vocab_size": 9, "n_embd": 8,
      "n_layer": 1, "n_head": 2, "scale_attn_weights": false, "tie_word_embeddings": false})",
                                          "c");
  EXPECT_EQ(config.attention_scale(), 1.0f);
  EXPECT_FALSE(config.tied);
}

TEST(Config, RefusesHostileNumbersByNameAndValue) {
  const auto with = [](const std::string& key, const std::string& value) {
    std::map<std::string, std::string> keys{
        {"model_type", "\"llama\""},  {"vocab_size", "100"},
        {"hidden_size", "64"},        {"num_hidden_layers", "2"},
        {"num_attention_heads", "4"}, {"intermediate_size", "96"},
        {"num_key_value_heads", "2"}, {"max_position_embeddings", "64"}};
    keys[key] = value;
    std::string json = "{";
    for (const auto& [name, text] : keys) json += "\"" + name + "\": " + text + ", ";
    return json + "\"end\": 0}";
  };
  EXPECT_EQ(message_of(with("vocab_size", "100")), "accepted");
  for (const char* value :
       {"-1", "0", "1.5", "\"64\"", "18446744073709551616", "1e300", "[]", "{}"}) {
    for (const char* key : {"vocab_size", "num_hidden_layers", "intermediate_size"}) {
      expect_refused(with(key, value), {key == std::string("vocab_size") ? "vocab_size" : ""});
    }
  }
  expect_refused(with("num_attention_heads", "0"), {"num_attention_heads"});
  expect_refused(with("num_attention_heads", "3"), {"multiple", "64", "3"});
  expect_refused(with("num_key_value_heads", "3"), {"4", "3"});
  expect_refused(with("head_dim", "15"), {"15", "even"});
  expect_refused(with("head_dim", "9007199254740993"), {"head size"});
  expect_refused(with("rms_norm_eps", "0"), {"epsilon", "0"});
  expect_refused(with("rms_norm_eps", "-1e-5"), {"epsilon"});
  expect_refused(with("rope_theta", "0.0"), {"rope_theta"});
  expect_refused(with("rope_scaling", R"({"rope_type": "linear", "factor": 0.0})"), {"factor"});
  expect_refused(with("rope_scaling", R"({"rope_type": "linear"})"), {"rope_scaling", "factor"});
  expect_refused(with("eos_token_id", "-2"), {"eos_token_id"});
}

TEST(Config, RefusesTextThatIsNotOneHarmlessObject) {
  expect_refused("", {"JSON"});
  expect_refused("{", {"JSON"});
  expect_refused("[1]", {"object"});
  expect_refused(std::string(kGpt2) + '\0' + "}", {"JSON", "zero byte"});
  expect_refused("{\"a\": \"\xff\"}", {"JSON"});
  expect_refused(R"({"model_type": "llama", "model_type": "gpt2"})", {"model_type", "twice"});
  expect_refused(std::string(1000000, '['), {"nested"});
  expect_refused("{}", {"model_type", "missing"});
}

TEST(Config, WritesWhatItReads) {
  for (const std::string& name : preset_names()) {
    const ModelConfig config = preset(name);
    EXPECT_NO_THROW(check(config, name));
    EXPECT_EQ(parse_config(to_json(config), name), config) << to_json(config);
  }
}

std::int64_t parameter_count(const ModelConfig& config) {
  return make_transformer(config).parameter_count();
}

TEST(Config, PresetsHaveTheParametersTheirNamesSay) {
  EXPECT_EQ(parameter_count(preset("llama-26m")), 25'961'984);
  EXPECT_EQ(parameter_count(preset("gpt2-124m")), 124'439'808);
  EXPECT_EQ(parameter_count(preset("gpt-162m")), 162'447'360);
  EXPECT_EQ(parameter_count(preset("gpt-406m")), 406'286'336);
  EXPECT_EQ(parameter_count(preset("llama-1b")), 1'235'814'400);
  EXPECT_EQ(parameter_count(preset("llama-8b")), 8'030'261'248);
  EXPECT_EQ(parameter_count(preset("llama-70b")), 70'553'706'496);
  EXPECT_NEAR(static_cast<double>(parameter_count(preset("gpt-1.3b"))), 1.417e9, 1e6);
  EXPECT_NEAR(static_cast<double>(parameter_count(preset("gpt-1t"))), 1.009e12, 1e9);
  EXPECT_EQ(parameter_count(preset("opt-125m")), 125'239'296);
  EXPECT_EQ(parameter_count(preset("opt-6.7b")), 6'658'473'984);
  EXPECT_EQ(parameter_count(preset("opt-2.7b")), 2'651'596'800);
  EXPECT_EQ(parameter_count(preset("mistral-7b")), 7'248'023'552);
  EXPECT_EQ(parameter_count(preset("qwen2.5-0.5b")), 494'032'768);
  EXPECT_EQ(parameter_count(preset("qwen2.5-3b")), 3'085'938'688);
  EXPECT_EQ(parameter_count(preset("qwen2.5-7b")), 7'615'616'512);
  EXPECT_THROW(preset("gpt-9"), UsageError);
}

/// Values of modeling_rope_utils of transformers 5.23 with torch 2.13.
TEST(Config, ComputesTheFrequenciesOfTransformers) {
  ModelConfig config = preset("llama-8b");
  const std::vector<float> llama3 = inverse_frequencies(config);
  ASSERT_EQ(llama3.size(), 64u);
  const std::map<std::size_t, float> want = {{0, 1.0f},
                                             {1, 0.814617217f},
                                             {20, 0.0165604409f},
                                             {28, 0.00321144611f},
                                             {29, 0.00216657063f},
                                             {30, 0.00137189368f},
                                             {32, 0.000524846022f},
                                             {34, 0.000178507791f},
                                             {35, 9.55621217e-05f},
                                             {36, 7.78465546e-05f},
                                             {50, 4.41153452e-06f},
                                             {63, 3.06892588e-07f}};
  for (const auto& [i, value] : want) EXPECT_NEAR(llama3[i], value, 3e-7f * value) << i;
  config.rope_scaling = {};
  config.rope_scaling.kind = RotaryScaling::Kind::kLinear;
  config.rope_scaling.factor = 4.0;
  config.rope_theta = 10000.0;
  const std::vector<float> linear = inverse_frequencies(config);
  const std::map<std::size_t, float> want_linear = {
      {0, 0.25f}, {1, 0.216491088f}, {31, 0.00288695493f}, {63, 2.88695483e-05f}};
  for (const auto& [i, value] : want_linear) EXPECT_NEAR(linear[i], value, 3e-7f * value) << i;
  config = preset("qwen2.5-7b");
  config.rope_scaling = {
      .kind = RotaryScaling::Kind::kYarn, .factor = 4.0, .original_positions = 32768};
  const std::vector<float> yarn = inverse_frequencies(config);
  const std::map<std::size_t, float> want_yarn = {{0, 1.0f},
                                                  {1, 0.805842221f},
                                                  {20, 0.0133352149f},
                                                  {23, 0.00697830599f},
                                                  {24, 0.00537532149f},
                                                  {28, 0.00184827659f},
                                                  {32, 0.000602941145f},
                                                  {36, 0.000179841154f},
                                                  {39, 6.4903943e-05f},
                                                  {40, 4.44569851e-05f},
                                                  {50, 5.13381246e-06f},
                                                  {63, 3.10234441e-07f}};
  for (const auto& [i, value] : want_yarn) EXPECT_NEAR(yarn[i], value, 3e-7f * value) << i;
}

TEST(Transformer, NamesItsParametersBlockByBlockInTheOrderOfUse) {
  ModelConfig config = preset("gpt2-124m");
  config.layers = 1;
  const Model tied = make_transformer(config);
  ASSERT_EQ(tied.block_count(), 3);
  EXPECT_EQ(tied.block(0).parameters()[0]->name, "embedding.tokens.weight");
  EXPECT_EQ(tied.block(0).parameters()[1]->name, "embedding.positions.weight");
  EXPECT_EQ(tied.block(1).parameters()[0]->name, "layers.0.attention_norm.weight");
  EXPECT_EQ(tied.block(2).parameters().back()->name, "head.norm.bias");
  EXPECT_EQ(tied.block(2).parameters().back()->block, 2);
  EXPECT_FALSE(tied.block(2).parameters().back()->decay);
  ASSERT_EQ(tied.block(2).borrowed().size(), 1u);
  EXPECT_EQ(tied.block(2).borrowed()[0], tied.find("embedding.tokens.weight"));
  config.tied = false;
  const Model untied = make_transformer(config);
  ASSERT_NE(untied.find("head.weight"), nullptr);
  EXPECT_EQ(untied.find("head.weight")->shape, (Shape{50257, 768}));
  EXPECT_TRUE(untied.block(2).borrowed().empty());
}

TEST(Batch, CountsTheLabelsThatCount) {
  MicroBatch micro_batch;
  micro_batch.sequences = 2;
  micro_batch.tokens_per_sequence = 2;
  micro_batch.labels = {3, kIgnoredLabel, 0, -1};
  EXPECT_EQ(micro_batch.counted_labels(), 2);
  Batch batch;
  batch.micro_batches = {micro_batch, micro_batch};
  EXPECT_EQ(batch.counted_labels(), 4);
  EXPECT_EQ(batch.tokens(), 8);
}

}  // namespace
}  // namespace strata
