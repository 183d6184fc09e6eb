#include <fmt/format.h>

#include <list>
#include <mutex>
#include <unordered_map>

#include <dnnl.hpp>

#include "core/cpu/matmul.h"
#include "core/cpu/numeric.h"
#include "core/cpu/scratch.h"
#include "core/cpu/team.h"

namespace strata::cpu {
namespace {

using Tag = dnnl::memory::format_tag;

dnnl::memory::data_type onednn_type(Dtype dtype) {
  return dtype == Dtype::kBf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

/// Everything that a prepared product depends on; pointers are given at each run.
struct ProductKey {
  std::int64_t m, n, k;
  Dtype compute, output;
  bool a_transposed, b_transposed, accumulate, bias;
  OperandLayout layout;

  bool operator==(const ProductKey&) const = default;
};

/// A product oneDNN has compiled.
struct PreparedProduct {
  dnnl::memory::desc a, b, c, bias;
  dnnl::matmul::primitive_desc description;
  dnnl::matmul product;
  dnnl::reorder pack_b;  // empty when b is used as it lies
};

dnnl::memory::desc plain(std::int64_t rows, std::int64_t columns, Dtype dtype, bool transposed) {
  return {{rows, columns}, onednn_type(dtype), transposed ? Tag::ba : Tag::ab};
}

PreparedProduct prepare(const ProductKey& key, const dnnl::engine& engine) {
  PreparedProduct result;
  result.a = plain(key.m, key.k, key.compute, key.a_transposed);
  result.b = plain(key.k, key.n, key.compute, key.b_transposed);
  result.c = plain(key.m, key.n, key.output, false);
  if (key.bias) result.bias = {{1, key.n}, onednn_type(key.compute), Tag::ab};

  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (key.accumulate) {
    dnnl::post_ops add_to_destination;
    add_to_destination.append_sum(1.0f);
    attributes.set_post_ops(add_to_destination);
  }
  const dnnl::memory::desc b =
      key.layout == OperandLayout::kPacked
          ? dnnl::memory::desc{{key.k, key.n}, onednn_type(key.compute), Tag::any}
          : result.b;
  const dnnl::matmul::desc wanted = key.bias
                                        ? dnnl::matmul::desc(result.a, b, result.bias, result.c)
                                        : dnnl::matmul::desc(result.a, b, result.c);
  result.description = dnnl::matmul::primitive_desc(wanted, attributes, engine);
  result.product = dnnl::matmul(result.description);
  if (result.description.weights_desc() != result.b) {
    dnnl::primitive_attr pack_attributes;
    pack_attributes.set_scratchpad_mode(dnnl::scratchpad_mode::library);
    result.pack_b = dnnl::reorder(dnnl::reorder::primitive_desc(
        engine, result.b, engine, result.description.weights_desc(), pack_attributes));
  }
  return result;
}

template <typename From, typename To>
STRATA_MULTIVERSION void convert_range(const From* __restrict from, To* __restrict to,
                                       std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) store(to[i], load(from[i]));
}

template <typename From, typename To>
void convert_all(const void* from, void* to, std::int64_t n) {
  for_blocks(n, kBlockNumel, [&](std::int64_t begin, std::int64_t count) {
    convert_range(static_cast<const From*>(from) + begin, static_cast<To*>(to) + begin, count);
  });
}

/// c = bias, or zero, in every row; for products without terms.
template <typename Compute, typename Output>
void fill_with_bias(const Product& product) {
  auto* c = static_cast<Output*>(product.c);
  const auto* bias = static_cast<const Compute*>(product.bias);
  for (std::int64_t i = 0; i < product.m * product.n; ++i) {
    store(c[i], bias != nullptr ? load(bias[i % product.n]) : 0.0f);
  }
}

}  // namespace

class Matmul::Implementation {
 public:
  void run(const Product& product, OperandLayout layout) {
    const std::lock_guard lock(mutex_);
    if (product.m == 0 || product.n == 0) return;
    if (product.k == 0) {
      if (!product.accumulate) fill(product);
    } else if (product.compute == Dtype::kF16 ||
               (product.compute == Dtype::kBf16 && !bf16_works_)) {
      run_in_fp32(product);
    } else {
      try {
        execute(product, layout);
      } catch (const dnnl::error& error) {
        if (product.compute != Dtype::kBf16 || error.status != dnnl_unimplemented) {
          throw Error(fmt::format("oneDNN cannot multiply [{}, {}] by [{}, {}] of {}: {}",
                                  product.m, product.k, product.k, product.n, name(product.compute),
                                  error.what()));
        }
        bf16_works_ = false;
        run_in_fp32(product);
      }
    }
  }

 private:
  // A training step of one model uses a dozen or two shapes.
  static constexpr std::size_t kPreparedProducts = 64;

