"""Objects of a JSON document as typed values that lose nothing of it.

A class says which members EMR knows in an object, by dataclass fields that one of the functions here makes. Rules:

1. No member is ever lost. What a class does not know, or cannot read as the type it should have, stays as it was
   written (`others`), and `to_json` writes it back in its place.
2. `None` means absent, which is not the same as false or empty.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from ringfence_bootstrap.security_configuration.json_text import Location


class Kind(enum.Enum):
    """What a member holds."""

    TEXT = "a text"
    BOOLEAN = "true or false"
    WHOLE = "a whole number"
    CHOICE = "one of a few words"
    TEXTS = "a list of texts"
    NODE = "an object"
    NODES = "a list of objects"


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an object as EMR names it. `of` is the enumeration or the class of what it holds.

    The service itself adds a member that is `output_only` to what it hands out, and takes it from nobody. Texts are
    not empty unless they `may_be_empty`.
    """

    name: str
    kind: Kind
    of: type | None = None
    output_only: bool = False
    may_be_empty: bool = False


def _member(name: str, kind: Kind, of: type | None = None) -> Any:
    return field(default=None, metadata={"member": Member(name, kind, of)})


def text_member(name: str, *, output_only: bool = False, may_be_empty: bool = False) -> Any:
    """A text."""
    member = Member(name, Kind.TEXT, output_only=output_only, may_be_empty=may_be_empty)
    return field(default=None, metadata={"member": member})


def boolean_member(name: str) -> Any:
    """True or false."""
    return _member(name, Kind.BOOLEAN)


def whole_member(name: str) -> Any:
    """A whole number."""
    return _member(name, Kind.WHOLE)


def choice_member(name: str, of: type) -> Any:
    """One of the words of the enumeration `of`."""
    return _member(name, Kind.CHOICE, of)


def node_member(name: str, of: type) -> Any:
    """An object of the class `of`."""
    return _member(name, Kind.NODE, of)


def nodes_member(name: str, of: type) -> Any:
    """A list of objects of the class `of`."""
    return _member(name, Kind.NODES, of)


def texts_member(name: str) -> Any:
    """A list of texts."""
    return _member(name, Kind.TEXTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """An object of the document. Two are equal when they hold the same; where they stand does not matter."""

    # An object that AWS extends without saying so here; unknown members in it are no problem.
    is_open: ClassVar[bool] = False

    place: Location = field(default=(), compare=False)
    others: Mapping[str, Any] = field(default_factory=dict)
    order: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def members(cls) -> dict[str, tuple[str, Member]]:
        """By the member's name: the attribute here, and the member."""
        found = ((each.name, each.metadata.get("member")) for each in fields(cls))
        return {member.name: (attribute, member) for attribute, member in found if member is not None}

    def written(self) -> dict[str, Any]:
        """The known members that the document has, by EMR's names, in the document's order."""
        values = {name: getattr(self, attribute) for name, (attribute, _) in self.members().items()}
        present = {name: value for name, value in values.items() if value is not None}
        first = {name: present[name] for name in self.order if name in present}
        return first | present

    def to_json(self) -> dict[str, Any]:
        """The JSON object, with every member that the document has."""
        everything = self.written() | dict(self.others)
        order = dict.fromkeys((*(name for name in self.order if name in everything), *everything))
        return {name: _plain(everything[name]) for name in order}

    def lacks(self, name: str) -> bool:
        """Whether a member is absent, or null; one of the wrong type is there, and a problem of its own."""
        return name not in self.written() and self.others.get(name) is None

    def nodes(self) -> Iterator[Node]:
        """This object and every known one inside it, outermost first."""
        yield self
        for value in self.written().values():
            for inner in value if isinstance(value, tuple) else (value,):
                if isinstance(inner, Node):
                    yield from inner.nodes()


def _plain(value: Any) -> Any:
    match value:
        case Node():
            return value.to_json()
        case enum.Enum():
            return value.value
        case tuple():
            return [_plain(item) for item in value]
        case _:
            return value
