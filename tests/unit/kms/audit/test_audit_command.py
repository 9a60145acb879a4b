"""`ringfence audit` without a server: what a line tells people of a record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ringfence_agent.cli.audit import audit

RECORD = {
    "time": "2026-11-22T23:27:15.238161Z",
    "sequence": 1,
    "slot": 0,
    "op": "DECRYPT_EEK",
    "key": "masked",
    "version": 0,
    "user": "etl",
    "identity": "claimed",
    "address": "127.0.0.1",
    "outcome": "ok",
    "rule": "policy:1",
}


@pytest.mark.parametrize(
    ("more", "end"),
    [
        ({}, "  policy:1"),
        (
            {"flow": {"from": "/data/masked", "to": "/data/pii", "mode": "shadow"}},
            "  policy:1  shadow: no flow from /data/masked to /data/pii",
        ),
        (
            {
                "flow": {"from": "/data/masked", "to": "/data/pii", "mode": "enforce"},
                "outcome": "denied",
                "error": "flow refused: etl may not",
            },
            "  flow refused: etl may not",
        ),
    ],
    ids=["no flow", "shadow", "enforce"],
)
def test_what_enforcement_would_refuse_is_seen_without_json(tmp_path: Path, more: dict[str, object], end: str) -> None:
    (tmp_path / "worker-0.jsonl").write_text(json.dumps(RECORD | more) + "\n")
    shown = CliRunner().invoke(audit, ["search", "--user", "etl", "--dir", str(tmp_path)], catch_exceptions=False)
    assert shown.exit_code == 0
    assert shown.output.endswith(end + "\n")