  static void fill(const Product& product) {
    visit_compute_dtype(product.compute, [&]<typename Compute>(Compute) {
      visit_compute_dtype(product.output, [&]<typename Output>(Output) {
        fill_with_bias<Compute, Output>(product);
      });
    });
  }

  void execute(const Product& product, OperandLayout layout) {
    const ProductKey key{product.m,
                         product.n,
                         product.k,
                         product.compute,
                         product.output,
                         product.a.transposed,
                         product.b.transposed,
                         product.accumulate,
                         product.bias != nullptr,
                         layout};
    const PreparedProduct& prepared = find(key);
    const auto memory = [&](const dnnl::memory::desc& description, const void* data) {
      return dnnl::memory(description, engine_, const_cast<void*>(data));
    };
    dnnl::memory b = memory(prepared.b, product.b.data);
    if (prepared.pack_b) {
      const dnnl::memory::desc description = prepared.description.weights_desc();
      const dnnl::memory packed = memory(description, packed_.at_least(description.get_size()));
      prepared.pack_b.execute(stream_, {{DNNL_ARG_FROM, b}, {DNNL_ARG_TO, packed}});
      b = packed;
    }
    const dnnl::memory::desc pad = prepared.description.scratchpad_desc();
    std::unordered_map<int, dnnl::memory> arguments{
        {DNNL_ARG_SRC, memory(prepared.a, product.a.data)},
        {DNNL_ARG_WEIGHTS, b},
        {DNNL_ARG_DST, memory(prepared.c, product.c)},
        {DNNL_ARG_SCRATCHPAD, memory(pad, scratchpad_.at_least(pad.get_size()))}};
    if (product.bias != nullptr) {
      arguments.emplace(DNNL_ARG_BIAS, memory(prepared.bias, product.bias));
    }
    prepared.product.execute(stream_, arguments);
    stream_.wait();
  }

  const PreparedProduct& find(const ProductKey& key) {
    for (auto entry = prepared_.begin(); entry != prepared_.end(); ++entry) {
      if (entry->first != key) continue;
      prepared_.splice(prepared_.begin(), prepared_, entry);  // most recent first
      return entry->second;
    }
    prepared_.emplace_front(key, prepare(key, engine_));
    if (prepared_.size() > kPreparedProducts) prepared_.pop_back();
    return prepared_.front().second;
  }

  void run_in_fp32(const Product& product) {
    visit_compute_dtype(product.compute, [&]<typename T>(T) { run_in_fp32_from<T>(product); });
  }

  /// Converts the operands to fp32 and, where c is no fp32, rounds the fp32 product.
  template <typename T>
  void run_in_fp32_from(const Product& product) {
    const std::int64_t a = product.m * product.k;
    const std::int64_t b = product.k * product.n;
    const std::int64_t bias = product.bias != nullptr ? product.n : 0;
    const std::int64_t c = product.output != Dtype::kF32 ? product.m * product.n : 0;
    auto* to = static_cast<float*>(
        converted_.at_least(static_cast<std::size_t>(a + b + bias + c) * sizeof(float)));
    convert_all<T, float>(product.a.data, to, a);
    convert_all<T, float>(product.b.data, to + a, b);
    convert_all<T, float>(product.bias, to + a + b, bias);
    Product wide = product;
    wide.compute = wide.output = Dtype::kF32;
    wide.a.data = to;
    wide.b.data = to + a;
    wide.bias = bias > 0 ? to + a + b : nullptr;
    wide.c = c > 0 ? to + a + b + bias : product.c;
    execute(wide, OperandLayout::kPlain);
    convert_all<float, T>(wide.c, product.c, c);
  }

  std::mutex mutex_;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::list<std::pair<ProductKey, PreparedProduct>> prepared_;
  Scratch scratchpad_;
  Scratch packed_;
  Scratch converted_;
  bool bf16_works_ = true;  // until oneDNN says otherwise
};

bool multiplies_tiles() {
  static const bool has_amx = dnnl::get_effective_cpu_isa() == dnnl::cpu_isa::avx512_core_amx;
  return has_amx;
}

OperandLayout preferred_layout(bool b_transposed, std::int64_t m) {
  constexpr std::int64_t kRowsWorthPacking = 768;
  constexpr std::int64_t kRowsWorthTransposing = 1024;
  const bool packed =
      b_transposed ? multiplies_tiles() && m >= kRowsWorthTransposing : m >= kRowsWorthPacking;
  return packed ? OperandLayout::kPacked : OperandLayout::kPlain;
}

Matmul::Matmul() : implementation_(std::make_unique<Implementation>()) {}
Matmul::~Matmul() = default;

void Matmul::run(const Product& product) {
  run(product, preferred_layout(product.b.transposed, product.m));
}
void Matmul::run(const Product& product, OperandLayout layout) {
  implementation_->run(product, layout);
}

}  // namespace strata::cpu
