"""The real server while its clock on the wall is set, a day ahead and an hour back, under remote protectors.

What has to pass (the revocation bound, how long keys stay in memory, a protector that is away) goes by a clock that
nobody sets. What is dated (sessions, delegation tokens) goes by the one on the wall, and is good again when that is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from databases import running_postgresql
from http_serving import Answer, RawClient
from kms_serving import RunningKms, call, json_of
from protected_kms import Protected, create, decrypt, generate
from protector_places import RemotePlace
from stepped_clock import SteppedPlace

from ringfence_agent.keystore.open import open_keystore

# Far above the bounds below, far below an hour.
DEADLINE_S = 20.0
HELD = {"name": "transit", "length": 256, "attributes": {"ringfence.custody": "transit"}}
STEPS_S = (86_400, -3_600, 0)
NAMES = "/kms/v1/keys/names"


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["vault-transit", "aws-kms"])
def test_what_has_to_pass_goes_by_a_clock_that_nobody_sets(
    protected: Protected, name: str, find_remote: Callable[[str], RemotePlace]
) -> None:
    place = protected.place = SteppedPlace(protected.place.directory)
    protected.blocks |= {"key_memory": "1s", "revocation_bound": "1s"}
    remote = find_remote(name)
    stop, start = remote.stop, remote.start
    assert stop is not None and start is not None
    with protected.serving(name, init=True) as kms:
        client = kms.one_worker()
        assert create(client, "envelope").status == 201
        assert call(client, "POST", "/kms/v1/keys", HELD).status == 201
        eeks = [generate(client, key) for key in ("envelope", "transit")]
        deks = [json_of(decrypt(client, eek)) for eek in eeks]
        for step_s in STEPS_S:
            place.set_ahead(step_s)
            assert [json_of(decrypt(client, eek)) for eek in eeks] == deks
            doomed = f"doomed-{step_s}"
            assert create(client, doomed).status == 201
            assert call(client, "POST", "/kms/v1/key/transit", {}).status == 200
            eek = generate(client, doomed)
            assert decrypt(client, eek).status == 200
            with closing(open_keystore(f"sqlite:///{place.store}", None, False, protectors=remote.protectors)) as store:
                store.delete_key(doomed)
            until(lambda eek=eek: decrypt(client, eek).status not in (200, 503), "the revocation bound")  # type: ignore[misc]
            stop()
            until(lambda: decrypt(client, eeks[0]).status == 503, "that keys leave the memory")
            start()
            until(lambda: [decrypt(client, eek).status for eek in eeks] == [200, 200], "that the protector is back")
            assert call(client, "GET", "/health/ready", user=None).status == 200


@pytest.mark.long
def test_a_clock_set_back_prolongs_no_belief_in_a_store_that_is_away(tmp_path: Path) -> None:
    place = SteppedPlace.make(tmp_path)
    settings = {"audit": {"directory": str(place.audit_directory)}, "admin": {"socket": str(place.admin_socket)}}
    (tmp_path / "kms.yaml").write_text(json.dumps({**settings, "revocation_bound": "5s"}))
    with running_postgresql() as database:
        options = ["--config", str(tmp_path / "kms.yaml"), "--keystore", database.new_database(), "--init"]
        options += ["--root-key", str(tmp_path / "root.key"), "--keystore-password-file", str(database.password_file)]
        with place.serving(1, *options) as kms:
            client = kms.one_worker()
            assert create(client, "k").status == 201
            eek = generate(client, "k")
            assert decrypt(client, eek).status == 200
            database.stop()
            place.set_ahead(-3_600)
            until(lambda: decrypt(client, eek).status == 503, "the revocation bound")
            database.start()
            until(lambda: decrypt(client, eek).status == 200, "that the store is back")


def by(client: RawClient, cookie: str = "", token: str = "") -> int:
    headers = {"Cookie": cookie} if cookie else {"X-Hadoop-Delegation-Token": token}
    return call(client, "GET", NAMES, user=None, headers=headers).status


def cookie_of(answer: Answer) -> str:
    assert answer.status == 200
    return (answer.header("Set-Cookie") or "").partition(";")[0]


def new_session(kms: RunningKms) -> str:
    """Of a user who has none in the server's memory."""
    with kms.connect() as client:
        return cookie_of(call(client, "OPTIONS", "/kms/v1/", user=f"user{time.monotonic_ns()}"))


def test_sessions_and_tokens_are_good_again_when_the_clock_is_right(protected: Protected) -> None:
    place = protected.place = SteppedPlace(protected.place.directory)
    with protected.serving("file") as kms:
        client = kms.one_worker()
        cookie = new_session(kms)
        issued = call(client, "GET", "/kms/v1/", query={"op": "GETDELEGATIONTOKEN", "renewer": "hdfs"})
        token = json_of(issued)["Token"]["urlString"]
        assert (by(client, cookie), by(client, token=token)) == (200, 200)
        place.set_ahead(STEPS_S[0])
        until(lambda: by(client, token=token) == 403, "the token's end")
        assert by(client, cookie) == 401
        from_ahead = new_session(kms)
        assert by(client, from_ahead) == 200
        for step_s in STEPS_S[1:]:
            place.set_ahead(step_s)
            assert (by(client, cookie), by(client, token=token)) == (200, 200)
            assert by(client, from_ahead) == 401, "no session for a day and ten hours"
            assert by(client, new_session(kms)) == 200
