#include "checkpoint/safetensors_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <set>

#include <nlohmann/json.hpp>

#include "core/json_file.h"

namespace strata {
namespace {

constexpr std::size_t kMaxTensors = 1'000'000;
constexpr std::size_t kMaxName = 512;
constexpr std::size_t kMaxRank = 8;
constexpr std::string_view kMetadataName = "__metadata__";

constexpr std::array kDtypes{
    SafetensorsDtype{"F32", 32, true, Dtype::kF32},
    SafetensorsDtype{"BF16", 16, true, Dtype::kBf16},
    SafetensorsDtype{"F16", 16, true, Dtype::kF16},
    SafetensorsDtype{"F64", 64, true, Dtype::kF64},
    SafetensorsDtype{"I64", 64, true, Dtype::kI64},
    SafetensorsDtype{"I32", 32, true, Dtype::kI32},
    SafetensorsDtype{"U8", 8, true, Dtype::kU8},
    SafetensorsDtype{"BOOL", 8, true, Dtype::kBool},
    SafetensorsDtype{"F4", 4, false, {}},
    SafetensorsDtype{"F6_E2M3", 6, false, {}},
    SafetensorsDtype{"F6_E3M2", 6, false, {}},
    SafetensorsDtype{"I8", 8, false, {}},
    SafetensorsDtype{"F8_E5M2", 8, false, {}},
    SafetensorsDtype{"F8_E4M3", 8, false, {}},
    SafetensorsDtype{"F8_E8M0", 8, false, {}},
    SafetensorsDtype{"F8_E4M3FNUZ", 8, false, {}},
    SafetensorsDtype{"F8_E5M2FNUZ", 8, false, {}},
    SafetensorsDtype{"I16", 16, false, {}},
    SafetensorsDtype{"U16", 16, false, {}},
    SafetensorsDtype{"U32", 32, false, {}},
    SafetensorsDtype{"C64", 64, false, {}},
    SafetensorsDtype{"U64", 64, false, {}},
};

[[noreturn]] void fail(const std::string& path, std::string_view tensor, const std::string& what) {
  throw FormatError(tensor.empty()
                        ? fmt::format("{}: {}", path, what)
                        : fmt::format("{}: tensor {}: {}", path, in_quotes(tensor), what));
}

/// Receives the header's events one by one: nothing but the table is ever built, a key that comes
/// twice is seen, and nesting deeper than the format has is refused where it starts.
class HeaderEvents final : public nlohmann::json_sax<nlohmann::json> {
 public:
  /// @param objects an upper bound of the number of tensors: growing would hold the table twice
  HeaderEvents(const std::string& path, std::size_t objects) : path_(path) {
    tensors_.reserve(std::min(objects, kMaxTensors));
  }

  bool null() override { unexpected("null"); }
  bool boolean(bool) override { unexpected("a boolean"); }
  bool number_integer(number_integer_t) override { unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t&) override {
    unexpected("a number that is not a whole one below 2^64");
  }
  bool binary(binary_t&) override { unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::kShape) {
      if (tensor_.shape.size() == kMaxRank) wrong("more than 8 dimensions");
      if (value > std::numeric_limits<std::int64_t>::max()) wrong("a dimension over 2^63");
      tensor_.shape.push_back(static_cast<std::int64_t>(value));
    } else if (place_ == Place::kOffsets) {
      if (offsets_.size() == 2) wrong("data_offsets has more than two numbers");
      offsets_.push_back(value);
    } else {
      unexpected("a number");
    }
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) return true;
    if (place_ != Place::kTensor || field_ != kDtypeField) unexpected("a string");
    const auto found =
        std::find_if(kDtypes.begin(), kDtypes.end(),
                     [&](const SafetensorsDtype& type) { return value == type.name; });
    if (found == kDtypes.end()) wrong("unknown dtype " + in_quotes(value));
    tensor_.type = &*found;
    return true;
  }

  bool start_object(std::size_t) override {
    switch (place_) {
      case Place::kOutside:
        place_ = Place::kTop;
        return true;
      case Place::kTop:
        place_ = tensor_.name == kMetadataName ? Place::kMetadata : Place::kTensor;
        fields_ = 0;
        metadata_keys_.clear();
        return true;
      default:
        unexpected("an object");
    }
  }

