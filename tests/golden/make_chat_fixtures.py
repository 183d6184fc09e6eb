#!/usr/bin/env python3
"""Writes chat/{template}.json: what `apply_chat_template` makes of conversations, and its ids.

Made with Python 3.11, transformers 5.x and tokenizers 0.22 or later (from PyPI). Tests read the committed files and
need neither. The templates themselves are not here: save the chat_template of a model's tokenizer_config.json as
DIR/{template}.jinja; the files record which text was used by its hash.

    make_chat_fixtures.py DIR      with DIR/chatml.jinja, DIR/qwen2.5.jinja, ...
    STRATA_CHAT_TEMPLATES=DIR strata_core_test      also checks that these texts are recognised,
                                                   and those in DIR/refused are not

Each file: {"sha256", "bos", "eos", "tokenizer": the fixture in tokenizers/, "added": tokens added to it, "cases":
[{"messages", "add_generation_prompt", "text": null where the template raises an error, "ids": null where Strata cuts
what people wrote from what the template wrote, or takes a special token for the text that it is}]}.
"""

import hashlib
import json
import pathlib
import sys

from tokenizers import AddedToken, Tokenizer
from transformers.utils.chat_template_utils import render_jinja_template

HERE = pathlib.Path(__file__).resolve().parent
DATE = "26 Jul 2024"

IM = {"bos": "", "eos": "<|im_end|>", "tokenizer": "qwen2", "added": []}
HEADERS = {"bos": "<|begin_of_text|>", "eos": "<|eot_id|>", "tokenizer": "llama3",
           "added": ["<|start_header_id|>", "<|end_header_id|>"]}
SP = {"bos": "<s>", "eos": "</s>", "tokenizer": "mistral", "added": []}
BRACKETS = {**SP, "added": ["[INST]", "[/INST]"]}
TEMPLATES = {
    "chatml": IM, "qwen2": IM, "qwen2.5": IM, "qwen3": {**IM, "added": ["<think>", "</think>"]},
    "llama-2": {**SP, "tokenizer": "llama2"}, "llama-3": HEADERS, "llama-3.1": HEADERS,
    "mistral-v0": SP, "mistral-v1": SP, "mistral-v3": BRACKETS,
    "mistral-v3-tekken": {**BRACKETS, "tokenizer": "llama3", "added": ["<s>", "</s>", "[INST]", "[/INST]"]},
    "mistral-v7": {**BRACKETS, "added": ["[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"]}}
ORDINARY = {"<think>", "</think>"}  # added, but not special

# s: system, u: user, a: assistant. The second of a pair: ids can be compared.
CONVERSATIONS = [
    ([("u", "Hello")], True),
    ([("s", "Be brief."), ("u", "Hello there, who are you?")], True),
    ([("u", "Hi"), ("a", "Hello! How can I help?")], True),
    ([("s", "You are a helpful assistant"), ("u", "Hello"), ("a", "Hi there"), ("u", "Who are you"),
      ("a", "A free software licence, version 3."), ("u", "Another question")], True),
    ([("s", "Du bist ein höflicher Helfer. 日本語も。"), ("u", "Was kostet 1 € in ¥?\nBitte kurz."),
      ("a", "Etwa 160 ¥.\n\n```c\nint f(int a) { return a * 2; }\n```"), ("u", "Danke 😀"), ("a", "Gern!")], True),
    ([("s", "  spaces \n"), ("u", "\t  tab\u3000"), ("a", "   I am an assistant   "), ("u", "\n\nlines\n"),
      ("a", "\n lead and trail \x1f\n\n")], False),
    ([("u", "<|im_end|> [/INST] <s> </s> <|eot_id|> <|start_header_id|>"), ("a", "That is text: <|im_start|> [INST]")],
     False),
    ([("u", "2+2?"), ("a", "<think>\nTwo and two.\n</think>\n\n4"), ("u", "3+3?"),
      ("a", "<think>\n\nThree.\n</think>\n\n\n6")], True),
    ([("u", "a"), ("a", "<think>one</think>two</think>three"), ("a", "<think>\nx\n</think>y"), ("a", "last")], False),
    ([("u", "weather?"), ("a", "<think>\ncall\n</think>\n\ncalling"), ("u", "<tool_response>\n22\n</tool_response>"),
      ("a", "22 degrees")], False),
    ([("u", "one"), ("u", "two"), ("a", "three")], True),
    ([("u", "one"), ("s", "now be rude"), ("a", "three")], True),
    ([("u", ""), ("a", "")], False),
    ([("s", "only a system message")], True),
    ([("a", "assistant first"), ("u", "then user")], True),
]
ROLES = {"s": "system", "u": "user", "a": "assistant"}


def tokenizer_of(facts):
    tokenizer = Tokenizer.from_file(str(HERE / "tokenizers" / f"{facts['tokenizer']}.json"))
    for token in facts["added"]:
        added = AddedToken(token, special=token not in ORDINARY, normalized=False)
        (tokenizer.add_tokens if token in ORDINARY else tokenizer.add_special_tokens)([added])
    return tokenizer


def render(template, facts, messages, prompt):
    rendered, _ = render_jinja_template(conversations=[messages], chat_template=template, bos_token=facts["bos"],
                                        eos_token=facts["eos"], add_generation_prompt=prompt, date_string=DATE)
    return rendered[0]


def cases(template, facts):
    tokenizer = tokenizer_of(facts)
    for conversation, comparable in CONVERSATIONS:
        messages = [{"role": ROLES[role], "content": content} for role, content in conversation]
        for prompt in (False, True):
            try:
                text = render(template, facts, messages, prompt)
            except Exception:  # raise_exception of the template
                text = None
            ids = tokenizer.encode(text, add_special_tokens=False).ids if comparable and text is not None else None
            yield {"messages": messages, "add_generation_prompt": prompt, "text": text, "ids": ids}


def main():
    source = pathlib.Path(sys.argv[1])
    for name, facts in TEMPLATES.items():
        template = (source / f"{name}.jinja").read_text()
        tokenizer = tokenizer_of(facts)
        added = [{"id": tokenizer.token_to_id(t), "content": t, "special": t not in ORDINARY, "normalized": False}
                 for t in facts["added"]]
        result = {"sha256": hashlib.sha256(template.encode()).hexdigest(), **facts, "added": added,
                  "cases": list(cases(template, facts))}
        lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in result.pop("cases"))
        head = json.dumps(result, ensure_ascii=False)[:-1]
        (HERE / "chat" / f"{name}.json").write_text(f"{head}, \"cases\": [\n{lines}\n]}}\n")


if __name__ == "__main__":
    main()
