#pragma once

#include <string_view>

namespace strata::test {

// One function per format that strangers write. Each accepts `input` or throws FormatError inside
// (deepspeed: or UsageError), which is what a bad file must do; anything that leaves the function
// is a finding, as is a broken promise about what was accepted (std::logic_error).

void fuzz_safetensors(std::string_view input);  ///< a whole .safetensors file
void fuzz_index(std::string_view input);        ///< a model.safetensors.index.json
void fuzz_config(std::string_view input);       ///< a config.json
void fuzz_tokenizer(std::string_view input);    ///< a tokenizer.json
void fuzz_shard(std::string_view input);        ///< a token shard of llm.c
void fuzz_deepspeed(std::string_view input);    ///< a configuration of DeepSpeed
void fuzz_metrics(std::string_view input);      ///< a metrics.jsonl
void fuzz_rows(std::string_view input);         ///< a row of JSONL
void fuzz_requests(std::string_view input);     ///< a row of what `strata generate` is asked

}  // namespace strata::test