  bool key(string_t& value) override {
    if (place_ == Place::kTop) return next_tensor(value);
    if (place_ == Place::kMetadata) {
      if (!metadata_keys_.insert(value).second)
        wrong("the key " + in_quotes(value) + " occurs twice");
      return true;
    }
    field_ = value == "dtype"          ? kDtypeField
             : value == "shape"        ? kShapeField
             : value == "data_offsets" ? kOffsetsField
                                       : 0;
    if (field_ == 0) wrong("unknown key " + in_quotes(value));
    if ((fields_ & field_) != 0) wrong("the key " + in_quotes(value) + " occurs twice");
    fields_ |= field_;
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kTensor) {
      if (fields_ != (kDtypeField | kShapeField | kOffsetsField)) {
        wrong("dtype, shape and data_offsets must all be there");
      }
      if (offsets_.size() != 2) wrong("data_offsets has not two numbers");
      if (offsets_[1] < offsets_[0]) wrong("data_offsets end before they begin");
      tensor_.begin = offsets_[0];
      tensor_.bytes = offsets_[1] - offsets_[0];
      tensors_.push_back(std::move(tensor_));
    }
    place_ = place_ == Place::kTop ? Place::kOutside : Place::kTop;
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ != Place::kTensor || field_ == kDtypeField) unexpected("an array");
    place_ = field_ == kShapeField ? Place::kShape : Place::kOffsets;
    return true;
  }
  bool end_array() override {
    place_ = Place::kTensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& cause) override {
    fail(path_, {},
         fmt::format("the header is not valid JSON at byte {}: {:.150}", position, cause.what()));
  }

  std::vector<SafetensorsTensor> take() { return std::move(tensors_); }

 private:
  enum class Place { kOutside, kTop, kMetadata, kTensor, kShape, kOffsets };
  static constexpr int kDtypeField = 1, kShapeField = 2, kOffsetsField = 4;

  bool next_tensor(std::string& name) {
    if (name.size() > kMaxName) fail(path_, name, "its name is longer than 512 bytes");
    if (tensors_.size() == kMaxTensors) fail(path_, name, "more than 1000000 tensors");
    if (name == kMetadataName && std::exchange(metadata_seen_, true)) {
      fail(path_, name, "occurs twice");
    }
    tensor_ = {};
    tensor_.name = std::move(name);
    offsets_.clear();
    return true;
  }
  [[noreturn]] void wrong(const std::string& what) const { fail(path_, tensor_.name, what); }
  [[noreturn]] void unexpected(const char* what) const {
    wrong(fmt::format("the header has {} where the format has none", what));
  }

  const std::string& path_;
  Place place_ = Place::kOutside;
  int field_ = 0, fields_ = 0;
  bool metadata_seen_ = false;
  SafetensorsTensor tensor_;
  std::vector<std::uint64_t> offsets_;
  std::set<std::string> metadata_keys_;
  std::vector<SafetensorsTensor> tensors_;
};

void check_size(const SafetensorsTensor& tensor, const std::string& path) {
  std::uint64_t bits = static_cast<std::uint64_t>(tensor.type->bits);
  std::uint64_t elements = 1;
  bool overflow = false;
  for (const std::int64_t dim : tensor.shape) {
    overflow |= __builtin_mul_overflow(elements, static_cast<std::uint64_t>(dim), &elements);
  }
  overflow |= elements > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  overflow |= __builtin_mul_overflow(elements, bits, &bits);
  if (overflow) fail(path, tensor.name, "the size of its shape overflows");
  if (bits % 8 != 0) fail(path, tensor.name, "does not end on a whole byte");
  if (bits / 8 != tensor.bytes) {
    fail(path, tensor.name,
         fmt::format("its shape and dtype make {} bytes but data_offsets {}", bits / 8,
                     tensor.bytes));
  }
}

/// The tensors must follow each other from the first data byte to the last of the file.
void place_in_file(std::vector<SafetensorsTensor>& tensors, std::uint64_t data_begin,
                   std::uint64_t file_bytes, const std::string& path) {
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.bytes < b.bytes;
  });
  std::uint64_t end = 0;
  for (SafetensorsTensor& tensor : tensors) {
    if (tensor.begin != end) {
      fail(path, tensor.name,
           fmt::format("begins at data byte {} but the one before it ends at {}", tensor.begin,
                       end));
    }
    check_size(tensor, path);
    end += tensor.bytes;
    tensor.begin += data_begin;
  }
  if (end != file_bytes - data_begin) {
    fail(path, {},
         fmt::format("the header describes {} bytes of data and the file has {}", end,
                     file_bytes - data_begin));
  }
}

