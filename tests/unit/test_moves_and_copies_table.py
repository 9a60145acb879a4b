"""What the vectors say cannot be blocked is what the cells say, and what the README says."""

from __future__ import annotations

from pathlib import Path

from move_cells import Cell, cells, read_matrix

_README = (Path(__file__).parents[2] / "README.md").read_text()
_LANDS = ("unreadable", "ciphertext", "clear")


def _passes(cell: Cell) -> bool:
    """Whether enforced rules let something happen that no flow allows."""
    if cell.outcome in _LANDS:
        return True
    return cell.outcome == "done" and (cell.relation in ("forbidden_flow", "zone_to_clear") or cell.is_of_a_zone)


def test_every_way_has_an_outcome_between_every_pair_of_places() -> None:
    matrix = read_matrix()
    words = set(matrix["outcomes"])
    for way, outcomes in matrix["ways"].items():
        assert list(outcomes) == list(matrix["relations"]), way
        for outcome in outcomes.values():
            assert set(outcome.values() if isinstance(outcome, dict) else [outcome]) <= words, way


def test_what_cannot_be_blocked_is_listed_with_its_reason() -> None:
    listed = [tuple(cell) for row in read_matrix()["unblocked"] for cell in row["cells"]]
    assert len(set(listed)) == len(listed)
    assert set(listed) == {(cell.way, cell.relation) for cell in cells() if cell.mode == "enforce" and _passes(cell)}


def test_the_readme_lists_it() -> None:
    for row in read_matrix()["unblocked"]:
        assert f"| {row['what']} | {row['why']} | {row['shown_by']} |" in _README
