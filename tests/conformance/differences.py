"""The differences that are allowed, and the comparison that allows exactly those.

`differences.yaml` is a list of rows: `where` (case/step, several when they share a cause), `stock` and `ours` (the
fields that differ, with both values; `absent` for a field that one side has not), `reason`, and `clients` when only
some client versions see it. A difference without its row fails, and so does a row without its difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from normal_form import Record

Steps = Mapping[str, Record]
"""What one case recorded on one server: step name -> record."""

Fields = dict[str, tuple[str, str]]
"""Field -> (stock, ours)."""

_ABSENT = "absent"


@dataclass(frozen=True)
class Row:
    """One row of the table, for one step of one case."""

    where: str
    clients: tuple[str, ...] | None
    fields: Fields
    reason: str


def load_rows(path: Path) -> tuple[Row, ...]:
    """The table, its shape checked."""
    rows = []
    for entry in yaml.safe_load(path.read_text()) or []:
        assert set(entry) <= {"where", "clients", "stock", "ours", "reason"}, entry
        assert len(entry["reason"].split()) > 3, f"a reason is a sentence: {entry}"
        stock, ours = ({name: str(value) for name, value in entry[side].items()} for side in ("stock", "ours"))
        assert set(stock) == set(ours), entry
        assert stock, entry
        clients = tuple(map(str, entry["clients"])) if "clients" in entry else None
        where = [entry["where"]] if isinstance(entry["where"], str) else entry["where"]
        rows += [Row(place, clients, {f: (stock[f], ours[f]) for f in stock}, entry["reason"]) for place in where]
    return tuple(rows)


def find_differences(stock: Steps, ours: Steps) -> dict[str, Fields]:
    """Step -> the fields that differ. A step that only one side came to differs in the field `step`."""
    found: dict[str, Fields] = {}
    for step in [*stock, *(name for name in ours if name not in stock)]:
        left, right = stock.get(step), ours.get(step)
        if left is None or right is None:
            found[step] = {"step": (_ABSENT if left is None else "there", _ABSENT if right is None else "there")}
            continue
        names = [*left, *(name for name in right if name not in left)]
        fields = {name: (left.get(name, _ABSENT), right.get(name, _ABSENT)) for name in names}
        fields = {name: values for name, values in fields.items() if values[0] != values[1]}
        if fields:
            found[step] = fields
    return found


def judge(case: str, found: Mapping[str, Fields], rows: Iterable[Row], client: str | None = None) -> list[str]:
    """What is wrong with the differences of one case, as rows to add or to delete; nothing when the table has them."""
    listed: dict[str, Fields] = {}
    for row in rows:
        row_case, _, step = row.where.partition("/")
        if row_case == case and (row.clients is None or client in row.clients):
            fields = listed.setdefault(step, {})
            assert not set(fields) & set(row.fields), f"two rows for the same field of {row.where}"
            fields.update(row.fields)
    complaints = []
    for step in [*found, *(name for name in listed if name not in found)]:
        real, allowed = found.get(step, {}), listed.get(step, {})
        unlisted = {name: values for name, values in real.items() if allowed.get(name) != values}
        gone = {name: values for name, values in allowed.items() if real.get(name) != values}
        if unlisted:
            complaints.append("not in differences.yaml:\n" + _as_row(f"{case}/{step}", unlisted))
        if gone:
            complaints.append("in differences.yaml, but not so:\n" + _as_row(f"{case}/{step}", gone))
    return complaints


class Tally:
    """How much was compared, for the table that ends a run: group -> steps, and how many of them differ as listed."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int]] = {}

    def add(self, group: str, steps: int, differing: int) -> None:
        """Counts one case."""
        known = self._counts.get(group, (0, 0))
        self._counts[group] = known[0] + steps, known[1] + differing

    def lines(self) -> list[str]:
        """The table; nothing when nothing was compared."""
        if not self._counts:
            return []
        width = max(map(len, self._counts))
        rows = [
            f"{group:<{width}}  {steps:>6}  {steps - differing:>6}  {differing:>6}"
            for group, (steps, differing) in sorted(self._counts.items())
        ]
        return [f"{'':<{width}}  {'steps':>6}  {'alike':>6}  {'listed':>6}", *rows]


def _as_row(where: str, fields: Fields) -> str:
    row: Sequence[dict[str, Any]] = [
        {
            "where": where,
            "stock": {name: values[0] for name, values in fields.items()},
            "ours": {name: values[1] for name, values in fields.items()},
            "reason": "",
        }
    ]
    return yaml.safe_dump(row, sort_keys=False, allow_unicode=True, width=1000)
