#include <fmt/format.h>

#include "tests/support/ops_case.h"

// Attention and its gradient against reference_attention: lengths around the tile, grouped heads,
// and the masks that packed documents and sliding windows give.

namespace strata::test {
namespace {

using OpsAttentionContract = OpsContract;

enum class Mask { kCausal, kDocuments, kWindow, kDocumentsInWindows };

constexpr std::int64_t kWindow = 21;

std::vector<std::int32_t> first_keys(Mask mask, std::int64_t sequences, std::int64_t tokens) {
  std::vector<std::int32_t> result;
  if (mask == Mask::kCausal || mask == Mask::kWindow) return result;
  for (std::int64_t token = 0; token < sequences * tokens; ++token) {
    const auto t = static_cast<std::int32_t>(token % tokens);
    result.push_back(t / 37 * 37);
  }
  return result;
}

AttentionShape with_window(AttentionShape shape, Mask mask) {
  if (mask == Mask::kWindow || mask == Mask::kDocumentsInWindows) shape.window = kWindow;
  return shape;
}

std::string describe(const AttentionShape& shape, Mask mask) {
  return fmt::format(" of B={} S={} H={} G={} D={} mask {}", shape.sequences, shape.tokens,
                     shape.heads, shape.kv_heads, shape.head_size, static_cast<int>(mask));
}

class AttentionCase {
 public:
  AttentionCase(Ops& ops, Stream& stream, const OpsCase& parameter, const AttentionShape& shape,
                Mask mask)
      : ops_(ops),
        stream_(stream),
        shape_(with_window(shape, mask)),
        dtype_(parameter.dtype),
        shifted_(parameter.shifted),
        what_(describe(shape, mask)),
        first_(first_keys(mask, shape.sequences, shape.tokens)),
        first_key_(Dtype::kI32, {static_cast<std::int64_t>(first_.size())},
                   Doubles(first_.begin(), first_.end())),
        query_shape_{shape.sequences * shape.tokens, shape.heads * shape.head_size},
        key_shape_{shape.sequences * shape.tokens, shape.kv_heads * shape.head_size},
        q_(dtype_, query_shape_, normal_values(query_shape_.numel(), 1), parameter.shifted),
        k_(dtype_, key_shape_, normal_values(key_shape_.numel(), 2), parameter.shifted),
        v_(dtype_, key_shape_, normal_values(key_shape_.numel(), 3), parameter.shifted),
        dy_(dtype_, query_shape_, normal_values(query_shape_.numel(), 4), parameter.shifted),
        y_(dtype_, query_shape_, parameter.shifted),
        log_sum_(Dtype::kF32, {query_shape_[0], shape.heads}, parameter.shifted) {}

  void check_forward() {
    ops_.attention(shape_, q_.view(), k_.view(), v_.view(), first_key(), y_.view(), log_sum_.view(),
                   stream_);
    const Attention expected = attention(shape_, q_.values(), k_.values(), v_.values(), first_);
    bound_ = 16.0 * kFloatUnit * (1.0 + expected.largest_score);
    expect_close(y_, expected.y, unit(dtype_), bound_, expected.y_magnitude, "y" + what_);
    expect_close(log_sum_, expected.log_sum, 0.0, bound_, Doubles(expected.log_sum.size(), 1.0),
                 "log_sum" + what_);
  }

  void check_backward() {
    GuardedTensor dq(dtype_, query_shape_, shifted_);
    GuardedTensor dk(dtype_, key_shape_, shifted_);
    GuardedTensor dv(dtype_, key_shape_, shifted_);
    ops_.attention_backward(shape_, dy_.view(), q_.view(), k_.view(), v_.view(), first_key(),
                            y_.view(), log_sum_.view(), dq.view(), dk.view(), dv.view(), stream_);
    const AttentionGradient expected =
        attention_backward(shape_, dy_.values(), q_.values(), k_.values(), v_.values(), first_);
    // y was rounded to the dtype before it entered the gradient.
    const double bound = unit(dtype_) + bound_;
    expect_close(dq, expected.dq, unit(dtype_), bound, expected.dq_magnitude, "dq" + what_);
    expect_close(dk, expected.dk, unit(dtype_), bound, expected.dk_magnitude, "dk" + what_);
    expect_close(dv, expected.dv, unit(dtype_), bound_, expected.dv_magnitude, "dv" + what_);
  }

