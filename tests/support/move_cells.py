"""The cells of `tests/vectors/moves_and_copies.yaml`: a way, a pair of places, a mode, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parents[1] / "vectors" / "moves_and_copies.yaml"
MODES = ("shadow", "enforce")
NO_MOVE = "none"
PLACES = {"a": "/m/a", "b": "/m/b", "c": "/m/c", "clear": "/m/clear"}
OLD = "old\n"
_OVER_A_FILE = ("rename_with_options", "append")


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell. `source` and `target` are names of places."""

    way: str
    relation: str
    mode: str
    source: str
    target: str
    outcome: str

    def __str__(self) -> str:
        return f"{self.way}-{self.relation}-{self.mode}"

    @property
    def is_inside(self) -> bool:
        """Whether both ends are one zone."""
        return self.source == self.target

    @property
    def is_of_a_zone(self) -> bool:
        """Whether what is moved is a directory with a zone in it."""
        return self.way in ("zone_root_rename", "ancestor_rename")

    @property
    def is_over_a_file(self) -> bool:
        """Whether the target is there before, with OLD in it."""
        return self.way in _OVER_A_FILE

    @property
    def text(self) -> str:
        """What is moved."""
        return f"{self}\n" * 100

    @property
    def text_after(self) -> str:
        """What the target has when it is done."""
        return OLD + self.text if self.way == "append" else self.text


def read_matrix() -> Mapping[str, Any]:
    """The file as it stands."""
    matrix: Mapping[str, Any] = yaml.safe_load(FILE.read_text())
    return matrix


def cells() -> Iterator[Cell]:
    """All that there are, those of shadow mode first: rules are enforced only after they were tried."""
    matrix = read_matrix()
    for mode in MODES:
        for way, outcomes in matrix["ways"].items():
            for relation, ends in matrix["relations"].items():
                outcome = outcomes[relation]
                outcome = outcome[mode] if isinstance(outcome, dict) else outcome
                if outcome != NO_MOVE:
                    yield Cell(way, relation, mode, ends["from"], ends["to"], outcome)
