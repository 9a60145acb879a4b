"""The documented table of what the key server does while something is down is the one that is tested."""

from __future__ import annotations

from pathlib import Path

from fail_closed import OPERATIONS, TABLE, read_rows, render, render_custodies

README = (Path(__file__).parents[2] / "README.md").read_text()
PAGE = (Path(__file__).parents[2] / "packaging/docs/when-something-is-down.md").read_text()


def test_the_page_shows_the_table_that_is_tested() -> None:
    assert render() in PAGE, f"put this into packaging/docs/when-something-is-down.md:\n{render()}"


def test_the_readme_tells_of_each_custody_what_is_tested() -> None:
    assert render_custodies() in README, f"put this into README.md:\n{render_custodies()}"


def test_the_page_explains_each_operation() -> None:
    assert ". ".join(f"`{name}`: {what}" for name, what in TABLE["operations"].items()) in PAGE.replace("\n", " ")


def test_every_row_is_a_state_of_its_own() -> None:
    rows = read_rows()
    assert len({row.id for row in rows}) == len({(row.dependency, row.state) for row in rows}) == len(rows)
    assert {row.back for row in rows} == {"itself", "restart"}


def test_nothing_is_refused_that_no_row_ever_serves_and_the_other_way_round() -> None:
    rows = [row for row in read_rows() if row.start is None]
    for operation in OPERATIONS:
        assert len({row.outcomes[operation] for row in rows}) > 1
