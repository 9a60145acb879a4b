"""Which request a token's policies let through, by Vault's rules for exact, prefix (`*`) and segment (`+`) paths.

An exact path wins over any pattern. Between patterns: the later first wildcard, then no trailing `*`, then fewer `+`,
then the longer, then the lexicographically greater. `deny` beats everything at its own path. Parameters are compared
by type; a string in a policy may be a glob.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from vault_double.policies import Parameters, PathRules

_ORDER = ("sudo", "read", "list", "update", "delete", "create", "patch", "scan")


@dataclass(frozen=True, slots=True)
class Acl:
    """The merged rules of a token. `is_root` lets everything through."""

    rules: Mapping[str, PathRules]
    is_root: bool = False

    @classmethod
    def of(cls, policies: Iterable[tuple[PathRules, ...]]) -> Acl:
        merged: dict[str, PathRules] = {}
        for policy in policies:
            for rules in policy:
                known = merged.get(rules.path)
                merged[rules.path] = rules if known is None else _merge(known, rules)
        return cls(merged)

    def allows(self, operation: str, path: str, data: Mapping[str, Any]) -> bool:
        """Whether `operation` (create, read, update, delete, list, patch) on `path` with these fields may pass."""
        if self.is_root:
            return True
        rules = self._find(path, lists=operation == "list")
        if rules is None or operation not in rules.capabilities:
            return False
        return operation in ("list", "delete") or _allows_parameters(rules, data)

    def capabilities(self, path: str) -> list[str]:
        """As `sys/capabilities-self` prints them."""
        if self.is_root:
            return ["root"]
        rules = self._find(path, lists=True)
        return [name for name in _ORDER if rules and name in rules.capabilities] or ["deny"]

    def has_sudo(self, path: str) -> bool:
        rules = self._find(path, lists=False)
        return self.is_root or (rules is not None and "sudo" in rules.capabilities)

    def _find(self, path: str, *, lists: bool) -> PathRules | None:
        candidates = (path, path.rstrip("/")) if lists else (path,)
        for candidate in candidates:
            rules = self.rules.get(candidate)
            if rules is not None and not _is_pattern(rules.path):
                return rules
        # A list is looked for without its slash first: other rules with wildcards may match it so.
        for candidate in reversed(candidates):
            matching = [rules for pattern, rules in self.rules.items() if _matches(pattern, candidate)]
            if matching:
                return max(matching, key=lambda rules: _priority(rules.path))
        return None


def _is_pattern(path: str) -> bool:
    return path.endswith("*") or "+" in path.split("/")


def _matches(pattern: str, path: str) -> bool:
    if not _is_pattern(pattern):
        return False
    is_prefix, body = pattern.endswith("*"), pattern.removesuffix("*")
    wanted, given = body.split("/"), path.split("/")
    if len(given) < len(wanted) or (not is_prefix and len(given) != len(wanted)):
        return False
    for index, (want, have) in enumerate(zip(wanted, given, strict=False)):
        if want in ("+", have):
            continue
        is_last = index == len(wanted) - 1
        if not (is_prefix and is_last and have.startswith(want)):
            return False
    return True


def _priority(pattern: str) -> tuple[int, bool, int, int, str]:
    is_prefix, body = pattern.endswith("*"), pattern.removesuffix("*")
    plus = [index for index, segment in enumerate(body.split("/")) if segment == "+"]
    first = body.index("+") if plus else len(body)
    return first, not is_prefix, -len(plus), len(body), body


def _merge(one: PathRules, other: PathRules) -> PathRules:
    if "deny" in one.capabilities:
        return one
    if "deny" in other.capabilities:
        return replace(other, allowed={}, denied={}, required=())
    return PathRules(
        one.path,
        one.capabilities | other.capabilities,
        _merge_parameters(one.allowed, other.allowed),
        _merge_parameters(one.denied, other.denied),
        tuple(dict.fromkeys((*one.required, *other.required))),
    )


def _merge_parameters(one: Parameters, other: Parameters) -> Parameters:
    merged = dict(one)
    for name, values in other.items():
        # No values means every value, and swallows what another policy lists.
        merged[name] = (*merged[name], *values) if merged.get(name) and values else (() if name in merged else values)
    return merged


def _allows_parameters(rules: PathRules, data: Mapping[str, Any]) -> bool:
    if any(name not in data for name in rules.required):
        return False
    if not data:
        return True
    if "*" in rules.denied:
        return False
    for name, value in data.items():
        denied = rules.denied.get(name.lower())
        if denied is not None and _is_among(value, denied):
            return False
    if not rules.allowed:
        return True
    for name, value in data.items():
        allowed = rules.allowed.get(name.lower())
        if allowed is None:
            if "*" not in rules.allowed:
                return False
        elif not _is_among(value, allowed):
            return False
    return True


def _is_among(value: Any, values: tuple[Any, ...]) -> bool:
    return not values or any(_equals(one, value) for one in values)


def _equals(wanted: Any, value: Any) -> bool:
    if isinstance(wanted, str) and isinstance(value, str):
        return _glob_matches(wanted, value)
    return type(wanted) is type(value) and bool(wanted == value)


def _glob_matches(glob: str, value: str) -> bool:
    starts, ends = glob.startswith("*"), glob.endswith("*")
    body = glob.strip("*") if starts or ends else glob
    if starts and ends:
        return body in value
    if starts:
        return value.endswith(body)
    return value.startswith(body) if ends else value == body
