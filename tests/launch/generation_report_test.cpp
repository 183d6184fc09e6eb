#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "launch/generation_bench/report.h"
#include "tests/support/xml.h"

namespace strata {
namespace {

using Json = nlohmann::json;
using test::XmlElement;

GenerationCell cell(const std::string& model, double parameters, const std::string& tier,
                    std::int64_t batch) {
  return {.what = {.model = model,
                   .tier = tier,
                   .weights = "bf16",
                   .kv = "bf16",
                   .shape = {.batch = batch, .prompt = 100, .generated = 10}},
          .parameters = parameters};
}

/// 10 tokens of each text in 4 s, the first of them after 1 s.
GenerationCell measured_cell(const std::string& model, double parameters, const std::string& tier,
                             std::int64_t batch) {
  GenerationCell result = cell(model, parameters, tier, batch);
  result.measured = GenerationMeasurement{.prefill_seconds = 1,
                                          .decode_seconds = 1.0 / 3,
                                          .seconds = 4,
                                          .tokens = 10 * batch,
                                          .prompt_tokens = 100 * batch,
                                          .bytes_read = 5e9,
                                          .roofline_seconds = 3,
                                          .bound = GenerationBound::kStream,
                                          .joules = 80};
  return result;
}

/// Two models, memory and an emulated drive; the larger model does not fit in memory, and what
/// takes too many pages does not fit on the drive's machine either.
GenerationReport fake_report() {
  GenerationReport report;
  report.machine = "a processor, 2 threads";
  report.rates = {{"memory", 40e9, true, "strata bench memory"},
                  {"products bf16", 0, false, "strata bench matmul"}};
  report.tiers = {{.name = "dram"},
                  {.name = "gen4",
                   .directory = "/nvme",
                   .device = "nvme0n1",
                   .link = "PCIe 5.0 x4",
                   .read = 12e9,
                   .read_limit = 7e9}};
  report.energy_source = "RAPL";
  report.prices = Prices{"EUR", 4000, {{"gen4", 1000}}};
  report.cells = {
      measured_cell("small", 125e6, "dram", 1), measured_cell("small", 125e6, "dram", 8),
      measured_cell("small", 125e6, "gen4", 1), cell("small", 125e6, "gen4", 8),
      cell("large", 66e9, "dram", 1),           measured_cell("large", 66e9, "gen4", 1)};
  report.cells[3].refusal = "the drive failed";
  report.cells[4].misfit = {"memory", std::uint64_t{132} << 30, std::uint64_t{16} << 30};
  return report;
}

TEST(GenerationReport, DerivesFiguresFromWhatWasMeasured) {
  const GenerationCell eight = fake_report().cells[1];
  EXPECT_DOUBLE_EQ(eight.tokens_per_second().value(), 80 / 4.0);
  EXPECT_DOUBLE_EQ(eight.prompt_tokens_per_second().value(), 800);
  EXPECT_DOUBLE_EQ(eight.bytes_per_token().value(), 5e9 / 80);
  EXPECT_DOUBLE_EQ(eight.roofline_fraction().value(), 0.75);
  EXPECT_DOUBLE_EQ(eight.joules_per_token().value(), 1);
  const GenerationCell on_drive = fake_report().cells[2];
  EXPECT_DOUBLE_EQ(on_drive.tokens_per_second_per_1000(*fake_report().prices).value(), 2.5 / 5);
}

TEST(GenerationReport, LeavesOutWhatIsNotToBeHad) {
  GenerationReport report = fake_report();
  const GenerationCell missing = report.cells[4];
  EXPECT_FALSE(missing.tokens_per_second() || missing.roofline_fraction() ||
               missing.joules_per_token() || missing.bytes_per_token() ||
               missing.prompt_tokens_per_second());
  GenerationCell unknown = report.cells[0];
  unknown.measured->joules.reset();
  unknown.measured->roofline_seconds = 0;
  EXPECT_FALSE(unknown.joules_per_token().has_value());
  EXPECT_FALSE(unknown.roofline_fraction().has_value());
  EXPECT_FALSE(unknown.tokens_per_second_per_1000(*report.prices)) << "dram has no price";
  EXPECT_THROW(report.tier("gen9"), Error);
}

TEST(GenerationReport, LabelsADriveThatIsEmulated) {
  const GenerationReport report = fake_report();
  EXPECT_EQ(report.tier("gen4").label(), "gen4 (emulated, 7 GB/s)");
  EXPECT_EQ(report.tier("gen4").bandwidth(), 7e9);
  EXPECT_EQ(report.tier("dram").label(), "dram");
  EXPECT_EQ(
      (GenerationTier{.name = "a", .directory = "/a", .read = 3e9, .read_limit = 7e9}).bandwidth(),
      3e9);
  EXPECT_EQ((GenerationTier{.name = "a", .directory = "/a"}).bandwidth(), 0);
}

TEST(GenerationTable, HasARowForEachCellAndSaysWhatDidNotFit) {
  const std::string table = generation_table(fake_report());
  for (const char* part :
       {"a processor, 2 threads", "memory: 40 GB/s",
        "products bf16: not measured (strata bench matmul)", "tier dram: weights stay in memory",
        "tier gen4 (emulated, 7 GB/s): /nvme, nvme0n1, PCIe 5.0 x4, reads 12 GB/s", "energy: RAPL",
        "prices in EUR", "small (125M parameters), dram",
        "does not fit: need 132 GiB of memory, have 16 GiB", "not run: the drive failed",
        "large (66B parameters), gen4 (emulated, 7 GB/s)"}) {
    EXPECT_NE(table.find(part), std::string::npos) << part << "\nis not in\n" << table;
  }
  const std::size_t row = table.find("      8 ");
  ASSERT_NE(row, std::string::npos) << table;
  const std::string line = table.substr(row, table.find('\n', row) - row);
  for (const char* part :
       {"1.0 s", "333.3 ms", "20.00", "800.0", "62.5 MB", "0.75", "stream", "1.000"}) {
    EXPECT_NE(line.find(part), std::string::npos) << part << " is not in " << line;
  }
}

TEST(GenerationTable, NeverGuessesEnergy) {
  GenerationReport report = fake_report();
  report.energy_source.clear();
  report.energy_missing = "no readable counter";
  report.prices.reset();
  for (GenerationCell& one : report.cells) {
    if (one.measured) one.measured->joules.reset();
  }
  const std::string table = generation_table(report);
  EXPECT_NE(table.find("energy: not available: no readable counter"), std::string::npos) << table;
  EXPECT_EQ(table.find("tokens/s/1000"), std::string::npos) << "there are no prices";
  EXPECT_EQ(draw_generation(report).find("Energy of"), std::string::npos);
}

TEST(GenerationJson, HoldsFiguresNullsAndNeeds) {
  const Json json = Json::parse(generation_json(fake_report()));
  ASSERT_EQ(json.at("cells").size(), 6u);
  const Json& first = json.at("cells").at(0);
  EXPECT_EQ(first.at("model"), "small");
  EXPECT_EQ(first.at("batch"), 1);
  EXPECT_DOUBLE_EQ(first.at("measured").at("tokens_per_second"), 2.5);
  EXPECT_DOUBLE_EQ(first.at("measured").at("roofline_fraction"), 0.75);
  EXPECT_EQ(first.at("measured").at("roofline_bound"), "stream");
  EXPECT_TRUE(first.at("measured").at("tokens_per_second_per_1000").is_null());
  EXPECT_TRUE(first.at("does_not_fit").is_null());
  EXPECT_DOUBLE_EQ(json.at("cells").at(2).at("measured").at("tokens_per_second_per_1000"), 0.5);
  EXPECT_EQ(json.at("cells").at(3).at("not_run"), "the drive failed");
  const Json& misfit = json.at("cells").at(4);
  EXPECT_TRUE(misfit.at("measured").is_null());
  EXPECT_EQ(misfit.at("does_not_fit").at("need_bytes"), std::uint64_t{132} << 30);
  EXPECT_EQ(misfit.at("does_not_fit").at("have_bytes"), std::uint64_t{16} << 30);
  EXPECT_EQ(json.at("tiers").at(1).at("emulated"), true);
  EXPECT_EQ(json.at("tiers").at(1).at("link"), "PCIe 5.0 x4");
  EXPECT_TRUE(json.at("tiers").at(0).at("link").is_null());
  EXPECT_TRUE(json.at("rates").at(1).at("per_second").is_null());
  EXPECT_EQ(json.at("energy").at("source"), "RAPL");
  EXPECT_EQ(json.at("prices").at("tiers").at("gen4"), 1000);
}

const XmlElement* group(const XmlElement& root, const std::string& name) {
  for (const XmlElement* element : root.all("g")) {
    if (element->attribute("data-name") == name) return element;
  }
  return nullptr;
}

TEST(GenerationCharts, DrawThroughputLatencyAndEnergyOfEachTier) {
  const XmlElement root = test::parse_xml(draw_generation(fake_report()));
  const XmlElement* const throughput = group(root, "Throughput of small");
  ASSERT_NE(throughput, nullptr);
  const std::vector<const XmlElement*> lines = throughput->all("path");
  ASSERT_EQ(lines.size(), 1u) << "dram has two batches; the drive has one, which is a dot";
  EXPECT_EQ(lines[0]->attribute("data-name"), "dram, weights bf16, keys and values bf16");
  // From batch 1 at the left edge to batch 8 at the right one, upwards.
  double x1 = 0, y1 = 0, x2 = 0, y2 = 0;
  ASSERT_EQ(std::sscanf(lines[0]->attribute("d").c_str(), "M%lf,%lfL%lf,%lf", &x1, &y1, &x2, &y2),
            4)
      << lines[0]->attribute("d");
  EXPECT_LT(x1, x2);
  EXPECT_GT(y1, y2);
  EXPECT_NE(group(root, "Throughput of large"), nullptr);
  EXPECT_NE(group(root, "Energy of small"), nullptr);
  const XmlElement* const latency = group(root, "Latency");
  ASSERT_NE(latency, nullptr);
  bool over_sizes = false;
  for (const XmlElement* path : latency->all("path")) {
    over_sizes = over_sizes || path->attribute("data-name").starts_with("gen4 (emulated, 7 GB/s)");
  }
  EXPECT_TRUE(over_sizes) << "small and large were measured on the drive";
  bool has_axis = false;
  for (const XmlElement* text : throughput->all("text"))
    has_axis = has_axis || text->text == "batch";
  EXPECT_TRUE(has_axis);
}

TEST(GenerationCharts, AreADocumentWithoutAnyFigureToo) {
  EXPECT_EQ(test::parse_xml(draw_generation({})).name, "svg");
}

}  // namespace
}  // namespace strata
