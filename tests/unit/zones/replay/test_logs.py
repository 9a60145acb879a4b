"""Lines of the three logs. Those of Hadoop's were written by its KMS and NameNode, but for the names in them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ringfence_zones.flow_labels import Kind
from ringfence_zones.replay.access import KmsAccess, LineParser, NameNodeAccess, Outcome, short_name
from ringfence_zones.replay.kms_log import KmsLog
from ringfence_zones.replay.log_time import LogClock
from ringfence_zones.replay.namenode_log import NameNodeLog
from ringfence_zones.replay.ringfence_log import RingfenceLog


def _kms(line: str, parser: LineParser | None = None) -> KmsAccess:
    access = (parser or KmsLog()).parse(line.encode() + b"\n")
    assert isinstance(access, KmsAccess)
    return access


def _namenode(line: str) -> NameNodeAccess:
    access = NameNodeLog().parse(line.replace("  ", "\t").encode() + b"\n")
    assert isinstance(access, NameNodeAccess)
    return access


# Hadoop's KMS


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            "OK[op=DECRYPT_EEK, key=k1, user=etl, accessCount=1, interval=0ms] ",
            ("DECRYPT_EEK", "k1", "etl", Outcome.DONE),
        ),
        (
            "OK[op=CREATE_KEY, key=k1, user=hdfs] UserProvidedMaterial:false Description:null",
            ("CREATE_KEY", "k1", "hdfs", Outcome.DONE),
        ),
        (
            "OK[op=REENCRYPT_EEK_BATCH, key=k1, user=hdfs] reencrypted 3 keys",
            ("REENCRYPT_EEK_BATCH", "k1", "hdfs", Outcome.DONE),
        ),
        ("OK[op=GET_KEYS, user=hdfs] ", ("GET_KEYS", None, "hdfs", Outcome.DONE)),
        ("UNAUTHORIZED[op=DECRYPT_EEK, key=k1, user=bob] ", ("DECRYPT_EEK", "k1", "bob", Outcome.FAILED)),
        (
            "ERROR[user=etl] Method:'POST' Exception:'no OK[op=DECRYPT_EEK, key=k, user=u]'",
            ("ERROR", None, "etl", Outcome.FAILED),
        ),
        (
            "UNAUTHENTICATED RemoteHost:127.0.0.1 Method:GET URL:http://localhost:9600/kms/v1/keys/names"
            " ErrorMsg:'Authentication required'",
            ("UNAUTHENTICATED", None, None, Outcome.FAILED),
        ),
        ("BEGUN[op=DELETE_KEY, key=k1, user=hdfs] ", ("DELETE_KEY", "k1", "hdfs", Outcome.OTHER)),
        # With log4j's level and category before the event, as some write it.
        ("INFO kms-audit: OK[op=GET_METADATA, key=k1, user=hdfs] ", ("GET_METADATA", "k1", "hdfs", Outcome.DONE)),
    ],
)
def test_events_of_hadoops_kms(event: str, expected: tuple[object, ...]) -> None:
    access = _kms(f"2026-11-22 08:57:41,157 {event}")
    assert (access.op, access.key, access.user, access.outcome) == expected
    assert (access.time, access.count, access.opened) == ("2026-11-22 08:57:41,157", 1, None)


def test_a_principal_is_taken_by_its_first_part_and_says_so() -> None:
    access = _kms("2026-11-22 08:57:41,157 OK[op=GET_METADATA, key=k, user=hdfs/nn.example.com@EXAMPLE.COM] ")
    assert (access.user, access.realm) == ("hdfs", True)
    assert short_name("etl") == ("etl", False)


def test_an_access_that_is_counted_again_at_the_end_of_its_window_is_counted_once() -> None:
    lines = [
        "2026-11-22 03:27:33,780 OK[op=DECRYPT_EEK, key=k0, user=etl, accessCount=1, interval=0ms] ",
        "2026-11-22 03:27:33,971 OK[op=DECRYPT_EEK, key=k1, user=etl, accessCount=1, interval=0ms] ",
        # The window's own line holds the first access, once more.
        "2026-11-22 03:27:43,811 OK[op=DECRYPT_EEK, key=k0, user=etl, accessCount=851, interval=10031ms] ",
        "2026-11-22 03:27:43,973 OK[op=DECRYPT_EEK, key=k1, user=etl, accessCount=1, interval=10002ms] ",
        # Further windows of the same event begin with nothing.
        "2026-11-22 03:27:53,830 OK[op=DECRYPT_EEK, key=k0, user=etl, accessCount=7, interval=20050ms] ",
        # A new event, and one of somebody else.
        "2026-11-22 03:30:00,000 OK[op=DECRYPT_EEK, key=k0, user=etl, accessCount=1, interval=0ms] ",
        "2026-11-22 03:30:10,000 OK[op=DECRYPT_EEK, key=k0, user=bob, accessCount=5, interval=10000ms] ",
    ]
    parser = KmsLog()
    assert [_kms(line, parser).count for line in lines] == [1, 1, 850, 0, 7, 1, 5]


def test_accesses_that_each_have_a_line_are_counted_one_by_one() -> None:
    line = "2026-11-22 03:27:33,78{} OK[op=DECRYPT_EEK, key=k0, user=etl, accessCount=1, interval=0ms] "
    parser = KmsLog()
    assert [_kms(line.format(at), parser).count for at in range(4)] == [1, 1, 1, 1]


def test_lines_that_are_none_of_the_kms() -> None:
    for line in (
        "2026-11-22 08:57:41,157 INFO KMS: all is OK here",
        "2026-11-22 08:57:41,157 OK[size=3]",
        "OK[op=GET_KEYS, user=hdfs] ",
        "2026-13-22 08:57:41,157 OK[op=GET_KEYS, user=hdfs] ",
        "",
    ):
        assert KmsLog().parse(line.encode()) is None, line


# The NameNode; two blanks stand for a tab.


def test_a_line_of_the_namenode() -> None:
    access = _namenode(
        "2026-11-22 08:57:45,879 allowed=true  ugi=etl (auth:SIMPLE)  ip=/127.0.0.1  cmd=create  src=/data/f"
        "  dst=null  perm=etl:supergroup:rw-r--r--  proto=rpc"
    )
    assert (access.op, access.src, access.dst, access.user) == ("create", "/data/f", None, "etl")
    assert (access.outcome, access.session, access.realm) == (Outcome.DONE, (("etl",), "/127.0.0.1"), False)


@pytest.mark.parametrize(
    ("command", "to_trash"),
    [("rename", False), ("rename (options=[TO_TRASH])", True), ("rename (options=[NONE, OVERWRITE])", False)],
)
def test_renames_of_every_kind(command: str, to_trash: bool) -> None:
    access = _namenode(
        "2026-11-22 16:57:04,768 INFO FSNamesystem.audit: allowed=true  ugi=etl (auth:SIMPLE)  ip=/127.0.0.1"
        f"  cmd={command}  src=/a/f._COPYING_  dst=/a/f  perm=etl:supergroup:rw-rw-rw-  proto=rpc"
    )
    assert (access.op, access.src, access.dst) == ("rename", "/a/f._COPYING_", "/a/f")
    assert access.to_trash is to_trash


def test_names_are_as_they_were_before_java_escaped_them() -> None:
    access = _namenode(
        "2026-11-22 14:44:01,523 allowed=true  ugi=etl (auth:SIMPLE)  ip=/127.0.0.1  cmd=rename"
        r"  src=/java/gr\u00F6\u00DFe \u03A9 file  dst=/java/tab\there \\ \"quoted\" \uD83D\uDE00"
        "  perm=null  proto=rpc"
    )
    assert access.src == "/java/größe Ω file"
    assert access.dst == '/java/tab\there \\ "quoted" 😀'


def test_sessions_are_tokens_else_users_with_who_acts_for_them_and_their_address() -> None:
    line = (
        "2026-11-22 09:03:11,492 allowed=true  ugi={}  ip=/10.0.0.7  cmd=open  src=/f  dst=null  perm=null{}  proto=rpc"
    )
    proxied = _namenode(line.format("joe (auth:PROXY) via oozie/host@R.TEST (auth:KERBEROS)", ""))
    assert (proxied.user, proxied.realm) == ("joe", False)
    assert proxied.session == (("joe", "oozie/host@R.TEST"), "/10.0.0.7")
    token = _namenode(line.format("etl@R.TEST (auth:TOKEN)", "  trackingId=a1b2"))
    assert (token.user, token.realm, token.session) == ("etl", True, "trackingId=a1b2")
    no_token = _namenode(line.format("etl (auth:KERBEROS)", "  trackingId=null"))
    assert no_token.session == (("etl",), "/10.0.0.7")


def test_what_a_permission_forbade_has_failed() -> None:
    access = _namenode(
        "2026-11-22 08:59:52,204 allowed=false  ugi=etl (auth:SIMPLE)  ip=/127.0.0.1  cmd=mkdirs  src=/gateway/x"
        "  dst=null  perm=null  proto=rpc"
    )
    assert access.outcome is Outcome.FAILED


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-22 08:57:45,879 INFO namenode.NameNode: STARTUP_MSG: allowed=true",
        "allowed=true  ugi=etl (auth:SIMPLE)  ip=/127.0.0.1  cmd=open  src=/f  dst=null  perm=null  proto=rpc",
        "2026-11-22 08:57:45,879 allowed=true  ugi=etl (auth:SIMPLE)  ip=/127.0.0.1  cmd=open  src=/f",
        "2026-11-22 08:57:45,879 allowed=maybe  ugi=e (auth:SIMPLE)  ip=/127.0.0.1  cmd=open  src=/f  dst=null",
    ],
)
def test_lines_that_are_none_of_the_namenode(line: str) -> None:
    assert NameNodeLog().parse(line.replace("  ", "\t").encode()) is None


# Ringfence's own


def _record(**fields: object) -> str:
    known: dict[str, object] = {
        "time": "2026-11-22T06:45:01.123456Z",
        "sequence": 17,
        "slot": 0,
        "op": "DECRYPT_EEK",
        "key": "pii",
        "version": 3,
        "user": "etl",
        "real_user": None,
        "identity": "claimed",
        "address": "10.0.0.7",
        "status": 200,
        "outcome": "ok",
        "rule": "policy:4",
        "revision": 4,
    }
    import json

    return json.dumps(known | fields)


def test_a_record_of_our_own() -> None:
    access = _kms(_record(real_user="livy"), RingfenceLog())
    assert (access.op, access.key, access.user, access.outcome) == ("DECRYPT_EEK", "pii", "etl", Outcome.DONE)
    assert (access.session, access.opened, access.count) == (("etl", "livy", "10.0.0.7"), None, 1)


@pytest.mark.parametrize(
    ("word", "opened"),
    [("read", Kind.READ), ("write", Kind.WRITE), ("read or write", Kind.BOTH), ("undecided", None)],
)
def test_what_an_opening_was_and_the_token_that_is_its_session(word: str, opened: Kind | None) -> None:
    access = _kms(_record(opened=word, token=42), RingfenceLog())
    assert (access.opened, access.session) == (opened, 42)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("ok", Outcome.DONE),
        ("denied", Outcome.FAILED),
        ("unauthenticated", Outcome.FAILED),
        ("failed", Outcome.FAILED),
        ("begun", Outcome.OTHER),
    ],
)
def test_outcomes_of_our_own(outcome: str, expected: Outcome) -> None:
    assert _kms(_record(outcome=outcome), RingfenceLog()).outcome is expected


@pytest.mark.parametrize(
    "line",
    [
        _record()[:-5],
        _record(outcome="what"),
        _record(time="yesterday"),
        _record(user=7),
        "{}",
        "[1]",
        '{"time": "2026-11-22T06:45:01Z", "op": "\ud800"}'.encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)
def test_lines_that_are_no_record(line: str) -> None:
    assert RingfenceLog().parse(line.encode("latin-1")) is None


def test_times_are_seconds_since_the_epoch_of_their_own_clock() -> None:
    clock = LogClock()
    assert clock.find("1970-01-02 00:00:01,500 x") == (86_401.5, "1970-01-02 00:00:01,500")
    assert clock.find("2026-11-22T06:45:01.123456Z") == (1795329901.123456, "2026-11-22T06:45:01.123456")
    assert clock.find("26/11/22 06:45:01 INFO x") == (1795329901.0, "26/11/22 06:45:01")
    assert clock.find("2026-02-30 00:00:00,000 x") is None
    assert clock.find(" 2026-11-22 06:45:01,123") is None


_LINES = (
    b'{"time":"2026-11-22T06:45:01.123456Z","op":"DECRYPT_EEK","key":"pii","user":"etl","outcome":"ok","token":7}',
    b"2026-11-22 03:27:33,780 OK[op=DECRYPT_EEK, key=k0, user=etl/h@R, accessCount=1, interval=0ms] ",
    b"2026-11-22 03:27:33,780 allowed=true\tugi=a (auth:PROXY) via b (auth:KERBEROS)\tip=/::1\tcmd=rename"
    b" (options=[NONE])\tsrc=/a\\u00F6\tdst=/b\\uD83D\\uDE00\tperm=null\ttrackingId=x\tproto=rpc",
)


@st.composite
def _mutated(draw: st.DrawFn) -> bytes:
    line = bytearray(draw(st.sampled_from(_LINES)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(line)))
        line[at : at + draw(st.integers(0, 4))] = draw(
            st.one_of(st.binary(max_size=4), st.sampled_from([b"\\u", b"9" * 5]))
        )
    return bytes(line)


@given(st.one_of(_mutated(), st.binary(max_size=60)))
@example(b'{"a":' + b"[" * 100_000)
@example(_LINES[1].replace(b"accessCount=1", b"accessCount=" + b"9" * 5000))
@example(_LINES[1].replace(b"2026", "\u0662\u0660\u0662\u0666".encode()))
@example(_LINES[2].replace(b"\\uDE00", b""))
def test_no_line_whatever_is_in_it_stops_a_replay(line: bytes) -> None:
    for parser in (RingfenceLog(), KmsLog(), NameNodeLog()):
        access = parser.parse(line)
        assert access is None or access.time_s < 10**12
