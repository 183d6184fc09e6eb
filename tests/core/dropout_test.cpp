#include <fmt/format.h>

#include <bit>
#include <numeric>
#include <set>

#include "core/random.h"
#include "tests/support/ops_case.h"

// Masks look random, by element, row, column, key and neighbour, and are what the header says.

namespace strata::test {
namespace {

constexpr std::int64_t kRows = 1000, kColumns = 1024;

/// Which of kRows x kColumns elements are dropped.
std::vector<bool> mask(const Dropout& dropout) {
  std::vector<bool> result;
  for (const double factor : dropout_factors(kRows, kColumns, dropout)) {
    result.push_back(factor == 0.0);
  }
  return result;
}

/// `count` of `n` trials of probability `p`, within five standard deviations.
void expect_share(double count, double n, double p, const std::string& what) {
  EXPECT_NEAR(count / n, p, 5.0 * std::sqrt(p * (1.0 - p) / n)) << what;
}

double both(const std::vector<bool>& a, const std::vector<bool>& b, std::size_t shift) {
  double count = 0.0;
  for (std::size_t i = 0; i + shift < a.size(); ++i) count += a[i + shift] && b[i] ? 1.0 : 0.0;
  return count;
}

/// The figures are those of tests/golden/make_dropout_fixture.py.
TEST(RandomWord, IsWhatItsFormulaSays) {
  EXPECT_EQ(random_key(42, {1, 2, 0}), 10263874959483627351u);
  const RandomRow row = random_row(42, 7);
  EXPECT_EQ(row.first, 2661167012u);
  EXPECT_EQ(row.second, 3438687726u);
  EXPECT_EQ(random_word(row, 0), 1631445941u);
  EXPECT_EQ(random_word(row, 4095), 1375519023u);
}

/// A change of one bit of row or column changes each bit of the word half of the time.
TEST(RandomWord, SpreadsEveryBitOfItsCounters) {
  constexpr int kWords = 20000;
  for (int bit = 0; bit < 32; ++bit) {
    std::array<double, 32> by_column{}, by_row{};
    for (std::uint32_t i = 0; i < kWords; ++i) {
      const RandomRow row = random_row(3, i * 7);
      const std::uint32_t word = random_word(row, i);
      const std::uint32_t column_changed = word ^ random_word(row, i ^ (1u << bit));
      const std::uint32_t row_changed =
          word ^ random_word(random_row(3, (std::uint64_t{i} * 7) ^ (1u << bit)), i);
      for (std::size_t k = 0; k < 32; ++k) {
        by_column[k] += (column_changed >> k) & 1u;
        by_row[k] += (row_changed >> k) & 1u;
      }
    }
    for (std::size_t k = 0; k < 32; ++k) {
      EXPECT_NEAR(by_column[k] / kWords, 0.5, 0.03) << "column bit " << bit << ", bit " << k;
      EXPECT_NEAR(by_row[k] / kWords, 0.5, 0.03) << "row bit " << bit << ", bit " << k;
    }
  }
}

TEST(RandomKey, IsItsOwnForEverySeedStepBlockAndUse) {
  std::set<std::uint64_t> keys;
  for (std::uint64_t seed = 0; seed < 3; ++seed) {
    for (std::uint64_t step = 0; step < 50; ++step) {
      for (std::uint64_t block = 0; block < 50; ++block) {
        for (std::uint64_t use = 0; use < 3; ++use) {
          keys.insert(random_key(random_key(seed, {step, block}), {use}));
        }
      }
    }
  }
  EXPECT_EQ(keys.size(), 3u * 50u * 50u * 3u);
}

TEST(DropoutMask, DropsItsShareEverywhere) {
  constexpr auto kAll = static_cast<double>(kRows * kColumns);
  for (const float rate : {0.003f, 0.1f, 0.5f, 0.9f}) {
    const auto p = static_cast<double>(rate);
    const std::vector<bool> dropped = mask({.rate = rate, .key = 1, .first_row = 1'000'000});
    expect_share(both(dropped, dropped, 0), kAll, p, "all");
    std::vector<double> rows(kRows), columns(kColumns);
    for (std::size_t i = 0; i < dropped.size(); ++i) {
      rows[i / kColumns] += dropped[i] ? 1.0 : 0.0;
      columns[i % kColumns] += dropped[i] ? 1.0 : 0.0;
    }
    // Sums of squares over all rows, or columns, are chi-square: n degrees, deviation sqrt(2n).
    const auto chi_square = [p](const std::vector<double>& counts, double trials) {
      double sum = 0.0;
      for (const double count : counts) sum += std::pow(count - p * trials, 2);
      return sum / (trials * p * (1.0 - p));
    };
    EXPECT_NEAR(chi_square(rows, kColumns), kRows, 5.0 * std::sqrt(2.0 * kRows)) << rate;
    EXPECT_NEAR(chi_square(columns, kRows), kColumns, 5.0 * std::sqrt(2.0 * kColumns)) << rate;
  }
}

TEST(DropoutMask, DropsNeighboursIndependently) {
  const Dropout dropout{.rate = 0.2f, .key = 12, .first_row = 0};
  const std::vector<bool> dropped = mask(dropout);
  for (const std::int64_t shift :
       {std::int64_t{1}, std::int64_t{2}, std::int64_t{3}, std::int64_t{8}, std::int64_t{16},
        std::int64_t{64}, kColumns, kColumns + 1, 2 * kColumns, 12 * kColumns}) {
    const auto n = static_cast<double>(kRows * kColumns - shift);
    expect_share(both(dropped, dropped, static_cast<std::size_t>(shift)), n, 0.04,
                 fmt::format("shift {}", shift));
  }
}

TEST(DropoutMask, IsAnotherForAnotherStepBlockOrUse) {
  const auto of = [](std::uint64_t step, std::uint64_t block, std::uint64_t use) {
    return mask({.rate = 0.2f, .key = random_key(random_key(42, {step, block}), {use})});
  };
  const std::vector<bool> dropped = of(1, 1, 1);
  for (const auto& [step, block, use] :
       {std::array{2, 1, 1}, {1, 2, 1}, {1, 1, 2}, {1, 1, 0}, {0, 1, 1}, {2, 2, 1}}) {
    const std::vector<bool> other =
        of(static_cast<std::uint64_t>(step), static_cast<std::uint64_t>(block),
           static_cast<std::uint64_t>(use));
    expect_share(both(dropped, other, 0), kRows * kColumns, 0.04,
                 fmt::format("{} {} {}", step, block, use));
  }
}

using DropoutContract = OpsContract;

TEST_P(DropoutContract, MultipliesByTheFactorsOfItsRows) {
  for (const auto& [rows, columns] : {std::pair{0, 5}, {1, 1}, {3, 31}, {5, 33}, {7, 1003}}) {
    for (const float rate : {0.0f, 0.1f, 0.75f}) {
      const Dropout dropout{.rate = rate, .key = 99, .first_row = 1'000'000'007};
      const Shape shape{rows, columns};
      GuardedTensor x = tensor(shape, normal_values(shape.numel(), 1)), y = tensor(shape);
      Doubles expected = x.values();
      const Doubles factors = dropout_factors(rows, columns, dropout);
      for (std::size_t i = 0; i < expected.size(); ++i) expected[i] *= factors[i];
      ops().dropout(x.view(), dropout, y.view(), stream());
      expect_close(y, expected, unit(dtype()) + 2 * kFloatUnit, 0.0, expected, "y");
      ops().dropout(x.view(), dropout, x.view(), stream());
      EXPECT_EQ(x.values(), y.values());
    }
  }
}

TEST_P(DropoutContract, ZeroesWhatItDropsWhateverItWas) {
  const Dropout dropout{.rate = 0.5f, .key = 4};
  GuardedTensor x = tensor({1, 64}, Doubles(64, std::nan("")));
  const Doubles factors = dropout_factors(1, 64, dropout);
  ops().dropout(x.view(), dropout, x.view(), stream());
  for (std::size_t i = 0; i < 64; ++i) {
    EXPECT_EQ(std::isnan(x.values()[i]), factors[i] != 0.0) << i;
  }
}

TEST_P(DropoutContract, RefusesRatesThatKeepNothing) {
  GuardedTensor x = tensor({1, 4}, Doubles(4, 1.0));
  for (const float rate : {1.0f, -0.1f, std::nanf("")}) {
    EXPECT_THROW(ops().dropout(x.view(), {.rate = rate}, x.view(), stream()), Error);
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, DropoutContract, all_ops_cases(), ops_case_name);

}  // namespace
}  // namespace strata::test