 private:
  ConstTensorView first_key() {
    return first_.empty() ? ConstTensorView() : ConstTensorView(first_key_.view());
  }

  Ops& ops_;
  Stream& stream_;
  AttentionShape shape_;
  Dtype dtype_;
  bool shifted_;
  std::string what_;
  std::vector<std::int32_t> first_;
  GuardedTensor first_key_;
  Shape query_shape_, key_shape_;
  GuardedTensor q_, k_, v_, dy_, y_, log_sum_;
  double bound_ = 0.0;
};

AttentionShape make_shape(std::int64_t sequences, std::int64_t tokens, std::int64_t heads,
                          std::int64_t kv_heads, std::int64_t head_size) {
  return {.sequences = sequences,
          .tokens = tokens,
          .heads = heads,
          .kv_heads = kv_heads,
          .head_size = head_size,
          .scale = 1.0f / std::sqrt(static_cast<float>(head_size))};
}

TEST_P(OpsAttentionContract, MatchesAtLengthsAroundTheTile) {
  for (const std::int64_t tokens : {0, 1, 2, 31, 63, 64, 65, 130}) {
    for (const Mask mask :
         {Mask::kCausal, Mask::kDocuments, Mask::kWindow, Mask::kDocumentsInWindows}) {
      AttentionCase attention(ops(), stream(), GetParam(), make_shape(2, tokens, 4, 2, 16), mask);
      attention.check_forward();
      attention.check_backward();
    }
  }
}

TEST_P(OpsAttentionContract, MatchesForGroupsAndHeadSizes) {
  for (const std::int64_t head_size : {1, 16, 40, 64, 80, 128, 256}) {
    for (const auto& [heads, kv_heads] : {std::pair{1, 1}, std::pair{3, 1}, std::pair{3, 3}}) {
      AttentionCase attention(ops(), stream(), GetParam(),
                              make_shape(1, 70, heads, kv_heads, head_size), Mask::kWindow);
      attention.check_forward();
      attention.check_backward();
    }
  }
}

TEST_P(OpsAttentionContract, MatchesWithDropout) {
  for (const std::int64_t tokens : {1, 63, 130}) {
    for (const Mask mask : {Mask::kCausal, Mask::kDocumentsInWindows}) {
      for (const float rate : {0.1f, 0.6f}) {
        AttentionShape shape = make_shape(2, tokens, 4, 2, 16);
        shape.dropout = {.rate = rate, .key = 77, .first_row = 3 * tokens};
        AttentionCase attention(ops(), stream(), GetParam(), shape, mask);
        attention.check_forward();
        attention.check_backward();
      }
    }
  }
}

/// Three sequences at once or one by one: the same probabilities are dropped.
TEST_P(OpsAttentionContract, DropsBySequenceNumber) {
  const std::int64_t tokens = 70;
  AttentionShape shape = make_shape(3, tokens, 4, 2, 16);
  shape.dropout = {.rate = 0.3f, .key = 5, .first_row = 2 * tokens};
  const Shape query{3 * tokens, 64}, key{3 * tokens, 32};
  GuardedTensor q = tensor(query, normal_values(query.numel(), 1));
  GuardedTensor k = tensor(key, normal_values(key.numel(), 2));
  GuardedTensor together = tensor(query), apart = tensor(query);
  GuardedTensor log_sum = fp32({3 * tokens, 4});
  ops().attention(shape, q.view(), k.view(), k.view(), {}, together.view(), log_sum.view(),
                  stream());
  shape.sequences = 1;
  for (std::int64_t s = 0; s < 3; ++s) {
    const auto rows = [&](GuardedTensor& all) { return all.view().rows(s * tokens, tokens); };
    ops().attention(shape, rows(q), rows(k), rows(k), {}, rows(apart), rows(log_sum), stream());
    shape.dropout.first_row += tokens;
  }
  EXPECT_EQ(together.values(), apart.values());
}

TEST_P(OpsAttentionContract, AQueryThatSeesNothingGivesZeros) {
  const AttentionShape shape = make_shape(1, 3, 1, 1, 2);
  GuardedTensor q = tensor({3, 2}, normal_values(6, 1)), y = tensor({3, 2});
  GuardedTensor first_key = integers(std::vector<std::int32_t>{0, 2, 2});
  GuardedTensor log_sum = fp32({3, 1});
  GuardedTensor dq = tensor({3, 2}), dk = tensor({3, 2}), dv = tensor({3, 2});
  ops().attention(shape, q.view(), q.view(), q.view(), first_key.view(), y.view(), log_sum.view(),
                  stream());
  ops().attention_backward(shape, q.view(), q.view(), q.view(), q.view(), first_key.view(),
                           y.view(), log_sum.view(), dq.view(), dk.view(), dv.view(), stream());
  EXPECT_EQ(y.values()[2], 0.0);
  EXPECT_EQ(y.values()[3], 0.0);
  EXPECT_EQ(dq.values()[2], 0.0);
  EXPECT_EQ(dk.values()[2], 0.0);
  EXPECT_EQ(dv.values()[3], 0.0);
  EXPECT_EQ(y.values()[0], q.values()[0]);
}

TEST_P(OpsAttentionContract, NanDoesNotGetLostInTheMaximum) {
  const AttentionShape shape = make_shape(1, 2, 1, 1, 2);
  GuardedTensor q = tensor({2, 2}, Doubles{1.0, std::nan(""), 1.0, 1.0}), y = tensor({2, 2});
  GuardedTensor ones = tensor({2, 2}, Doubles(4, 1.0));
  GuardedTensor log_sum = fp32({2, 1});
  ops().attention(shape, q.view(), ones.view(), ones.view(), {}, y.view(), log_sum.view(),
                  stream());
  EXPECT_TRUE(std::isnan(y.values()[0]));
  EXPECT_FALSE(std::isnan(y.values()[2]));
}

TEST_P(OpsAttentionContract, RepeatsBitForBit) {
  const AttentionShape shape = make_shape(2, 200, 6, 2, 64);
  const Shape query{400, 6 * 64}, key{400, 2 * 64};
  GuardedTensor q = tensor(query, normal_values(query.numel(), 1));
  GuardedTensor k = tensor(key, normal_values(key.numel(), 2));
  GuardedTensor v = tensor(key, normal_values(key.numel(), 3));
  Doubles first_run;
  for (int run = 0; run < 3; ++run) {
    GuardedTensor y = tensor(query), dq = tensor(query), dk = tensor(key), dv = tensor(key);
    GuardedTensor log_sum = fp32({400, 6});
    ops().attention(shape, q.view(), k.view(), v.view(), {}, y.view(), log_sum.view(), stream());
    ops().attention_backward(shape, q.view(), q.view(), k.view(), v.view(), {}, y.view(),
                             log_sum.view(), dq.view(), dk.view(), dv.view(), stream());
    Doubles all;
    for (GuardedTensor* tensor : {&y, &log_sum, &dq, &dk, &dv}) {
      const Doubles values = tensor->values();
      all.insert(all.end(), values.begin(), values.end());
    }
    if (run == 0) first_run = all;
    EXPECT_EQ(all, first_run);
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, OpsAttentionContract, all_ops_cases(), ops_case_name);

}  // namespace
}  // namespace strata::test
