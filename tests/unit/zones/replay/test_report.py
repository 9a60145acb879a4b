"""A whole replay: entries that are alike are one, and what is not told is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence_zones.policy import load_policy, policy_from_json
from ringfence_zones.replay import report as module
from ringfence_zones.replay.access import LogKind
from ringfence_zones.replay.report import ReplayReport, notes, replay

REAL = Path(__file__).parents[3] / "vectors" / "replay"
POLICY = policy_from_json(
    {
        "version": 1,
        "cluster": "c",
        "zones": [
            {"path": "/a", "key": "a", "readers": ["ann"], "writers": ["etl"]},
            {"path": "/b", "key": "b", "readers": ["ann"], "writers": ["@team"]},
        ],
        "flows": [],
        "kms": {"namenode_users": ["hdfs"], "admins": ["hdfs"]},
    }
)


def _log(path: Path, *events: str) -> Path:
    lines = (f"2026-11-22 08:{at // 60:02}:{at % 60:02},000 {event}\n" for at, event in enumerate(events))
    path.write_text("".join(lines), encoding="utf-8")
    return path


def _open(key: str, user: str) -> str:
    return f"OK[op=DECRYPT_EEK, key={key}, user={user}, accessCount=1, interval=0ms] "


def _replay(path: Path) -> ReplayReport:
    return replay(POLICY, [path], None, 600)


def test_accesses_that_are_alike_are_one_entry_with_the_first_line_and_both_times(tmp_path: Path) -> None:
    path = _log(tmp_path / "kms-audit.log", "nothing", _open("a", "bob"), *[_open("a", "eve@R.TEST")] * 2)
    ranked = _replay(path).ranked()
    assert [(refusal.user, entry.count) for refusal, entry in ranked] == [("eve", 2), ("bob", 1)]
    eve = ranked[0][1]
    assert (eve.first, eve.where) == ("2026-11-22 08:00:02,000", f"{path}:3")
    assert eve.last == "2026-11-22 08:00:03,000"


def test_certain_ones_come_first_then_the_many(tmp_path: Path) -> None:
    events = [_open("b", "x"), _open("b", "x"), "OK[op=DELETE_KEY, key=a, user=bob] "]
    report = _replay(_log(tmp_path / "log", *events))
    assert [(refusal.op, refusal.certain) for refusal, _ in report.ranked()] == [
        ("DELETE_KEY", True),
        ("DECRYPT_EEK", False),
    ]
    assert (report.total(certain=True), report.total(certain=False)) == (1, 2)


def test_what_finds_no_place_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 2)
    report = _replay(_log(tmp_path / "log", *(_open("a", f"u{at}") for at in range(5))))
    assert len(report.entries) == 2
    assert report.total(certain=True) == 5
    assert any("3 of them are counted and not listed" in note for note in notes(POLICY, report, groups_known=False))


def test_a_policy_without_flows_and_groups_without_a_file_are_said(tmp_path: Path) -> None:
    report = _replay(_log(tmp_path / "log", _open("a", "ann@R.TEST"), _open("old", "ann@R.TEST")))
    told = notes(POLICY, report, groups_known=False)
    assert any("is shadow" in note for note in told)
    assert any("--groups" in note for note in told)
    assert any("such as old" in note for note in told)
    assert any("auth_to_local" in note for note in told)
    assert any("no address, session, path or direction" in note for note in told)
    open_policy = POLICY.model_copy(update={"flows": None})
    told = notes(open_policy, report, groups_known=True)
    assert any("no copy between zones was judged" in note for note in told)
    assert not any("--groups" in note for note in told)


def test_each_kind_of_log_is_told_apart(tmp_path: Path) -> None:
    kms = _log(tmp_path / "kms", _open("a", "ann"))
    namenode = _log(
        tmp_path / "nn",
        "allowed=true\tugi=ann (auth:SIMPLE)\tip=/127.0.0.1\tcmd=open\tsrc=/a/f\tdst=null\tperm=null\tproto=rpc",
    )
    audit = tmp_path / "worker-0.jsonl"
    audit.write_text(
        '{"time":"2026-11-22T06:45:01.000001Z","op":"DECRYPT_EEK","key":"a","user":"ann","identity":"claimed","outcome":"ok"}\n',
        encoding="utf-8",
    )
    report = replay(POLICY, [kms, namenode, audit], None, 600)
    assert [log.to_json()["judged"] for log in report.logs] == [1, 1, 1]
    assert {log.reading.kind for log in report.logs} == set(LogKind)
    # The same user and moment in three logs is no copy: their clocks and sessions are their own.
    assert not report.entries
    told = notes(POLICY, report, groups_known=True)
    assert any("do not say whether they read or wrote" in note for note in told)
    assert any("accesses under a name that nobody proved: 1" in note for note in told)


def _told(*names: str) -> list[str]:
    nobody = {user: frozenset[str]() for user in ("etl", "analyst", "masker")}
    report = replay(load_policy(REAL / "zones.yaml"), [REAL / name for name in names], nobody, 600)
    assert not any(log.reading.unreadable for log in report.logs)
    return [
        f"{'certain' if refusal.certain else 'possible'} {entry.count} {refusal.user} {refusal.op} {refusal.rule.value}"
        for refusal, entry in report.ranked()
    ]


def test_the_log_of_a_stock_kms_tells_what_was_done_to_a_real_cluster() -> None:
    assert _told("kms-audit.log") == [
        "certain 1 hdfs CREATE_KEY access_refused",
        "certain 1 hdfs CREATE_KEY access_refused",
        "possible 1 analyst DECRYPT_EEK flow_refused",
    ]


def test_the_log_of_a_real_namenode_tells_the_copy_and_the_zone_that_was_renamed_and_no_file_in_the_trash() -> None:
    assert _told("hdfs-audit.log") == [
        "possible 1 analyst create flow_refused",
        "possible 1 hdfs rename zone_root",
    ]
