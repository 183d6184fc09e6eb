#include "checkpoint/safetensors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "checkpoint/safetensors_writer.h"
#include "tests/support/files.h"
#include "tests/support/messages.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

using test::TemporaryDirectory;

/// A file with one tensor "t" of `dtype`, holding the bytes of `values`.
template <typename T>
std::string file_with(const std::string& dtype, const std::vector<T>& values) {
  const std::size_t bytes = values.size() * sizeof(T);
  const std::string header = "{\"t\":{\"dtype\":\"" + dtype + "\",\"shape\":[" +
                             std::to_string(values.size()) + "],\"data_offsets\":[0," +
                             std::to_string(bytes) + "]}}";
  std::string file(8 + header.size() + bytes, '\0');
  const std::uint64_t length = header.size();
  std::memcpy(file.data(), &length, 8);
  std::memcpy(file.data() + 8, header.data(), header.size());
  std::memcpy(file.data() + 8 + header.size(), values.data(), bytes);
  return file;
}

template <typename Out, typename T>
std::vector<Out> read_back(const std::string& dtype, const std::vector<T>& values,
                           std::int64_t begin, std::int64_t count) {
  const TemporaryDirectory directory;
  const SafetensorsReader reader(
      test::write_file(directory / "m.safetensors", file_with(dtype, values)));
  std::vector<Out> out(static_cast<std::size_t>(count) + 1, Out{77});
  reader.read(reader.at("t"), begin, count, out.data());
  EXPECT_EQ(out.back(), Out{77});
  out.pop_back();
  return out;
}

std::vector<float> counting(std::size_t count, float first = 0.0f) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), first);
  return values;
}

TEST(SafetensorsReader, ConvertsEveryFloatingDtype) {
  EXPECT_EQ(read_back<float>("F32", std::vector<float>{1, -2.5f, 3, 4}, 1, 2),
            (std::vector<float>{-2.5f, 3}));
  EXPECT_EQ(read_back<float>("F64", std::vector<double>{0.5, 1e-300, 3}, 0, 3),
            (std::vector<float>{0.5f, 0.0f, 3}));
  EXPECT_EQ(read_back<float>("BF16", std::vector<std::uint16_t>{0x3f80, 0xc020, 0x7f80}, 0, 3),
            (std::vector<float>{1.0f, -2.5f, std::numeric_limits<float>::infinity()}));
  EXPECT_EQ(
      read_back<float>(
          "F16", std::vector<std::uint16_t>{0x3c00, 0xc100, 0x0001, 0x8400, 0x7bff, 0xfc00}, 0, 6),
      (std::vector<float>{1.0f, -2.5f, 0x1p-24f, -0x1p-14f, 65504.0f,
                          -std::numeric_limits<float>::infinity()}));
  EXPECT_TRUE(std::isnan(read_back<float>("F16", std::vector<std::uint16_t>{0x7e00}, 0, 1)[0]));
}

TEST(SafetensorsReader, ConvertsEveryIntegerDtype) {
  using Integers = std::vector<std::int64_t>;
  EXPECT_EQ((read_back<std::int64_t>("I64", Integers{5, -100, 7}, 1, 2)), (Integers{-100, 7}));
  EXPECT_EQ((read_back<std::int64_t>("I32", std::vector<std::int32_t>{5, -100}, 0, 2)),
            (Integers{5, -100}));
  EXPECT_EQ((read_back<std::int64_t>("U8", std::vector<std::uint8_t>{255, 1}, 0, 2)),
            (Integers{255, 1}));
  EXPECT_EQ((read_back<std::int64_t>("BOOL", std::vector<std::uint8_t>{1, 0}, 0, 2)),
            (Integers{1, 0}));
}

