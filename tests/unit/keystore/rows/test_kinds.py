"""A kind of row finds its fields among a table's columns."""

from __future__ import annotations

from ringfence_agent.keystore.rows.kinds import STORE_HEADER


def test_a_kind_finds_its_row_among_the_columns() -> None:
    header = STORE_HEADER.of(
        {"ledger": b"l", "id": 1, "store_id": b"s", "created_ms": 5, "protector": "slots", "protector_header": b"h"}
    )

    assert header == (b"s", 5, "slots", b"h", b"l")
