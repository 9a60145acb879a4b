"""The NameNode's logs: who renamed, what was refused; bounds, rotation, truncation, half-written lines."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path

import pytest

from ringfence_agent import namenode_logs
from ringfence_agent.namenode_logs import AuditLog, LogFollower, RefusalLog, Refusals, RefusedRename

WHEN = "2026-11-22 21:13:50,845"
WHEN_S = datetime(2026, 11, 22, 21, 13, 50, 845000).timestamp()  # noqa: DTZ001 - log4j writes local time


def _line(
    source: str,
    target: str,
    *,
    ugi: str = "etl (auth:SIMPLE)",
    allowed: str = "true",
    when: str = WHEN,
    command: str = "rename",
) -> str:
    return (
        f"{when} allowed={allowed}\tugi={ugi}\tip=/10.0.0.1\tcmd={command}\tsrc={source}\tdst={target}\t"
        "perm=etl:pii:rwxr-x---\tproto=rpc\n"
    )


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    return tmp_path / "hdfs-audit.log"


def _find(path: Path, source: str = "/z", target: str = "/gone", when_s: float = WHEN_S) -> str | None:
    return AuditLog([path]).find_user(source, target, when_s)


@pytest.mark.parametrize("command", ["rename", "rename (options=[TO_TRASH])", "rename (options=[NONE, OVERWRITE])"])
def test_the_user_of_a_rename_is_found(audit: Path, command: str) -> None:
    audit.write_text(_line("/other", "/x") + _line("/z", "/gone", command=command) + _line("/z", "/x"))
    assert _find(audit) == "etl"


@pytest.mark.parametrize(
    ("ugi", "user"),
    [
        ("etl@EXAMPLE.COM (auth:KERBEROS)", "etl"),
        ("nn/host.example.com@EXAMPLE.COM (auth:KERBEROS)", "nn"),
        ("etl (auth:PROXY) via oozie/h@EXAMPLE.COM (auth:KERBEROS)", "etl via oozie"),
        (" (auth:SIMPLE)", "unknown"),
    ],
)
def test_users_are_told_by_their_short_names(audit: Path, ugi: str, user: str) -> None:
    audit.write_text(_line("/z", "/gone", ugi=ugi))
    assert _find(audit) == user


def test_a_callers_context_that_looks_like_a_rename_is_none(audit: Path) -> None:
    # hadoop.caller.context.enabled: 128 bytes of the caller's choice at the end of the line of any command.
    forged = "callerContext=allowed=true\tugi=bob\tip=\tcmd=rename\tsrc=/z\tdst=/gone\t\n"
    audit.write_text(_line("/q", "null", command="getfileinfo").rstrip("\n") + f"\t{forged}")
    assert _find(audit) is None


def test_paths_are_compared_as_they_are(audit: Path) -> None:
    audit.write_text(_line("/a\\tb", "/caf\\u00E9"))
    assert _find(audit, "/a\tb", "/café") == "etl"
    assert _find(audit, "/a\\tb", "/café") is None


def test_what_was_not_done_long_ago_or_by_nobody_knows_whom_is_no_answer(audit: Path) -> None:
    audit.write_text(_line("/z", "/gone", allowed="false"))
    assert _find(audit) is None
    audit.write_text(_line("/z", "/gone"))
    assert _find(audit, when_s=WHEN_S + 60) is None
    audit.write_text(_line("/z", "/gone") + _line("/z", "/gone", ugi="mallory (auth:SIMPLE)"))
    assert _find(audit) is None


def test_a_line_that_is_still_being_written_is_not_read(audit: Path) -> None:
    audit.write_text(_line("/z", "/gone").rstrip("\n"))
    assert _find(audit) is None


def test_the_file_it_was_rotated_to_is_looked_at_too(audit: Path) -> None:
    audit.with_name("hdfs-audit.log.1").write_text(_line("/z", "/gone"))
    audit.write_text(_line("/other", "/x"))
    assert _find(audit) == "etl"


def test_only_the_end_of_a_long_file_is_read(audit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namenode_logs, "MAX_TAIL_BYTES", 1000)
    audit.write_text(_line("/z", "/gone") + _line("/a", "/b") * 50 + _line("/y", "/late"))
    assert _find(audit) is None
    assert _find(audit, "/y", "/late") == "etl"


def test_without_a_file_nobody_is_known(tmp_path: Path) -> None:
    assert AuditLog([]).find_user("/z", "/gone", WHEN_S) is None
    assert _find(tmp_path / "absent") is None


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "namenode.log"
    path.write_text("before\n")
    return path


def _add(path: Path, text: str) -> None:
    with path.open("a") as stream:
        stream.write(text)


def test_lines_are_given_once_and_from_now_on(log: Path) -> None:
    follower = LogFollower(log)
    assert follower.read_lines() == []
    _add(log, "one\ntw")
    assert follower.read_lines() == ["one"]
    _add(log, "o\n")
    assert follower.read_lines() == ["two"]
    assert follower.read_lines() == []


def test_a_file_that_was_rotated_or_truncated_is_read_from_its_start(log: Path) -> None:
    follower = LogFollower(log)
    follower.read_lines()
    _add(log, "half")
    follower.read_lines()
    log.rename(log.with_name("namenode.log.1"))
    log.write_text("new\n")
    assert follower.read_lines() == ["new"]
    _add(log, "more of it\n")
    follower.read_lines()
    os.truncate(log, 0)
    _add(log, "a\n")
    assert follower.read_lines() == ["a"]


def test_a_file_that_comes_later_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "later.log"
    follower = LogFollower(path)
    assert follower.read_lines() == []
    path.write_text("first\n")
    assert follower.read_lines() == ["first"]


def test_a_flood_is_cut_to_its_end(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namenode_logs, "MAX_READ_BYTES", 100)
    follower = LogFollower(log)
    follower.read_lines()
    _add(log, "".join(f"line {number:03}\n" for number in range(1000)))
    lines = follower.read_lines()
    assert lines[-1] == "line 999"
    assert len(lines) < 15


CALL = (
    "2026-11-22 22:03:09,414 INFO ipc.Server: IPC Server handler 0 on default port 29463, call Call#3 Retry#0 "
    "org.apache.hadoop.hdfs.protocol.ClientProtocol.rename from 127.0.0.1:41580"
)
WHY = "java.io.IOException: /a/x can't be moved from encryption zone /a to encryption zone /b."
REFUSED = RefusedRename("2026-11-22 22:03:09", "/a/x", WHY.removeprefix("java.io.IOException: "), "127.0.0.1")


@pytest.mark.parametrize(
    "lines",
    [
        [CALL, WHY, "\tat org.apache.hadoop.hdfs.server.namenode.EncryptionZoneManager"],
        [CALL.replace("rename", "rename2"), WHY],
        [f"{CALL}: {WHY}"],
    ],
)
def test_refused_renames_are_read_from_hadoops_own_lines(lines: list[str]) -> None:
    assert list(Refusals().read(lines)) == [REFUSED]


def test_two_namenodes_logs_are_not_mixed(tmp_path: Path) -> None:
    paths = [tmp_path / "namenode-nn1.log", tmp_path / "namenode-nn2.log"]
    for path in paths:
        path.write_text("")
    one, other = [RefusalLog(path) for path in paths]
    assert (one.read_refused(), other.read_refused()) == ([], [])
    _add(paths[0], f"{CALL}\n")
    _add(paths[1], f"{WHY}\n")
    assert (one.read_refused(), other.read_refused()) == ([], [])
    _add(paths[0], f"{WHY}\n")
    assert (one.read_refused(), other.read_refused()) == ([REFUSED], [])


def test_the_user_is_found_in_either_namenodes_audit_log(audit: Path) -> None:
    second = audit.with_name("hdfs-audit-nn2.log")
    second.write_text(_line("/z", "/gone"))
    assert AuditLog([audit, second]).find_user("/z", "/gone", WHEN_S) == "etl"
    audit.write_text(_line("/z", "/gone", ugi="mallory (auth:SIMPLE)"))
    assert AuditLog([audit, second]).find_user("/z", "/gone", WHEN_S) is None


def test_the_two_lines_may_come_in_two_looks() -> None:
    refusals = Refusals()
    assert list(refusals.read([CALL])) == []
    assert list(refusals.read([WHY])) == [REFUSED]
    assert list(refusals.read([WHY])) == []


@pytest.mark.parametrize(
    "lines",
    [
        [CALL, WHY.replace("can't", "cannot")],
        [CALL, "another line", WHY],
        [WHY],
        [CALL.replace("ClientProtocol.rename", "ClientProtocol.delete"), WHY],
    ],
)
def test_what_is_no_refused_rename_is_none(lines: list[str]) -> None:
    assert list(Refusals().read(lines)) == []


def test_a_name_that_looks_like_many_messages_costs_no_more_than_another() -> None:
    line = "java.io.IOException: /" * 3000
    began_s = time.process_time()
    assert list(Refusals().read([line, line])) == []
    assert time.process_time() - began_s < 0.5
