"""The documents of tests/vectors/emr, and ways to change them."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from ringfence_bootstrap.security_configuration.document import SecurityConfiguration
from ringfence_bootstrap.security_configuration.nodes import Kind, Node

VECTORS = Path(__file__).parents[1] / "vectors" / "emr"
Place = tuple[str | int, ...]

DOCUMENTED = sorted(path.stem for path in (VECTORS / "documented").glob("*.json"))
REFUSED = sorted(path.stem for path in (VECTORS / "refused").glob("*.json"))


def document_path(name: str) -> Path:
    """The file of a document, documented or refused."""
    (path,) = (path for path in VECTORS.glob(f"*/{name}.json"))
    return path


def document_data(name: str) -> Any:
    """What it holds."""
    return json.loads(document_path(name).read_text(encoding="utf-8"))


def parse_place(text: str) -> Place:
    """`A.B[0].C` as steps."""
    return tuple(int(step) if step.isdecimal() else step for step in re.findall(r"[^.\[\]]+", text))


def spell_place(place: Place) -> str:
    """The other way."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).removeprefix(".")


def members_of(data: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every member of every object, outermost first."""
    if isinstance(data, dict):
        for name, value in data.items():
            yield (*place, name), value
            yield from members_of(value, (*place, name))
    elif isinstance(data, list):
        for at, item in enumerate(data):
            yield from members_of(item, (*place, at))


def changed(data: Any, place: Place, value: Any) -> Any:
    """A copy with `value` at `place`; None removes the member."""
    out = copy.deepcopy(data)
    around = out
    for step in place[:-1]:
        around = around[step]
    if value is None:
        around.pop(place[-1], None)
    else:
        around[place[-1]] = value
    return out


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=5) | st.sampled_from(["true", "False"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def documents() -> st.SearchStrategy[dict[str, Any]]:
    """Objects of the schema with any of its members, right or wrong values, and members that nobody knows."""

    def objects(kind: type[Node]) -> st.SearchStrategy[dict[str, Any]]:
        known = {name: st.one_of(_JSON, values(member)) for name, (_, member) in kind.members().items()}
        strange = st.dictionaries(st.text(max_size=6).filter(lambda name: name not in known), _JSON, max_size=2)
        return st.builds(lambda right, wrong: right | wrong, st.fixed_dictionaries({}, optional=known), strange)

    def values(member: Any) -> st.SearchStrategy[Any]:
        match member.kind:
            case Kind.NODE:
                return objects(member.of)
            case Kind.NODES:
                return st.lists(objects(member.of), max_size=3)
            case Kind.CHOICE:
                return st.sampled_from([word.value for word in member.of])
            case Kind.BOOLEAN:
                return st.booleans() | st.sampled_from(["true", "FALSE"])
            case Kind.WHOLE:
                return st.integers(0, 100)
            case Kind.TEXTS:
                return st.lists(st.text(max_size=4), max_size=3)
            case _:
                return st.text(max_size=8)

    return objects(SecurityConfiguration)
