"""ACL policies: the part of HCL (and its JSON form) that Vault's policies use.

A policy is `path "P" { capabilities = [...] ... }` blocks. Unknown attributes and capabilities are refused, as there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vault_double.wire import RefusedError

CAPABILITIES = frozenset({"create", "read", "update", "delete", "list", "sudo", "patch", "scan", "deny"})
_OLD_NAMES = {
    "deny": ("deny",),
    "read": ("read", "list"),
    "write": ("create", "read", "update", "delete", "list"),
    "sudo": ("create", "read", "update", "delete", "list", "sudo"),
}
_ATTRIBUTES = {
    "capabilities",
    "policy",
    "allowed_parameters",
    "denied_parameters",
    "required_parameters",
    "min_wrapping_ttl",
    "max_wrapping_ttl",
    "comment",
}
Parameters = Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class PathRules:
    """One `path` block. A parameter with no values stands for every value."""

    path: str
    capabilities: frozenset[str]
    allowed: Parameters
    denied: Parameters
    required: tuple[str, ...]


def parse_policy(text: str) -> tuple[PathRules, ...]:
    """The rules of a policy document. Raises RefusedError(400) as the server does for one it cannot read."""
    try:
        document = json.loads(text) if text.lstrip().startswith("{") else _HclReader(text).read_document()
        blocks = document.get("path", [])
        if isinstance(blocks, dict):
            blocks = list(blocks.items())
        return tuple(_rules(path, body) for path, body in blocks)
    except (ValueError, TypeError, AttributeError) as error:
        raise RefusedError(400, f"failed to parse policy: {error}") from None


def _rules(path: str, body: dict[str, Any]) -> PathRules:
    unknown = sorted(set(body) - _ATTRIBUTES)
    if unknown:
        raise ValueError(f'path "{path}": invalid key "{unknown[0]}"')
    if "+*" in path:
        raise ValueError(f"path \"{path}\": invalid use of wildcards ('+*' is forbidden)")
    capabilities = set(body.get("capabilities", ())) | set(_OLD_NAMES.get(body.get("policy", ""), ()))
    foreign = sorted(capabilities - CAPABILITIES)
    if foreign:
        raise ValueError(f'path "{path}": invalid capability "{foreign[0]}"')
    return PathRules(
        path.removeprefix("/"),
        frozenset({"deny"} if "deny" in capabilities else capabilities),
        _parameters(body.get("allowed_parameters")),
        _parameters(body.get("denied_parameters")),
        tuple(name.lower() for name in body.get("required_parameters", ())),
    )


def _parameters(value: Any) -> Parameters:
    # HCL's blocks may come several times; each adds its names.
    blocks = value if isinstance(value, list) else [value or {}]
    pairs = [pair for block in blocks for pair in block.items()]
    if any(not isinstance(values, list) for _, values in pairs):
        raise ValueError("the values of a parameter are a list")
    return {name.lower(): tuple(values) for name, values in pairs}


_TOKEN = re.compile(
    r"""(?P<space>[\s,]+|\#[^\n]*|//[^\n]*|/\*.*?\*/)
      | (?P<string>"(?:\\.|[^"\\\n])*")
      | (?P<number>-?\d+(?:\.\d+)?(?![\w.]))
      | (?P<word>[A-Za-z_][\w-]*)
      | (?P<mark>[={}\[\]])""",
    re.VERBOSE | re.DOTALL,
)


class _HclReader:
    """A recursive-descent reader of the subset above."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0

    def read_document(self) -> dict[str, Any]:
        paths: list[tuple[str, Any]] = []
        while self._peek() is not None:
            word = self._take()
            if word not in ("path", '"path"'):
                if self._peek() == "=":  # `name = "..."` at the top is accepted and means nothing.
                    self._take()
                    self._read_value()
                    continue
                raise ValueError(f"invalid key {word}")
            path = json.loads(self._take())
            paths.append((path, self._read_block()))
        return {"path": paths}

    def _read_block(self) -> dict[str, Any]:
        self._expect("{")
        body: dict[str, Any] = {}
        while self._peek() != "}":
            word = self._take()
            name = json.loads(word) if word.startswith('"') else word
            if self._peek() == "=":
                self._take()
            body[name] = self._read_value()
        self._take()
        return body

    def _read_value(self) -> Any:
        token = self._peek()
        if token == "{":
            return self._read_block()
        self._take()
        if token == "[":
            values = []
            while self._peek() != "]":
                values.append(self._read_value())
            self._take()
            return values
        if token in ("true", "false"):
            return token == "true"
        return json.loads(token or "")

    def _peek(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _take(self) -> str:
        token = self._peek()
        if token is None:
            raise ValueError("object expected closing RBRACE got: EOF")
        self._at += 1
        return token

    def _expect(self, mark: str) -> None:
        token = self._take()
        if token != mark:
            raise ValueError(f"expected {mark!r}, got {token!r}")


def _tokens(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"illegal character {text[at]!r}")
        at = match.end()
        if match.lastgroup != "space":
            yield match.group()