TEST(SafetensorsReader, ReadsRangesLongerThanItsBuffer) {
  std::vector<std::uint16_t> halves(300'000);
  for (std::size_t i = 0; i < halves.size(); ++i)
    halves[i] = bf16(static_cast<float>(i % 251)).bits;
  const auto out = read_back<float>("BF16", halves, 7, 299'990);
  for (std::size_t i = 0; i < out.size(); ++i) {
    ASSERT_EQ(out[i], static_cast<float>((i + 7) % 251)) << i;
  }
}

TEST(SafetensorsReader, RefusesDtypesItCannotReadByName) {
  const TemporaryDirectory directory;
  const auto file =
      test::write_file(directory / "m.safetensors", file_with("F8_E4M3", std::vector<char>{1, 2}));
  const SafetensorsReader reader(file);
  float out = 0;
  test::expect_message<FormatError>([&] { reader.read(reader.at("t"), 0, 1, &out); },
                                    {file.string(), "\"t\"", "F8_E4M3", "BF16"});
  EXPECT_THROW(reader.read(reader.at("t"), 1, 2, &out), Error);
  EXPECT_EQ(reader.find("u"), nullptr);
  test::expect_message<FormatError>([&] { reader.at("u"); }, {file.string(), "\"u\"", "missing"});
}

TEST(SafetensorsReader, NamesTheFileThatIsNotThere) {
  const TemporaryDirectory directory;
  const std::string path = directory.path();
  test::expect_message<IoError>([&] { SafetensorsReader("/nowhere/m.safetensors"); },
                                {"/nowhere/m.safetensors", "No such file"});
  test::expect_message<FormatError>([&] { SafetensorsReader reader(directory.path()); },
                                    {path, "model.safetensors.index.json"});
  test::write_file(directory / "pytorch_model.bin", "x");
  test::expect_message<FormatError>(
      [&] { SafetensorsReader reader(directory.path()); },
      {path, "pytorch_model.bin", "launch/convert-bin.py \"" + path + "\""});
  test::expect_message<FormatError>([&] { SafetensorsReader reader("/dev/zero"); },
                                    {"/dev/zero", "regular"});
}

TEST(SafetensorsReader, RefusesAFileThatWasCutShort) {
  const TemporaryDirectory directory;
  const std::string whole = file_with("F32", counting(8));
  for (std::size_t length = 0; length < whole.size(); ++length) {
    const auto file = test::write_file(directory / "cut.safetensors", whole.substr(0, length));
    EXPECT_THROW(SafetensorsReader{file}, FormatError) << length;
  }
}

TEST(SafetensorsReader, ChecksAnIndexAgainstItsFiles) {
  const TemporaryDirectory directory;
  test::write_file(directory / "a.safetensors", file_with("F32", counting(2)));
  test::write_file(directory / "b.safetensors", file_with("F32", counting(2)));
  const auto open = [&](const std::string& map) {
    const auto index = test::write_file(directory / "model.safetensors.index.json",
                                        "{\"weight_map\":{" + map + "}}");
    return SafetensorsReader(index).tensors().size();
  };
  EXPECT_EQ(open(R"("t":"a.safetensors")"), 1u);
  const std::string path = directory.path();
  test::expect_message<FormatError>([&] { open(R"("t":"a.safetensors","u":"a.safetensors")"); },
                                    {path, "\"u\"", "is not in a.safetensors"});
  test::expect_message<FormatError>([&] { open(R"("t":"a.safetensors","u":"b.safetensors")"); },
                                    {path, "\"t\"", "also"});
  test::expect_message<FormatError>([&] { open(R"("u":"a.safetensors")"); }, {path, "\"u\""});
  test::expect_message<IoError>([&] { open(R"("t":"c.safetensors")"); }, {path, "c.safetensors"});
}

// ---- writer
// --------------------------------------------------------------------------------------

TEST(SafetensorsWriter, WritesOneFileThatReadsBack) {
  const TemporaryDirectory directory;
  SafetensorsWriter writer(directory.path(), {{"z", {2, 3}}, {"a", {4}}, {"empty", {0, 2}}}, {});
  const std::vector<float> z = counting(6), a = counting(4, 10);
  writer.write("z", std::span(z).first(1));
  writer.write("a", a);
  writer.write("z", std::span(z).subspan(1));
  EXPECT_FALSE(std::filesystem::exists(directory / "model.safetensors"));
  writer.finish();
  const SafetensorsReader reader(directory.path());
  ASSERT_EQ(reader.tensors().size(), 3u);
  std::vector<float> out(6);
  reader.read(reader.at("z"), 0, 6, out.data());
  EXPECT_EQ(out, z);
  reader.read(reader.at("a"), 0, 4, out.data());
  EXPECT_EQ(std::vector<float>(out.begin(), out.begin() + 4), a);
  EXPECT_EQ(reader.at("z").begin % 8, 0u);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory.path()), {}), 1);
}

