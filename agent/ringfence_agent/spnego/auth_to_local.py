"""From a Kerberos principal to the short name that ACLs know: Hadoop's `auth_to_local` rules.

Source: `org.apache.hadoop.security.authentication.util.KerberosName`, semantics and rule grammar exactly, with both
mechanisms: `hadoop` refuses a result with `/` or `@`, and a principal that no rule fits; `mit` keeps both.

Stricter than Hadoop on purpose, because the short name decides who gets keys:

1. A principal with a backslash, `&`, a blank, control or non-ASCII characters, or of more than 256 characters, has no
   short name, whatever the rules say. (Hadoop maps `al\\/ice@REALM` to `al\\`.)
2. A short name consists of letters, digits and `_ . -`, with a `$` at its end at most; under `mit` also `/` and `@`.
3. A rule that cannot be understood, or whose pattern could take exponential time, stops the start.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from dataclasses import dataclass

from ringfence_zones.errors import AuthenticationError, ConfigError

_PRINCIPAL = re.compile(r"([^/@]+)(?:/([^/@]+))?(?:@([^/@]+))?")
_RULE = re.compile(
    r"\s*(?:(?P<default>DEFAULT)"
    r"|RULE:\[(?P<components>[0-9]*):(?P<format>[^\]]*)\](?:\((?P<match>[^)]*)\))?"
    r"(?:s/(?P<pattern>[^/]*)/(?P<to>[^/]*)/(?P<all>g)?)?)/?(?P<lower>L)?"
)
_PARAMETER = re.compile(r"([^$]*)(?:\$([0-9]*))?")
# What makes a group a special one, such as `?:`.
_GROUP_KIND = re.compile(r"^\?(?:[:=!>]|P?<\w+>|<[=!])")
_DANGEROUS = re.compile(r"[^\x21-\x7e]|[\\&]")
_MAX_PRINCIPAL_CHARS = 256
_REMEMBERED = 4096


class Mechanism(enum.Enum):
    """`hadoop.security.auth_to_local.mechanism`."""

    HADOOP = "hadoop"
    MIT = "mit"


_SHORT_NAMES = {
    Mechanism.HADOOP: re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\$?"),
    Mechanism.MIT: re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@/-]{0,255}\$?"),
}


@dataclass(frozen=True, slots=True)
class _Rule:
    """One rule; `components` None for DEFAULT. `substitute` is what `s/.../.../` does."""

    text: str
    components: int | None
    format: str = ""
    match: re.Pattern[str] | None = None
    substitute: Callable[[str], str] | None = None
    lower: bool = False

    def apply(self, parameters: list[str | None], default_realm: str) -> str | None:
        """The result, None when the rule does not fit. `parameters` are the realm, then the components."""
        if self.components is None:
            return parameters[1] if parameters[0] == default_realm else None
        if len(parameters) - 1 != self.components:
            return None
        base = _fill(self.format, parameters)
        if self.match is not None and not self.match.fullmatch(base):
            return None
        return base if self.substitute is None else self.substitute(base)


class AuthToLocal:
    """The rules of one server. Remembers what it mapped, within bounds."""

    def __init__(self, rules: str, default_realm: str, mechanism: Mechanism = Mechanism.HADOOP) -> None:
        """Raises ConfigError for rules that cannot be understood."""
        self._rules = _parse_rules(rules)
        self._default_realm = default_realm
        self._mechanism = mechanism
        self._known: dict[str, str] = {}

    def short_name(self, principal: str) -> str:
        """The short name of a principal, or of a name that is short already. Raises AuthenticationError."""
        known = self._known.get(principal)
        if known is not None:
            return known
        short = self._map(principal)
        if not _SHORT_NAMES[self._mechanism].fullmatch(short):
            raise AuthenticationError("the short name of this principal holds characters that a user name may not")
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[principal] = short
        return short

    def _map(self, principal: str) -> str:
        if len(principal) > _MAX_PRINCIPAL_CHARS or _DANGEROUS.search(principal):
            raise AuthenticationError("the principal is too long, or holds characters that are not mapped")
        parts = _PRINCIPAL.fullmatch(principal)
        if parts is None:
            if "@" in principal:
                raise AuthenticationError(f"Malformed Kerberos name: {principal}")
            return principal
        name, host, realm = parts.groups()
        if host is None and realm is None:
            return name
        parameters = [realm, name] if host is None else [realm, name, host]
        for rule in self._rules:
            result = rule.apply(parameters, self._default_realm)
            if result is not None:
                return self._checked(rule, result)
        if self._mechanism is Mechanism.MIT:
            return principal
        raise AuthenticationError(f"No rules applied to {principal}")

    def _checked(self, rule: _Rule, result: str) -> str:
        if self._mechanism is Mechanism.HADOOP and ("/" in result or "@" in result):
            raise AuthenticationError(f"Non-simple name {result} after auth_to_local rule {rule.text}")
        return result.lower() if rule.lower else result

    def maps_any_host(self, service: str) -> str | None:
        """The short name that `SERVICE/<any host>` of the default realm gets; None when it gets none."""
        try:
            return self.short_name(f"{service}/any-host.invalid@{self._default_realm}")
        except AuthenticationError:
            return None


def _parse_rules(text: str) -> list[_Rule]:
    rules: list[_Rule] = []
    remaining = text.strip()
    while remaining:
        found = _RULE.match(remaining)
        if found is None:
            raise ConfigError(
                f"auth_to_local holds {remaining!r}, which is no rule",
                hint="a rule is DEFAULT or RULE:[n:format](match)s/from/to/g",
            )
        rules.append(_make_rule(found))
        remaining = remaining[found.end() :]
    if not rules:
        raise ConfigError("auth_to_local holds no rule", hint="DEFAULT is the rule for a single realm")
    return rules


def _make_rule(found: re.Match[str]) -> _Rule:
    text = found[0].strip()
    if found["default"]:
        return _Rule(text, None)
    if not found["components"]:
        raise ConfigError(
            f"{text} does not say for how many components it is", hint="write RULE:[1:...] or RULE:[2:...]"
        )
    components = int(found["components"])
    _fill(found["format"], ["x"] * (components + 1), text)
    match = _compile(found["match"], text) if found["match"] is not None else None
    substitute = None
    if found["pattern"] is not None:
        substitute = _substitution(_compile(found["pattern"], text), found["to"], found["all"] is not None, text)
    return _Rule(text, components, found["format"], match, substitute, found["lower"] is not None)


def _fill(template: str, parameters: list[str | None], rule: str = "") -> str:
    """`$0` is the realm, `$1` and on the components; a realm that is not there is Java's "null"."""
    filled: list[str] = []
    start = 0
    while start < len(template):
        found = _PARAMETER.match(template, start)
        assert found is not None, "the pattern matches everywhere"
        filled.append(found[1])
        if found[2] is not None:
            if not found[2] or int(found[2]) >= len(parameters):
                raise ConfigError(f"${found[2]} in {rule} is no component: $0 to ${len(parameters) - 1} are")
            filled.append(parameters[int(found[2])] or "null")
        start = found.end()
    return "".join(filled)


