"""Measured numbers and how they are written: a spread, a ratio, and plain words for what was not measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Spread:
    """Repeated measurements of one thing, in one unit."""

    values: tuple[float, ...]

    @property
    def minimum(self) -> float:
        """The least disturbed run: the fair figure on a machine that does other work as well."""
        return min(self.values)

    @property
    def median(self) -> float:
        """The usual run."""
        return statistics.median(self.values)

    def map(self, change: Callable[[float], float]) -> Spread:
        """Each value changed, for another unit or the inverse."""
        return Spread(tuple(change(value) for value in self.values))

    def __str__(self) -> str:
        return " / ".join(number(value) for value in (self.minimum, self.median, max(self.values)))


def spread_of(values: Sequence[float]) -> Spread | None:
    """The spread, None of nothing."""
    return Spread(tuple(values)) if values else None


def number(value: float) -> str:
    """About three significant digits, thousands apart, no exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def cell(value: object) -> str:
    """A table cell: a count or a number, a spread as written above, text as it is, nothing as `not measured`."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, int):
        return f"{value:,}"
    return number(value) if isinstance(value, float) else str(value)


def times(slower: Spread | None, faster: Spread | None) -> str:
    """How many times more the first costs than the second: ratio of the minima, ratio of the medians."""
    if slower is None or faster is None:
        return NOT_MEASURED
    return f"{number(slower.minimum / faster.minimum)} / {number(slower.median / faster.median)} times"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; rows as long as the head, cells as `cell` writes them."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)
