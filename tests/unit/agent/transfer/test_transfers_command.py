"""`ringfence transfers show`: why a transfer failed or waits is told also to who comes back later."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from ringfence_agent.cli import transfer as command
from ringfence_agent.client import Transfer

FAILED = Transfer(
    id="0" * 32,
    state="failed",
    user="masker",
    copied_as="masker",
    src="/data/pii/none",
    dst="/data/masked/x",
    purpose=None,
    remove_source=False,
    source_removed=False,
    files=0,
    bytes=0,
    files_verified=0,
    bytes_verified=0,
    rate=None,
    time_left_s=None,
    waits_for=None,
    grant=None,
    problem={"message": "there is nothing at /data/pii/none", "hint": None, "command": None},
)


class _Agent:
    def __init__(self, seen: Transfer) -> None:
        self._seen = seen

    def get_transfer(self, _transfer_id: str) -> Transfer:
        return self._seen


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (FAILED, "  because  there is nothing at /data/pii/none\n"),
        (
            FAILED._replace(state="copying", problem=None, waits_for="the KMS does not answer"),
            "  waits    the KMS does not answer\n",
        ),
    ],
    ids=["failed", "waits"],
)
def test_it_says_why(monkeypatch: pytest.MonkeyPatch, seen: Transfer, told: str) -> None:
    monkeypatch.setattr(command, "_agent", lambda _context: _Agent(seen))
    shown = CliRunner().invoke(command.transfers, ["show", seen.id], catch_exceptions=False)
    assert shown.exit_code == 0
    assert told in shown.output
