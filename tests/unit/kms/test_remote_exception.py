from __future__ import annotations

import inspect
import json
from collections.abc import Iterator

import pytest

from ringfence_agent.kms import remote_exception
from ringfence_zones import errors
from ringfence_zones.errors import PolicyError, RingfenceError
from ringfence_zones.findings import Finding, Rule, Severity


def every_error() -> Iterator[type[RingfenceError]]:
    waiting = [RingfenceError]
    while waiting:
        kind = waiting.pop()
        if kind.__module__ == errors.__name__:
            yield kind
        waiting += kind.__subclasses__()


def instance(kind: type[RingfenceError]) -> RingfenceError:
    """One of the class, whatever its constructor takes: `message` is what the table reads."""
    error = kind.__new__(kind)
    RingfenceError.__init__(error, "first line\nsecond line")
    error.__dict__.update(findings=(), lease_name="agent", holder="one", left_s=1.5)
    return error


@pytest.mark.parametrize("kind", sorted(set(every_error()), key=str))
def test_every_error_of_the_tree_has_a_status_and_a_java_class(kind: type[RingfenceError]) -> None:
    status, java_class = remote_exception.status_and_class(instance(kind))
    assert status in (400, 401, 403, 404, 409, 500, 501, 503)
    assert java_class.startswith(("java.", "org.apache.hadoop."))
    if status != 401:
        body = json.loads(remote_exception.render(instance(kind)).body)["RemoteException"]
        assert body == {
            "message": "first line",
            "exception": java_class.rpartition(".")[2],
            "javaClassName": java_class,
        }


def test_the_walk_sees_the_whole_tree() -> None:
    defined = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, RingfenceError)}
    assert set(every_error()) == defined


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.AccessDeniedError("x"), (403, remote_exception.AUTHORIZATION)),
        (errors.InputError("x"), (400, remote_exception.ILLEGAL_ARGUMENT)),
        (errors.MalformedJsonError("x"), (500, remote_exception.IO)),
        (errors.KeyExistsError("k", "s"), (500, remote_exception.IO)),
        (errors.KeyNotFoundError("k"), (500, remote_exception.IO)),
        (errors.KeyVersionNotFoundError("k@0"), (400, remote_exception.ILLEGAL_ARGUMENT)),
        (errors.KeyMismatchError("k@0", None), (400, remote_exception.ILLEGAL_ARGUMENT)),
        (errors.RevisionConflictError(1, 2), (409, remote_exception.IO)),
        (errors.LeaseHeldError("agent", "one", 1.5), (409, remote_exception.IO)),
        (errors.GrantNotFoundError("g"), (404, remote_exception.NOT_FOUND)),
        (errors.StoreUnavailableError("x"), (503, remote_exception.RETRIABLE)),
        (errors.StoreTamperedError("x"), (500, remote_exception.IO)),
    ],
)
def test_the_table_says_what_hadoop_says(error: RingfenceError, expected: tuple[int, str]) -> None:
    assert remote_exception.status_and_class(error) == expected


def test_a_403_keeps_its_registered_reason() -> None:
    response = remote_exception.render(errors.AccessDeniedError("x"))
    assert response.head.rendered.startswith(b"HTTP/1.1 403 Forbidden\r\n")


def test_a_refused_policy_carries_its_findings() -> None:
    finding = Finding(severity=Severity.ERROR, rule=Rule.BAD_PATH, path="policy:1", message="m", hint="h")
    body = json.loads(remote_exception.render(PolicyError("policy has 1 problem", [finding])).body)
    assert body["RemoteException"]["message"] == "policy has 1 problem"
    assert body["findings"] == [finding.to_json()]


def test_what_the_http_core_refuses_is_in_the_dialect_too() -> None:
    assert b"RetriableException" in remote_exception.render_server_error(503, "busy").body
    assert b"java.io.IOException" in remote_exception.render_server_error(413, "too large").body


def test_a_lease_that_is_held_says_by_whom_and_how_long() -> None:
    body = json.loads(remote_exception.render(errors.LeaseHeldError("agent", "one", 1.5)).body)
    assert body["lease"] == {"name": "agent", "holder": "one", "left_s": 1.5}
    assert body["RemoteException"]["message"] == "lease agent is held by one for another 1.5 s at least"