bool is_plain_file_name(std::string_view name) {
  constexpr std::string_view kEnding = ".safetensors";
  return name.size() > kEnding.size() && name.ends_with(kEnding) &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '.' || c == '_' || c == '-';
         });
}

}  // namespace

std::int64_t SafetensorsTensor::numel() const noexcept {
  std::int64_t total = 1;
  for (const std::int64_t dim : shape) total *= dim;
  return total;
}

std::string in_quotes(std::string_view name) {
  std::string out = "\"";
  for (const char c : name.substr(0, 100)) out += c >= 0x20 && c < 0x7f ? c : '?';
  return out + (name.size() > 100 ? "...\"" : "\"");
}

std::uint64_t safetensors_header_bytes(std::string_view first_eight, std::uint64_t file_bytes,
                                       const std::string& path) {
  static_assert(std::endian::native == std::endian::little);
  if (file_bytes < 8 || first_eight.size() < 8) {
    fail(path, {}, fmt::format("{} bytes are too few for a safetensors file", file_bytes));
  }
  std::uint64_t header = 0;
  std::memcpy(&header, first_eight.data(), sizeof header);
  if (header > kMaxSafetensorsHeader) {
    fail(path, {},
         fmt::format("a header of {} bytes; the format allows {}", header, kMaxSafetensorsHeader));
  }
  if (header > file_bytes - 8) {
    fail(path, {}, fmt::format("a header of {} bytes in a file of {}", header, file_bytes));
  }
  return header;
}

std::vector<SafetensorsTensor> parse_safetensors_header(std::string_view header,
                                                        std::uint64_t file_bytes,
                                                        const std::string& path) {
  expects(file_bytes >= 8 && header.size() <= file_bytes - 8, "the header lies in the file");
  const std::size_t first = header.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos || header[first] != '{') {
    fail(path, {}, "the header is not a JSON object");
  }
  if (header.find('\0') != std::string_view::npos) {  // where nlohmann would stop reading
    fail(path, {}, "the header is not valid JSON: it contains a zero byte");
  }
  const auto objects = std::count(header.begin(), header.end(), '{');
  HeaderEvents events(path, static_cast<std::size_t>(objects));
  nlohmann::json::sax_parse(header.begin() + static_cast<std::ptrdiff_t>(first), header.end(),
                            &events);
  std::vector<SafetensorsTensor> tensors = events.take();
  place_in_file(tensors, 8 + header.size(), file_bytes, path);
  std::sort(tensors.begin(), tensors.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  const auto twice =
      std::adjacent_find(tensors.begin(), tensors.end(),
                         [](const auto& a, const auto& b) { return a.name == b.name; });
  if (twice != tensors.end()) fail(path, twice->name, "occurs twice");
  return tensors;
}

std::vector<std::pair<std::string, std::string>> parse_safetensors_index(std::string_view json,
                                                                         const std::string& path) {
  const nlohmann::json document = parse_json_object(json, path, 4);
  const auto map = document.find("weight_map");
  if (map == document.end() || !map->is_object()) fail(path, {}, "\"weight_map\" is no object");
  if (map->size() > kMaxTensors) fail(path, {}, "more than 1000000 tensors");
  std::vector<std::pair<std::string, std::string>> entries;
  for (const auto& [tensor, file] : map->items()) {
    if (tensor.size() > kMaxName) fail(path, tensor, "its name is longer than 512 bytes");
    if (!file.is_string()) fail(path, tensor, "its file is not a string");
    const std::string& name = file.get_ref<const std::string&>();
    if (!is_plain_file_name(name)) {
      fail(path, tensor,
           fmt::format("its file {} is not a name of letters, digits, '.', '_', '-' "
                       "that ends in .safetensors",
                       in_quotes(name)));
    }
    entries.emplace_back(tensor, name);
  }
  return entries;  // an nlohmann object is sorted by key
}

}  // namespace strata
