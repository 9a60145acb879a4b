from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence_agent.kms.audit.hadoop_format import HadoopLines, parse_line
from ringfence_agent.kms.audit.reader import parse_record
from ringfence_agent.kms.audit.record import OUTCOMES, Decision, JsonLines, utc_text

NOW_S = 1_700_000_000.25
DECISION = Decision("GENERATE_EEK", "k1", None, "hdfs", None, None, "claimed", "10.0.0.9", 200, "ok", "r", 3)
FAILURE = {"method": "POST", "path": "/kms/v1/keys", "error": "Key k1 already exists in x"}


@pytest.fixture(autouse=True)
def utc() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def hadoop(decision: Decision, details: dict[str, Any] | None = None, *, writes_begun: bool = False) -> str:
    return HadoopLines(writes_begun=writes_begun).line(NOW_S, 1, decision, details).decode()


# `SimpleKMSAuditLogger` under log4j's `%d{ISO8601} %m%n`.
@pytest.mark.parametrize(
    ("changes", "details", "line"),
    [
        ({}, None, "OK[op=GENERATE_EEK, key=k1, user=hdfs, accessCount=1, interval=0ms] "),
        ({"op": "REENCRYPT_EEK"}, None, "OK[op=REENCRYPT_EEK, key=k1, user=hdfs, accessCount=1, interval=0ms] "),
        (
            {"op": "CREATE_KEY", "user": "alice", "status": 201},
            {"material_given": False, "description": None, "length": 128},
            "OK[op=CREATE_KEY, key=k1, user=alice] UserProvidedMaterial:false Description:null",
        ),
        (
            {"op": "ROLL_NEW_VERSION", "user": "alice", "version": 1},
            {"material_given": True},
            "OK[op=ROLL_NEW_VERSION, key=k1, user=alice] UserProvidedMaterial:true NewVersion:k1@1",
        ),
        (
            {"op": "REENCRYPT_EEK_BATCH", "item_count": 1000},
            None,
            "OK[op=REENCRYPT_EEK_BATCH, key=k1, user=hdfs] reencrypted 1000 keys",
        ),
        ({"op": "GET_KEYS", "key": None, "user": "alice"}, None, "OK[op=GET_KEYS, user=alice] "),
        ({"op": "DELETE_KEY"}, None, "OK[op=DELETE_KEY, key=k1, user=hdfs] "),
        (
            {"op": "DECRYPT_EEK", "user": "bob", "status": 403, "outcome": "denied"},
            FAILURE,
            "UNAUTHORIZED[op=DECRYPT_EEK, key=k1, user=bob] ",
        ),
        (
            {"user": "bob", "status": 500, "outcome": "failed"},
            FAILURE,
            "ERROR[user=bob] Method:'POST' Exception:'Key k1 already exists in x'",
        ),
        (
            {"op": "UNKNOWN", "key": None, "user": None, "status": 401, "outcome": "unauthenticated"},
            {"method": "GET", "path": "/kms/v1/keys/names", "error": "Authentication required"},
            "UNAUTHENTICATED RemoteHost:10.0.0.9 Method:GET URL:/kms/v1/keys/names ErrorMsg:'Authentication required'",
        ),
        (
            {"user": "bob", "principal": "bob/host@EXAMPLE.COM", "identity": "kerberos"},
            None,
            "OK[op=GENERATE_EEK, key=k1, user=bob/host@EXAMPLE.COM, accessCount=1, interval=0ms] ",
        ),
    ],
)
def test_lines_are_those_of_hadoops_logger(changes: dict[str, Any], details: dict[str, Any] | None, line: str) -> None:
    assert hadoop(DECISION._replace(**changes), details) == f"2023-11-14 22:13:20,250 {line}\n"


def test_a_change_about_to_be_made_is_told_in_hadoops_format_only_when_there_is_no_other() -> None:
    begun = DECISION._replace(outcome="begun", status=None, op="DELETE_KEY")
    assert hadoop(begun) == ""
    assert hadoop(begun, writes_begun=True).endswith(" BEGUN[op=DELETE_KEY, key=k1, user=hdfs] \n")


_TEXTS = st.text(max_size=40)
_DECISIONS = st.builds(
    Decision, _TEXTS, _TEXTS | st.none(), st.integers(0, 9) | st.none(), _TEXTS | st.none(), _TEXTS | st.none(),
    _TEXTS | st.none(), st.sampled_from(["claimed", "kerberos"]), _TEXTS | st.none(), st.integers(200, 599),
    st.sampled_from(OUTCOMES), _TEXTS | st.none(), st.integers(0, 99), st.integers(0, 999) | st.none(),
    st.none() | st.sampled_from(["read", "write", "undecided"]), st.integers(0, 999) | st.none()
)  # fmt: skip
_DETAILS = st.none() | st.dictionaries(st.sampled_from(["error", "path", "description"]), _TEXTS)


@given(_DECISIONS, _DETAILS)
def test_nothing_a_client_sends_makes_a_second_line(decision: Decision, details: dict[str, Any] | None) -> None:
    for line in (
        JsonLines(0).line(NOW_S, 1, decision, details),
        HadoopLines(writes_begun=True).line(NOW_S, 1, decision, details),
    ):
        assert line.endswith(b"\n")
        assert len(line.decode().splitlines()) == 1 or line.startswith(b"{")
        assert line.count(b"\n") == 1
        record = parse_record(line)
        assert record is not None
        assert (record.time, record.fields["outcome"]) == ("2023-11-14T22:13:20.250000Z", decision.outcome)


@given(_DECISIONS, _DETAILS)
def test_a_json_line_says_what_was_decided(decision: Decision, details: dict[str, Any] | None) -> None:
    lines = JsonLines(4)
    for sequence in (1, 2):  # the second from what was remembered
        fields = json.loads(lines.line(NOW_S, sequence, decision, details))
        assert (fields.pop("sequence"), fields.pop("slot")) == (sequence, 4)
        assert fields.pop("time") == utc_text(NOW_S)
        wanted = {**decision._asdict(), **(details or {})}
        wanted["count"] = wanted.pop("item_count")
        optional = ("principal", "count", "opened", "token")
        assert fields == {name: value for name, value in wanted.items() if value is not None or name not in optional}


def test_what_hadoop_wrote_is_read_back() -> None:
    line = b"2023-11-14 22:13:20,250 UNAUTHORIZED[op=DECRYPT_EEK, key=k1, user=bob] \n"
    assert parse_line(line) == {
        "time": "2023-11-14T22:13:20.250000Z",
        "op": "DECRYPT_EEK",
        "key": "k1",
        "user": "bob",
        "address": None,
        "outcome": "denied",
        "message": "",
    }
    assert parse_line(b"2023-11-14 22:13:20,250 INFO something else\n") is None
    assert parse_line(b"\xff\xfe") is None


@pytest.mark.parametrize("name", ["k, user=root, accessCount=1, interval=0ms] ", "k], x=[", "[,]", "k,\nuser=root]"])
def test_no_name_of_a_key_moves_a_deed_to_another_user(name: str) -> None:
    for outcome, status in (("ok", 200), ("denied", 403), ("begun", None)):
        decision = DECISION._replace(key=name, user="mallory", outcome=outcome, status=status)
        fields = parse_line(hadoop(decision, writes_begun=True).encode())
        assert fields is not None
        assert (fields["user"], fields["op"], fields["outcome"]) == ("mallory", "GENERATE_EEK", outcome)