TEST(SafetensorsWriter, CutsShardsInTheOrderOfDeclaration) {
  const TemporaryDirectory directory;
  const SafetensorsWriter::Options options{.dtype = Dtype::kBf16, .max_shard_bytes = 20};
  SafetensorsWriter writer(directory.path(), {{"c", {4}}, {"b", {6}}, {"a", {50}}, {"d", {1}}},
                           options);
  for (const auto& [name, count] : {std::pair{"c", 4}, {"b", 6}, {"a", 50}, {"d", 1}}) {
    writer.write(name, counting(static_cast<std::size_t>(count)));
  }
  writer.finish();
  const SafetensorsReader reader(directory.path());
  EXPECT_TRUE(reader.path_of(reader.at("b")).ends_with("model-00001-of-00003.safetensors"));
  EXPECT_TRUE(reader.path_of(reader.at("a")).ends_with("model-00002-of-00003.safetensors"));
  EXPECT_TRUE(reader.path_of(reader.at("d")).ends_with("model-00003-of-00003.safetensors"));
  std::vector<float> out(50);
  reader.read(reader.at("a"), 0, 50, out.data());
  EXPECT_EQ(out, counting(50));
}

TEST(SafetensorsWriter, ConvertsBetweenFp32AndBf16) {
  const TemporaryDirectory directory;
  const std::vector<bf16> values{bf16(1.5f), bf16(-3.0f)};
  SafetensorsWriter writer(directory.path(), {{"t", {2}}}, {});
  writer.write("t", values);
  writer.finish();
  const SafetensorsReader reader(directory.path());
  EXPECT_STREQ(reader.at("t").type->name, "F32");
  std::vector<float> out(2);
  reader.read(reader.at("t"), 0, 2, out.data());
  EXPECT_EQ(out, (std::vector<float>{1.5f, -3.0f}));
}

TEST(SafetensorsWriter, RoundsToFp16AndRefusesWhatItHasNoRoomFor) {
  const TemporaryDirectory directory;
  const std::vector<float> values{1.0f, 1.00048828125f, 1.00146484375f, -65519.0f,
                                  -std::numeric_limits<float>::infinity()};
  SafetensorsWriter writer(directory.path(), {{"t", {6}}}, {.dtype = Dtype::kF16});
  writer.write("t", values);
  test::expect_message<UsageError>([&] { writer.write("t", std::vector<float>{65520.0f}); },
                                   {"tensor \"t\": the value 65520", "fp16", "config.json"});
  writer.write("t", std::vector<bf16>{bf16(0.5f)});
  writer.finish();
  const SafetensorsReader reader(directory.path());
  EXPECT_STREQ(reader.at("t").type->name, "F16");
  std::vector<float> out(6);
  reader.read(reader.at("t"), 0, 6, out.data());
  EXPECT_EQ(out, (std::vector<float>{1.0f, 1.0f, 1.001953125f, -65504.0f,
                                     -std::numeric_limits<float>::infinity(), 0.5f}));
}

TEST(SafetensorsWriter, LeavesNothingBehindWhenItIsDropped) {
  const TemporaryDirectory directory;
  {
    SafetensorsWriter writer(directory.path(), {{"t", {2}}}, {});
    writer.write("t", counting(1));
    test::expect_message<Error>([&] { writer.finish(); }, {directory.path(), "\"t\"", "4"});
  }
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

TEST(SafetensorsWriter, RefusesWhatWasNotDeclared) {
  const TemporaryDirectory directory;
  SafetensorsWriter writer(directory.path(), {{"t", {2}}}, {});
  EXPECT_THROW(writer.write("u", counting(1)), Error);
  EXPECT_THROW(writer.write("t", counting(3)), Error);
  EXPECT_THROW(SafetensorsWriter(directory.path(), {{"t", {1}}, {"t", {1}}}, {}), Error);
  EXPECT_THROW(SafetensorsWriter("/nowhere", {{"t", {1}}}, {}), UsageError);
}

TEST(SafetensorsWriter, ReplacesAnEarlierSaveOnlyWhenAsked) {
  const TemporaryDirectory directory;
  const auto save = [&](SafetensorsWriter::Options options, std::size_t count) {
    SafetensorsWriter writer(directory.path(),
                             {{"s", {1}}, {"t", {static_cast<std::int64_t>(count)}}}, options);
    writer.write("s", counting(1));
    writer.write("t", counting(count));
    writer.finish();
  };
  save({}, 3);
  EXPECT_THROW(save({}, 3), UsageError);
  save({.max_shard_bytes = 4, .overwrite = true}, 5);
  EXPECT_EQ(SafetensorsReader(directory.path()).at("t").numel(), 5);
  EXPECT_FALSE(std::filesystem::exists(directory / "model.safetensors"));
  save({.overwrite = true}, 7);
  EXPECT_EQ(SafetensorsReader(directory.path()).at("t").numel(), 7);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory.path()), {}), 1);
}

}  // namespace
}  // namespace strata