def _compile(pattern: str, rule: str) -> re.Pattern[str]:
    if _is_explosive(pattern):
        raise ConfigError(
            f"the pattern {pattern!r} of {rule} repeats what repeats or chooses: a hostile name could make it run"
            " for ever",
            hint="write the pattern without a repetition, ? or | inside a repeated group",
        )
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"the pattern {pattern!r} of {rule} cannot be used: {error}",
            hint="of Java's patterns, classes such as \\p{Alpha} must be written out, as [A-Za-z]",
        ) from error


def _is_explosive(pattern: str) -> bool:
    """Whether a repeated group holds a repetition, an option or a choice: what can take exponential time when it fails.

    Choices that cannot be taken for each other are harmless, but telling them apart takes more than this.
    """
    plain = re.sub(r"\\.|\[\^?\]?[^\]]*\]", "x", pattern)
    while True:
        group = re.search(r"\(([^()]*)\)([*+{]?)", plain)
        if group is None:
            return False
        repeats = re.search(r"[*+{?|]", _GROUP_KIND.sub("", group[1])) is not None
        if repeats and group[2]:
            return True
        plain = plain[: group.start()] + ("x*" if repeats or group[2] else "x") + plain[group.end() :]


def _substitution(pattern: re.Pattern[str], to: str, every: bool, rule: str) -> Callable[[str], str]:
    template = _java_replacement(pattern, to, rule)
    return lambda text: pattern.sub(template, text, count=0 if every else 1)


def _java_replacement(pattern: re.Pattern[str], to: str, rule: str) -> str:
    """`Matcher.replaceAll`'s replacement in Python's notation: `$1` is a group, a backslash quotes."""
    template: list[str] = []
    position = 0
    while position < len(to):
        mark = to[position]
        position += 1
        if mark == "\\" and position < len(to):
            template.append(re.sub(r"\\", r"\\\\", to[position]))
            position += 1
        elif mark == "$" and position < len(to) and to[position].isdigit():
            number = int(to[position])
            if number > pattern.groups:
                raise ConfigError(f"the replacement {to!r} of {rule} names group {number}, which the pattern lacks")
            template.append(rf"\g<{number}>")
            position += 1
        elif mark in "\\$":
            raise ConfigError(f"the replacement {to!r} of {rule} holds a lone {mark}")
        else:
            template.append(mark)
    return "".join(template)
