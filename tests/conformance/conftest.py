"""The servers under comparison, started when the first test asks, and the closing table."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import key_servers
import pytest
import settings
from key_servers import KeyServer


@pytest.fixture(scope="session")
def simple_servers() -> Iterator[tuple[KeyServer, KeyServer]]:
    """Hadoop's key server and ours with `simple` authentication."""
    with tempfile.TemporaryDirectory(prefix="rf-conf-") as parent:
        stock, ours = Path(parent) / "stock", Path(parent) / "ours"
        stock.mkdir()
        ours.mkdir()
        chosen = settings.simple()
        with key_servers.our_server(ours, chosen) as our, key_servers.stock_server(stock, chosen) as theirs:
            yield theirs, our
