#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <optional>
#include <sstream>

#include "launch/plot/charts.h"
#include "launch/plot/series.h"
#include "tests/support/xml.h"

namespace strata::plot {
namespace {

using test::XmlElement;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

StepMetrics step(std::int64_t number, double loss) {
  return {.step = number,
          .loss = loss,
          .grad_norm = 1,
          .learning_rate = 1e-3,
          .tokens = 100,
          .seconds = 2,
          .tokens_per_second = 50,
          .seconds_compute = 1,
          .seconds_read_wait = 0.5,
          .bound_by = "compute",
          .rss_peak_bytes = 3u << 30};
}

/// Losses 1, 2, ... of one run.
plot::Run ramp(std::string name, std::int64_t steps) {
  plot::Run run{std::move(name), {}};
  for (std::int64_t i = 1; i <= steps; ++i) {
    run.history.steps.push_back(step(i, static_cast<double>(i)));
  }
  return run;
}

/// A drawing and what can be looked up in it.
class Drawing {
 public:
  explicit Drawing(const std::vector<plot::Run>& runs) : root_(test::parse_xml(draw_runs(runs))) {}

  const XmlElement* panel(const std::string& title) const {
    for (const XmlElement* group : root_.all("g")) {
      if (group->attribute("data-name") == title) return group;
    }
    return nullptr;
  }
  /// Lines of a panel with this name.
  std::vector<const XmlElement*> paths(const std::string& title, const std::string& name) const {
    std::vector<const XmlElement*> found;
    if (panel(title) == nullptr) return found;
    for (const XmlElement* path : panel(title)->all("path")) {
      if (path->attribute("data-name") == name) found.push_back(path);
    }
    return found;
  }
  const XmlElement& root() const { return root_; }

 private:
  XmlElement root_;
};

/// The corners of a path, with how many separate lines it is.
struct Corners {
  std::vector<Point> points;
  int lines = 0;
};

Corners corners(const XmlElement& path) {
  Corners found;
  std::string data = path.attribute("d");
  for (char& c : data) {
    if (c == 'M') ++found.lines;
    if (std::string_view("MLZ,").find(c) != std::string_view::npos) c = ' ';
    if (c == 'h') c = '\0';
  }
  std::istringstream stream(data.substr(0, data.find('\0')));
  for (Point point; stream >> point.x >> point.y;) found.points.push_back(point);
  return found;
}

/// Where the mark `label` of a panel stands: x for a step, y for a value.
std::optional<double> mark(const XmlElement& panel, const std::string& label, bool is_step) {
  for (const XmlElement* text : panel.all("text")) {
    const bool below = text->attribute("text-anchor") == "middle";
    if (text->attribute("class") != "mark" || text->text != label || below != is_step) continue;
    return is_step ? std::stod(text->attribute("x")) : std::stod(text->attribute("y")) - 4;
  }
  return std::nullopt;
}

TEST(Plot, PutsValuesWhereTheMarksOfTheAxesSay) {
  const Drawing drawing({ramp("run", 5)});
  const XmlElement& panel = *drawing.panel("Loss");
  const auto lines = drawing.paths("Loss", "loss");
  ASSERT_EQ(lines.size(), 1u);
  const std::vector<Point> points = corners(*lines[0]).points;
  ASSERT_EQ(points.size(), 5u);
  for (int value = 1; value <= 5; ++value) {
    const Point& point = points[static_cast<std::size_t>(value - 1)];
    const auto x = mark(panel, std::to_string(value), true);
    const auto y = mark(panel, std::to_string(value), false);
    ASSERT_TRUE(x && y) << value;
    EXPECT_NEAR(point.x, *x, 0.11) << value;
    EXPECT_NEAR(point.y, *y, 0.11) << value;
  }
  EXPECT_GT(points[0].y, points[4].y);  // y of the page goes down
}

TEST(Plot, PilesTheLanesUpToTheSecondsOfTheStep) {
  const Drawing drawing({ramp("run", 3)});
  const char* kTitle = "Time of the lanes";
  const XmlElement& panel = *drawing.panel(kTitle);
  const auto y_of = [&](const char* lane) {
    const auto found = drawing.paths(kTitle, lane);
    return corners(*found.at(0)).points.at(0).y;
  };
  EXPECT_NEAR(y_of("compute"), mark(panel, "1", false).value(), 0.11);
  EXPECT_NEAR(y_of("update"), mark(panel, "1", false).value(), 0.11);
  EXPECT_NEAR(y_of("read_wait"), mark(panel, "1.5", false).value(), 0.11);
  EXPECT_NEAR(y_of("rest"), mark(panel, "2", false).value(), 0.11);
  EXPECT_NEAR(y_of("step"), mark(panel, "2", false).value(), 0.11);
}

TEST(Plot, ALanePileMayBeHigherThanItsStep) {
  plot::Run run = ramp("run", 2);
  for (StepMetrics& row : run.history.steps) row.seconds_update = 3;
  const Drawing drawing({run});
  const auto y_of = [&](const char* lane) {
    return corners(*drawing.paths("Time of the lanes", lane).at(0)).points.at(0).y;
  };
  EXPECT_LT(y_of("read_wait"), y_of("step"));
  EXPECT_EQ(y_of("rest"), y_of("read_wait"));
}

TEST(Plot, DrawsRunsOverEachOtherInColoursOfALegend) {
  const Drawing drawing({ramp("a <b> & \"c\"", 4), ramp("second", 3)});
  const auto lines = drawing.paths("Loss", "loss");
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]->attribute("class"), "line r0");
  EXPECT_EQ(lines[1]->attribute("class"), "line r1");
  EXPECT_EQ(corners(*lines[0]).points[0].x, corners(*lines[1]).points[0].x);
  const XmlElement& legend = *drawing.panel("legend");
  EXPECT_EQ(legend.all("rect").at(1)->attribute("class"), "s1");
  EXPECT_EQ(legend.all("text").at(0)->text, "a <b> & \"c\"");
  EXPECT_NE(drawing.panel("Time of the lanes: second"), nullptr);
  std::vector<plot::Run> many;
  for (int i = 0; i < 20; ++i) many.push_back(ramp("run", 2));
  EXPECT_EQ(Drawing(many).paths("Loss", "loss").size(), 20u);
}

