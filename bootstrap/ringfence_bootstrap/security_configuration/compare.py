"""What differs between two security configurations, and what that does to protection.

Two documents are the same when EMR would do the same with them, however they are written:

1. An absent switch is false, and an empty object or list is absent (but for the write-ahead logs, where an empty object
   switches encryption on).
2. Overrides go by bucket, tags by key, plug-ins by application: their order means nothing. Role mappings are ordered.
3. `s3://BUCKET/KEY` and its ARN name the same object.
4. What only the service writes, and what is null, is left aside.

What lies below a switch that is off in both documents is compared, and its effect is none.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ringfence_bootstrap.security_configuration.document import S3Mode, SecurityConfiguration, Wal
from ringfence_bootstrap.security_configuration.json_text import Location
from ringfence_bootstrap.security_configuration.nodes import Node

_SHOWN = 200
_TOLD = 3
_OBJECT_ARN = "arn:aws:s3:::"
# By whose absence nothing is encrypted or proven; a switch of them is false when absent.
_SWITCHES = {
    "EnableInTransitEncryption": "encryption in transit",
    "EnableAtRestEncryption": "encryption at rest",
    "EnableEbsEncryption": "encryption of EBS volumes, the root device among them",
    "EnableApplicationScopedIAMRole": "roles of their own for steps",
    "EnableIdentityCenter": "users known to Identity Center",
}
_BLOCKS = {
    "InTransitEncryptionConfiguration": "encryption in transit",
    "AtRestEncryptionConfiguration": "encryption at rest",
    "S3EncryptionConfiguration": "encryption of objects in S3",
    "LocalDiskEncryptionConfiguration": "encryption of local disks",
    "EMRWALEncryptionConfiguration": "encryption of write-ahead logs",
    "KerberosConfiguration": "proof of who users are, on which encryption of RPC and block transfer stands",
    "RangerConfiguration": "authorization by Ranger",
    "EmrFsConfiguration": "roles for requests to S3",
}
# Who can read an object by himself: with SSE-S3 whoever may read it, with SSE-KMS who may use the key as well, with CSE
# S3 never sees it in clear.
_S3_RANKS = {S3Mode.SSE_S3: 1, S3Mode.SSE_KMS: 2, S3Mode.CSE_KMS: 3, S3Mode.CSE_CUSTOM: 3}
# Objects that only hold others: absent, they are the same as empty.
_CONTAINERS = {
    "EncryptionConfiguration",
    "AuthenticationConfiguration",
    "AuthorizationConfiguration",
    "InstanceMetadataServiceConfiguration",
    "IAMConfiguration",
    "IdentityCenterConfiguration",
}
_LISTED_BY = {"Overrides": "BucketName", "SecretTags": "Key", "RangerPluginConfigurations": "App"}


class Effect(enum.StrEnum):
    """What a difference does to protection."""

    STRONGER = "stronger"
    WEAKER = "weaker"
    OTHER = "other"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference, from the one document to the other. `before` and `after` are JSON, None where it is absent."""

    place: str
    before: str | None
    after: str | None
    effect: Effect
    message: str

    def to_json(self) -> dict[str, Any]:
        """The JSON object."""
        return {
            "place": self.place,
            "before": self.before,
            "after": self.after,
            "effect": self.effect.value,
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class _Unread:
    """A value that is unknown or of the wrong type, as JSON: compared, and never judged."""

    text: str


def is_same(one: SecurityConfiguration, other: SecurityConfiguration) -> bool:
    """Whether EMR would do the same with both."""
    return not differences(one, other)


def differences(one: SecurityConfiguration, other: SecurityConfiguration) -> list[Difference]:
    """What changes from `one` to `other`, in document order."""
    off = {
        (encryption, block)
        for encryption, block, is_on in (
            ("EncryptionConfiguration", "AtRestEncryptionConfiguration", _either(one, other, at_rest=True)),
            ("EncryptionConfiguration", "InTransitEncryptionConfiguration", _either(one, other, at_rest=False)),
        )
        if not is_on
    }
    return [
        _without_effect(each) if place[:2] in off else each
        for place, each in _compare(_members(one), _members(other), ())
    ]


def told(found: Sequence[Difference]) -> str:
    """The first few of them in one sentence."""
    left = len(found) - _TOLD
    return "; ".join(each.message for each in found[:_TOLD]) + (f"; and {left} more" if left > 0 else "")


def _either(one: SecurityConfiguration, other: SecurityConfiguration, *, at_rest: bool) -> bool:
    return any(each.encrypts_at_rest if at_rest else each.encrypts_in_transit for each in (one, other))


def _without_effect(difference: Difference) -> Difference:
    message = f"{difference.place} changes, below a switch that is off"
    return Difference(difference.place, difference.before, difference.after, Effect.NONE, message)


def _members(node: Node) -> dict[str, Any]:
    """The object as EMR takes it: `_Tree` values are dicts and scalars, lists by what their items go by."""
    out: dict[str, Any] = {}
    for name, (attribute, member) in type(node).members().items():
        value = getattr(node, attribute)
        if value is None or member.output_only:
            continue
        normal = _normal(name, value)
        if normal is not None:
            out[name] = normal
    others = {
        name: _Unread(json.dumps(value, sort_keys=True)) for name, value in node.others.items() if value is not None
    }
    return out | others


def _normal(name: str, value: Any) -> Any:
    match value:
        case Node():
            inner = _members(value)
            return inner if inner or isinstance(value, Wal) else None
        case tuple():
            items = [_members(each) if isinstance(each, Node) else each for each in value]
            return _by_name(items, _LISTED_BY.get(name)) or None
        case False if name in _SWITCHES:
            return None
        case str() if name == "S3Object":
            return _s3_uri(value)
        case _:
            return value


def _by_name(items: list[Any], named_by: str | None) -> dict[str | int, Any]:
    out: dict[str | int, Any] = {}
    for at, item in enumerate(items):
        name = item.get(named_by) if isinstance(item, dict) and named_by is not None else None
        key = str(name) if name is not None else at
        # Two items of one name are no list that EMR takes; both are kept, by place.
        out[key if key not in out else at] = item
    return out


def _s3_uri(text: str) -> str:
    return f"s3://{text.removeprefix(_OBJECT_ARN)}" if text.startswith(_OBJECT_ARN) else text


def _compare(
    one: Mapping[Any, Any], other: Mapping[Any, Any], place: Location
) -> Iterator[tuple[Location, Difference]]:
    for name in dict.fromkeys((*one, *other)):
        before, after, here = one.get(name), other.get(name), (*place, name)
        if before == after and type(before) is type(after):
            continue
        if name in _CONTAINERS:
            before, after = before or {}, after or {}
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _compare(before, after, here)
        else:
            yield here, _difference(here, before, after)


def _difference(place: Location, before: Any, after: Any) -> Difference:
    effect, message = _judge(place, before, after)
    where = _spelled(place)
    return Difference(where, _shown(before), _shown(after), effect, f"{where}: {message}")


def _judge(place: Location, before: Any, after: Any) -> tuple[Effect, str]:
    name = str(place[-1])
    added, removed = before is None, after is None
    change = f"added: {_shown(after)}" if added else f"{_shown(before)} becomes {_shown(after)}"
    change = f"removed: {_shown(before)}" if removed else change
    if isinstance(before, _Unread) or isinstance(after, _Unread):
        return Effect.OTHER, change
    protects = _SWITCHES.get(name) or _BLOCKS.get(name)
    if name in _SWITCHES and (added or removed):
        return (Effect.STRONGER, f"on: {protects}") if added else (Effect.WEAKER, f"off: {protects}")
    if protects is not None and (added or removed):
        return (Effect.STRONGER, f"added: {protects}") if added else (Effect.WEAKER, f"removed: {protects}")
    if len(place) > 1 and place[-2] == "Overrides" and (added or removed):
        what = f"an override for bucket {name}, {(after or before).get('EncryptionMode')}"
        return Effect.OTHER, f"{'added' if added else 'removed'}: {what}"
    effect = Effect.OTHER
    if name == "EncryptionMode" and not added and not removed:
        effect = _by_rank(_S3_RANKS.get(before, 0), _S3_RANKS.get(after, 0))
    # What EMR takes when nothing is written: version 1, one hop.
    elif name == "MinimumInstanceMetadataServiceVersion":
        effect = _by_rank(before or 1, after or 1)
    elif name == "HttpPutResponseHopLimit":
        effect = _by_rank(-(before or 1), -(after or 1))
    return effect, change


def _by_rank(before: int, after: int) -> Effect:
    if before == after:
        return Effect.OTHER
    return Effect.STRONGER if after > before else Effect.WEAKER


def _spelled(place: Location) -> str:
    """Items of lists by what they go by: `Overrides[BUCKET]`."""
    steps: list[str | int] = []
    out = ""
    for step in place:
        in_list = bool(steps) and steps[-1] in ("Overrides", "SecretTags", "RangerPluginConfigurations", "RoleMappings")
        out += f"[{step}]" if in_list else f".{step}" if isinstance(step, str) else f"[{step}]"
        steps.append(step)
    return out.removeprefix(".")


def _shown(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, _Unread):
        value = value.text
    text = value if isinstance(value, str) else json.dumps(_plain(value))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _plain(value: Any) -> Any:
    if isinstance(value, _Unread):
        return json.loads(value.text)
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    return value.value if isinstance(value, enum.Enum) else value
