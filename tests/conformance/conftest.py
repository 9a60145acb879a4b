"""The servers under comparison, started when the first test asks, and the closing table."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import key_servers
import pytest
import settings
from certificates import JavaStores
from differences import Tally
from kdc import Kdc
from key_servers import KeyServer, Settings

Servers = tuple[KeyServer, KeyServer]
_TALLY = pytest.StashKey[Tally]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TALLY] = Tally()


@pytest.fixture(scope="session")
def tally(request: pytest.FixtureRequest) -> Tally:
    """Where tests count what they compared."""
    return request.config.stash[_TALLY]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash[_TALLY].lines()
    if lines:
        terminalreporter.section("conformance with Hadoop's key server")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def simple_servers() -> Iterator[Servers]:
    """Hadoop's key server and ours with `simple` authentication."""
    with _both(settings.simple()) as servers:
        yield servers


@pytest.fixture(scope="session")
def secure_servers(kdc: Kdc, java_stores: JavaStores) -> Iterator[Servers]:
    """Hadoop's key server and ours with Kerberos and TLS."""
    with _both(settings.secure(kdc, java_stores)) as servers:
        yield servers


@contextmanager
def _both(chosen: Settings) -> Iterator[Servers]:
    with tempfile.TemporaryDirectory(prefix="rf-conf-") as parent:
        stock, ours = Path(parent) / "stock", Path(parent) / "ours"
        stock.mkdir()
        ours.mkdir()
        with key_servers.our_server(ours, chosen) as our, key_servers.stock_server(stock, chosen) as theirs:
            yield theirs, our