TEST(Plot, ShowsEvaluationsAndASmootherCurve) {
  plot::Run run = ramp("run", 100);
  run.history.evaluations = {{.step = 50, .loss = 40, .tokens = 10}, {.step = 100, .loss = 30}};
  const Drawing drawing({run});
  EXPECT_EQ(drawing.paths("Loss", "loss").at(0)->attribute("class"), "faint r0");
  EXPECT_EQ(drawing.paths("Loss", "loss, smoothed").at(0)->attribute("class"), "line r0");
  const auto dots = drawing.panel("Loss")->all("circle");
  ASSERT_EQ(dots.size(), 2u);
  EXPECT_NE(dots[0]->children.at(0).text.find("40.0000 at step 50"), std::string::npos);
  const Point second = corners(*drawing.paths("Loss", "evaluation").at(0)).points.at(1);
  EXPECT_NEAR(std::stod(dots[1]->attribute("cy")), second.y, 0.11);
}

TEST(Plot, LeavesGapsForLossesThatAreNotNumbers) {
  plot::Run run = ramp("run", 7);
  run.history.steps[2].loss = kNaN;
  run.history.steps[4].loss = std::numeric_limits<double>::infinity();
  run.history.steps[4].skipped = true;
  const Drawing drawing({run});
  const Corners found = corners(*drawing.paths("Loss", "loss").at(0));
  EXPECT_EQ(found.lines, 3);
  EXPECT_EQ(drawing.root().all("path").size(), Drawing({ramp("run", 7)}).root().all("path").size());
  int marks = 0;
  for (const XmlElement* line : drawing.panel("Loss")->all("line")) {
    marks += line->attribute("class") == "skip" ? 1 : 0;
  }
  EXPECT_EQ(marks, 1);
  for (StepMetrics& row : run.history.steps) row.loss = kNaN;
  EXPECT_TRUE(Drawing({run}).paths("Loss", "loss").empty());
}

