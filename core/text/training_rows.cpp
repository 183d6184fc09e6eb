#include "core/text/training_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/error.h"
#include "core/text/json_row.h"

namespace strata {
namespace {

using Kind = JsonField::Kind;

constexpr std::string_view kAlpacaWithInput =
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.";
constexpr std::string_view kAlpaca =
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.";

struct Need {
  std::string_view name;
  JsonField JsonRow::*field;
};

/// What makes a row one of a form.
struct Form {
  RowForm form;
  std::string_view text;
  Need first, second;  // the same where one field is enough
};

constexpr Need kMessagesNeed = {"messages", &JsonRow::messages};
constexpr Need kConversationsNeed = {"conversations", &JsonRow::conversations};
constexpr Need kTextNeed = {"text", &JsonRow::text};
/// In the order in which a row that fits several is taken.
constexpr std::array<Form, 5> kForms = {{
    {RowForm::kMessages, "{\"messages\":[{\"role\",\"content\"}]}", kMessagesNeed, kMessagesNeed},
    {RowForm::kShareGpt, "{\"conversations\":[{\"from\",\"value\"}]}", kConversationsNeed,
     kConversationsNeed},
    {RowForm::kCompletion,
     "{\"prompt\",\"completion\"}",
     {"prompt", &JsonRow::prompt},
     {"completion", &JsonRow::completion}},
    {RowForm::kAlpaca,
     "{\"instruction\",\"output\"}",
     {"instruction", &JsonRow::instruction},
     {"output", &JsonRow::output}},
    {RowForm::kText, "{\"text\"}", kTextNeed, kTextNeed},
}};

const Form& facts_of(RowForm form) { return *std::ranges::find(kForms, form, &Form::form); }

bool has(const JsonRow& row, const Need& need) { return (row.*need.field).kind != Kind::kMissing; }

bool fits(const JsonRow& row, const Form& form) {
  return has(row, form.first) && has(row, form.second);
}

/// The form that a row fits, or null.
const Form* form_of(const JsonRow& row) {
  const auto found =
      std::ranges::find_if(kForms, [&](const Form& form) { return fits(row, form); });
  return found == kForms.end() ? nullptr : &*found;
}

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

void expect_form(const JsonRow& row, const Form& form, const std::string& where) {
  for (const Need& need : {form.first, form.second}) {
    if (has(row, need)) continue;
    const Form* const other = form_of(row);
    const std::string remedy =
        other != nullptr
            ? fmt::format("this one is {}: put each form into a file of its own", other->text)
            : "add the field, or remove the line";
    throw FormatError(
        fmt::format("{}: the field \"{}\" is missing; the rows of this file are {}; {}", where,
                    need.name, form.text, remedy));
  }
}

[[noreturn]] void refuse_kind(std::string_view field, Kind kind, const std::string& where) {
  const bool missing = kind == Kind::kMissing;
  throw FormatError(fmt::format(
      "{}: {} is {}{}; {}", where, field, describe(kind), missing ? "" : ", not a string",
      missing ? "add it, or remove the line" : "make it text, or remove the line"));
}

const std::string& text_of(const JsonField& field, std::string_view name,
                           const std::string& where) {
  if (field.kind != Kind::kText) refuse_kind(fmt::format("\"{}\"", name), field.kind, where);
  return field.text;
}

std::string alpaca_prompt(const JsonRow& row, const std::string& where) {
  const std::string& instruction = text_of(row.instruction, "instruction", where);
  const bool none = row.input.kind == Kind::kMissing || row.input.kind == Kind::kNull;
  const std::string input = none ? "" : text_of(row.input, "input", where);
  if (input.empty()) {
    return fmt::format("{}\n\n### Instruction:\n{}\n\n### Response:\n", kAlpaca, instruction);
  }
  return fmt::format("{}\n\n### Instruction:\n{}\n\n### Input:\n{}\n\n### Response:\n",
                     kAlpacaWithInput, instruction, input);
}

/// What sharegpt calls the roles.
std::string_view role_of(std::string_view from) {
  if (from == "human" || from == "user") return "user";
  if (from == "gpt" || from == "assistant") return "assistant";
  if (from == "system") return "system";
  return "";
}

std::string role_of_turn(RowForm form, const std::string& role) {
  if (form == RowForm::kShareGpt) return std::string(role_of(role));
  return role == "system" || role == "user" || role == "assistant" ? role : "";
}

std::vector<ChatMessage> messages_of(JsonField& list, RowForm form, const std::string& where) {
  const Form& facts = facts_of(form);
  if (list.kind != Kind::kList) {
    throw FormatError(fmt::format("{}: \"{}\" is {}; the rows of this file are {}", where,
                                  facts.first.name, describe(list.kind), facts.text));
  }
  const bool sharegpt = form == RowForm::kShareGpt;
  std::vector<ChatMessage> messages;
  bool answered = false;
  for (std::size_t i = 0; i < list.turns.size(); ++i) {
    JsonField::Turn& turn = list.turns[i];
    const std::string place = fmt::format("{}[{}]", facts.first.name, i);
    if (turn.kind != Kind::kObject) {
      throw FormatError(fmt::format("{}: {} is {}, not an object; the rows of this file are {}",
                                    where, place, describe(turn.kind), facts.text));
    }
    const JsonField& role = sharegpt ? turn.from : turn.role;
    JsonField& content = sharegpt ? turn.value : turn.content;
    if (role.kind != Kind::kText) {
      refuse_kind(fmt::format("\"{}\" of {}", sharegpt ? "from" : "role", place), role.kind, where);
    }
    if (content.kind != Kind::kText) {
      refuse_kind(fmt::format("\"{}\" of {}", sharegpt ? "value" : "content", place), content.kind,
                  where);
    }
    std::string known = role_of_turn(form, role.text);
    if (known.empty()) {
      throw FormatError(fmt::format(
          "{}: {} is of the role \"{:.60}\"; known are {}; remove the turn or the line", where,
          place, role.text,
          sharegpt ? "system, human or user, gpt or assistant" : "system, user and assistant"));
    }
    answered = answered || known == "assistant";
    messages.push_back({std::move(known), std::move(content.text)});
  }
  if (!answered) {
    throw FormatError(fmt::format(
        "{}: no turn is the assistant's, so there is nothing to learn; remove the line", where));
  }
  return messages;
}

}  // namespace

std::string_view describe(RowForm form) noexcept { return facts_of(form).text; }

RowForm detect_row_form(std::string_view line, const std::string& where) {
  const Form* const form = form_of(parse_json_row(line, where));
  if (form != nullptr) return form->form;
  std::string known;
  for (const Form& one : kForms) known += fmt::format("{}{}", known.empty() ? "" : ", ", one.text);
  throw FormatError(fmt::format(
      "{}: has the fields of no kind of row that is known; rename its fields to one of {}", where,
      known));
}

bool has_row_form(std::string_view line, RowForm form, const std::string& where) {
  return fits(parse_json_row(line, where), facts_of(form));
}

RowReader::RowReader(RowForm form, const Tokenizer& tokenizer, const ChatTemplate* chat_template,
                     RowOptions options)
    : form_(form), tokenizer_(tokenizer), template_(chat_template), options_(options) {
  const bool chat = form == RowForm::kMessages || form == RowForm::kShareGpt;
  expects(!chat || chat_template != nullptr, "rows that are chats need a chat template");
}

void RowReader::read(std::string_view line, const std::string& where, Document& document) const {
  if (is_blank(line)) return;
  JsonRow row = parse_json_row(line, where);
  expect_form(row, facts_of(form_), where);
  switch (form_) {
    case RowForm::kText: {
      const std::string& text = text_of(row.text, "text", where);
      if (text.empty()) return;
      append_ids(tokenizer_.frame().before, true, document);
      append_text(text, {}, true, document);
      append_end(document);
      return;
    }
    case RowForm::kCompletion:
      append_answer(text_of(row.prompt, "prompt", where),
                    text_of(row.completion, "completion", where), document);
      return;
    case RowForm::kAlpaca:
      append_answer(alpaca_prompt(row, where), text_of(row.output, "output", where), document);
      return;
    case RowForm::kMessages:
      append_chat(messages_of(row.messages, form_, where), where, document);
      return;
    case RowForm::kShareGpt:
      append_chat(messages_of(row.conversations, form_, where), where, document);
      return;
  }
}

void RowReader::append_ids(std::span<const std::int32_t> ids, bool trained,
                           Document& document) const {
  document.ids.insert(document.ids.end(), ids.begin(), ids.end());
  document.trained.resize(document.ids.size(), trained || options_.train_on_inputs ? 1 : 0);
}

void RowReader::append_text(std::string_view text, const EncodeOptions& options, bool trained,
                            Document& document) const {
  tokenizer_.encode(text, options, document.ids);
  document.trained.resize(document.ids.size(), trained || options_.train_on_inputs ? 1 : 0);
}

void RowReader::append_end(Document& document) const {
  const std::int32_t end = tokenizer_.end_of_document();
  append_ids(std::span(&end, 1), true, document);
}

void RowReader::append_answer(std::string_view prompt, std::string_view answer,
                              Document& document) const {
  append_ids(tokenizer_.frame().before, false, document);
  append_text(prompt, {}, false, document);
  append_text(answer, {.start = prompt.empty() ? TextStart::kBeginning : TextStart::kWithin}, true,
              document);
  append_end(document);
}

void RowReader::append_chat(std::span<const ChatMessage> messages, const std::string& where,
                            Document& document) const {
  std::vector<ChatPart> parts;
  try {
    parts = template_->render(messages, false);
  } catch (const FormatError& error) {
    throw FormatError(fmt::format("{}: {}", where, error.what()));
  }
  TextStart start = TextStart::kBeginning;
  for (const ChatPart& part : parts) {
    append_text(part.text, {.parse_special = part.special, .start = start}, part.assistant,
                document);
    start = part.special ? TextStart::kAfterToken : TextStart::kWithin;
  }
}

}  // namespace strata
