"""Reads protocol buffers in their text form, which EMR writes `job-flow-state.txt` in.

Only the shape is read: names, blocks, scalars. No schema is known, so a number stays a word. What is not this form
raises ValueError; a file that is being rewritten may be cut anywhere.

Source of the format: the text format specification of Protocol Buffers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

Message = Mapping[str, Sequence["str | Message"]]
"""Every value of a name, in order: a field may be repeated."""

_TOKEN = re.compile(
    r"""\s+|\#[^\n]*
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<word>[^\s{}<>\[\]:,;"'#]+)
    |(?P<sign>[{}<>\[\]:,;])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
_CLOSING = {"{": "}", "<": ">"}
_MAX_DEPTH = 64


def parse_text(text: str) -> Message:
    """The message that a text holds. Raises ValueError."""
    tokens = list(_tokens(text))
    message, at = _message(tokens, 0, None, 0)
    if at != len(tokens):
        raise ValueError(f"{tokens[at][1]!r} closes nothing")
    return message


def find_block(message: Message, *names: str) -> Message | None:
    """The first block at a path of names; None when there is none."""
    current: Message | None = message
    for name in names:
        current = next((each for each in (current or {}).get(name, ()) if not isinstance(each, str)), None)
    return current


def find_word(message: Message | None, name: str) -> str | None:
    """The last scalar of that name, as the format has it for a field that is not repeated."""
    words = [each for each in (message or {}).get(name, ()) if isinstance(each, str)]
    return words[-1] if words else None


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"{text[at : at + 20]!r} is not protocol buffer text")
        at = match.end()
        if match.lastgroup is not None:
            yield match.lastgroup, match[0]


def _message(
    tokens: Sequence[tuple[str, str]], at: int, closing: str | None, depth: int
) -> tuple[dict[str, list[str | Message]], int]:
    if depth > _MAX_DEPTH:
        raise ValueError("blocks are nested too deeply")
    found: dict[str, list[str | Message]] = {}
    while at < len(tokens):
        kind, text = tokens[at]
        if text == closing and kind == "sign":
            return found, at + 1
        if text in (",", ";") and kind == "sign":
            at += 1
            continue
        if kind != "word":
            raise ValueError(f"{text!r} stands where a name should")
        at = _field(tokens, at + 1, found.setdefault(text, []), depth)
    if closing is not None:
        raise ValueError(f"{closing} is missing")
    return found, at


def _field(tokens: Sequence[tuple[str, str]], at: int, values: list[str | Message], depth: int) -> int:
    kind, text = _at(tokens, at)
    if text == ":" and kind == "sign":
        at += 1
        kind, text = _at(tokens, at)
    if text == "[" and kind == "sign":
        at += 1
        while _at(tokens, at) != ("sign", "]"):
            at = at + 1 if _at(tokens, at) == ("sign", ",") else _value(tokens, at, values, depth)
        return at + 1
    return _value(tokens, at, values, depth)


def _value(tokens: Sequence[tuple[str, str]], at: int, values: list[str | Message], depth: int) -> int:
    kind, text = _at(tokens, at)
    if kind == "sign":
        if text not in _CLOSING:
            raise ValueError(f"{text!r} stands where a value should")
        block, at = _message(tokens, at + 1, _CLOSING[text], depth + 1)
        values.append(block)
        return at
    values.append(text if kind == "word" else _ESCAPE.sub(lambda each: _ESCAPES.get(each[1], each[1]), text[1:-1]))
    return at + 1


def _at(tokens: Sequence[tuple[str, str]], at: int) -> tuple[str, str]:
    if at >= len(tokens):
        raise ValueError("the text ends in the middle of a field")
    return tokens[at]