TEST(Plot, ShowsARunOfOneStepAsADot) {
  const Drawing drawing({ramp("run", 1)});
  EXPECT_EQ(drawing.panel("Loss")->all("circle").size(), 1u);
  EXPECT_NE(drawing.panel("Time of the lanes"), nullptr);
}

TEST(Plot, SaysThatThereIsNothingYet) {
  const Drawing drawing({plot::Run{"run", {}}});
  EXPECT_EQ(drawing.panel("Loss")->all("text").back()->text, "nothing to draw yet");
  EXPECT_EQ(drawing.panel("Learning rate"), nullptr);
  const Drawing beside({plot::Run{"empty", {}}, ramp("run", 3)});
  EXPECT_EQ(beside.paths("Loss", "loss").size(), 2u);
}

TEST(Plot, LeavesOutWhatNoRunHas) {
  plot::Run run = ramp("run", 3);
  EXPECT_EQ(Drawing({run}).panel("Swap"), nullptr);
  run.history.steps[1].swap_bytes_written = 5'000'000'000;
  const Drawing drawing({run});
  ASSERT_NE(drawing.panel("Swap"), nullptr);
  EXPECT_TRUE(mark(*drawing.panel("Swap"), "4", false).has_value());  // GB
}

TEST(Plot, TakesLogarithmicScalesForWideRanges) {
  const auto has_logarithm = [](const plot::Run& run) {
    const Drawing drawing({run});
    for (const XmlElement* text : drawing.panel("Loss")->all("tspan")) {
      if (text->text.find("logarithmic") != std::string::npos) return true;
    }
    return false;
  };
  EXPECT_FALSE(has_logarithm(ramp("run", 15)));
  EXPECT_TRUE(has_logarithm(ramp("run", 30)));
  plot::Run crosses_zero = ramp("run", 30);
  crosses_zero.history.steps[3].loss = -1;
  EXPECT_FALSE(has_logarithm(crosses_zero));
}

TEST(Plot, DrawsManyStepsInFewPoints) {
  plot::Run run{"run", {}};
  for (std::int64_t i = 1; i <= 200'000; ++i) {
    run.history.steps.push_back(step(i, 2 + std::sin(static_cast<double>(i))));
  }
  const std::string text = draw_runs({run});
  EXPECT_LT(text.size(), 1'000'000u);
  const XmlElement root = test::parse_xml(text);
  for (const XmlElement* path : root.all("path")) {
    EXPECT_LE(corners(*path).points.size(), 2002u);
  }
}

TEST(Plot, SurvivesValuesAtTheEdgesOfTheirTypes) {
  const double kHuge = std::numeric_limits<double>::max();
  plot::Run run{"\xff\x01 \xef\xbf\xbf name", {}};
  for (const double value : {kHuge, -kHuge, 0.0, 5e-324, kNaN, 1e99, -1e99}) {
    StepMetrics row = step(static_cast<std::int64_t>(run.history.steps.size()), value);
    row.grad_norm = row.learning_rate = row.tokens_per_second = value;
    row.seconds = row.seconds_compute = row.seconds_update = value;
    row.swap_bytes_read = row.rss_peak_bytes = ~std::uint64_t{0};
    run.history.steps.push_back(row);
  }
  run.history.steps.back().step = 1'000'000'000'000'000;
  const std::string text = draw_runs({run});
  EXPECT_NO_THROW(test::parse_xml(text));
  EXPECT_EQ(text.find("nan"), std::string::npos);
  EXPECT_EQ(text.find("inf"), std::string::npos);
}

TEST(Plot, RefersToNothingOutsideAndRunsNothing) {
  const std::string text = draw_runs({ramp("run", 3)});
  EXPECT_EQ(text.find("<script"), std::string::npos);
  EXPECT_EQ(text.find("href"), std::string::npos);
  EXPECT_EQ(text.find("url("), std::string::npos);
  EXPECT_EQ(text.find("id="), std::string::npos);  // two drawings may stand in one page
}

}  // namespace
}  // namespace strata::plot
