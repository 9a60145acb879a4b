"""A whole command as a step: what it left half done is rolled back first, and what others did by hand stays theirs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ringfence_bootstrap.journal import DONE, ROLLED_BACK, RUNNING
from ringfence_bootstrap.node import exchange_step
from ringfence_bootstrap.node.exchange_step import HARDENING, TAKEOVER, CommandPair, Exchange
from ringfence_zones.errors import InstallError


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `ringfence` that does to the journals what the real commands do; each call is a line."""
    program = tmp_path / "ringfence"
    program.write_text(f'''#!/usr/bin/env python3
import json, sys
from pathlib import Path
state = Path({str(tmp_path / "state")!r})
state.mkdir(exist_ok=True)
open({str(tmp_path / "calls")!r}, "a").write(" ".join(sys.argv[1:]) + "\\n")
def of(name):
    path = state / (name + ".json")
    return json.loads(path.read_text())["state"] if path.exists() else None
def refuse(**error):
    print(json.dumps(dict(error=error)), file=sys.stderr)
    sys.exit(4)
def put(name, text):
    (state / (name + ".json")).write_text(json.dumps(dict(schema=1, state=text, details={{}}, steps=[])))
there, back = ("harden", "undo") if "harden" in sys.argv else ("takeover", "return")
for name in (there, back):
    if of(name) == "{RUNNING}":
        put(name, "{ROLLED_BACK}")
        refuse(message="it was interrupted; everything is as it was before it")
if Path({str(tmp_path / "broken")!r}).exists():
    refuse(message="no; everything is as it was before", hint="h", command="c")
put(there, "{DONE}" if back not in sys.argv else "returned")
''')
    program.chmod(0o755)
    monkeypatch.setattr(exchange_step, "ringfence_command", lambda: str(program))
    return tmp_path / "calls"


def exchange(tmp_path: Path, pair: CommandPair = TAKEOVER) -> Exchange:
    return Exchange(pair, tmp_path / "state", ("--as", "hdfs"), ("--keystore", "K"), ("--prove-as", "etl"))


def begin(tmp_path: Path, **states: str) -> None:
    (tmp_path / "state").mkdir()
    for name, state in states.items():
        content = {"schema": 1, "state": state, "details": {}, "steps": []}
        (tmp_path / f"state/{name}.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("pair", "there", "back"),
    [(TAKEOVER, "kms takeover", "kms return"), (HARDENING, "kms harden", "kms harden undo")],
)
def test_it_goes_there_and_back_and_leaves_no_state(
    calls: Path, tmp_path: Path, pair: CommandPair, there: str, back: str
) -> None:
    step = exchange(tmp_path, pair).step()
    undo = step.prepare()
    step.do()
    step.do()
    step.undo(undo)
    step.undo(undo)
    common = f"--prove-as etl --state-dir {tmp_path}/state --as hdfs --json --yes"
    assert calls.read_text().splitlines() == [f"{there} --keystore K {common}", f"{back} {common}"]
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("states", "verbs"),
    [
        ({"takeover": RUNNING}, ["takeover"]),
        ({"takeover": ROLLED_BACK}, []),
        ({"takeover": DONE, "return": RUNNING}, ["return", "return"]),
        ({"takeover": DONE, "return": ROLLED_BACK}, ["return"]),
    ],
)
def test_undoing_finds_whatever_died_before(
    calls: Path, tmp_path: Path, states: dict[str, str], verbs: list[str]
) -> None:
    begin(tmp_path, **states)
    exchange(tmp_path).go_back({"was_done": False})
    assert [line.split()[1] for line in (calls.read_text() if calls.exists() else "").splitlines()] == verbs
    assert not (tmp_path / "state").exists()


def test_what_died_on_the_way_there_is_rolled_back_and_begun_anew(calls: Path, tmp_path: Path) -> None:
    begin(tmp_path, takeover=RUNNING)
    exchange(tmp_path).go()
    assert [line.split()[1] for line in calls.read_text().splitlines()] == ["takeover", "takeover"]


def test_what_was_done_by_hand_is_left_to_hands(calls: Path, tmp_path: Path) -> None:
    begin(tmp_path, takeover=DONE)
    step = exchange(tmp_path).step()
    undo = step.prepare()
    step.do()
    step.undo(undo)
    assert not calls.exists() and (tmp_path / "state/takeover.json").exists()


def test_a_failure_says_what_the_command_said_without_saying_twice_that_all_is_as_before(
    calls: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken").touch()
    with pytest.raises(InstallError) as failed:
        exchange(tmp_path).go()
    assert (failed.value.message, failed.value.hint, failed.value.command) == ("no", "h", "c")
