"""The tables have the columns that the kinds of rows name: a backup's manifest and a restore elsewhere go by those."""

from __future__ import annotations

from ringfence_agent.keystore.rows.kinds import BACKED_UP, STORE_HEADER
from ringfence_agent.keystore.sql import tables


def test_the_tables_of_a_backup_have_the_columns_that_the_rows_name() -> None:
    metadata = tables.STORE_HEADER.metadata

    found = {table: tuple(metadata.tables[table].c.keys()) for table in BACKED_UP}

    assert found == BACKED_UP
    assert next(iter(BACKED_UP)) == STORE_HEADER.table  # in this order a backup has them
