"""Two instances on one database server: a session and a token of one are good at the other, until they end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from databases import DatabaseServer
from http_serving import Answer
from kms_instances import store_access
from kms_serving import OPEN_ACLS, KmsPlace, RunningKms, call, json_of
from store_places import VAULT_KV, VaultStores, shared_stores

NAMES = "/kms/v1/keys/names"
BOUND_S = 2.0


@pytest.fixture(params=["postgresql", "mariadb", *VAULT_KV])
def server(request: pytest.FixtureRequest) -> DatabaseServer | VaultStores:
    return shared_stores(request, request.param)


@pytest.fixture
def instances(server: DatabaseServer | VaultStores, tmp_path: Path) -> Iterator[tuple[RunningKms, RunningKms]]:
    uri, access, settings = store_access(server, server.new_database(), server.port)
    root_key = tmp_path / "root.key"
    with ExitStack() as stack:
        running = []
        for name in ("one", "other"):
            directory = tmp_path / name
            directory.mkdir()
            place = KmsPlace.make(directory, acls=OPEN_ACLS)
            config = directory / "kms.yaml"
            config.write_text(
                f"revocation_bound: {BOUND_S:g}s\nadmin: {{socket: {directory}/s}}\n"
                f"audit: {{directory: {place.audit_directory}}}\n{settings}"
            )
            options = (
                *("--config", str(config), "--keystore", uri, "--root-key", str(root_key)),
                *(*access, *(["--init"] if name == "one" else [])),
            )
            running.append(stack.enter_context(place.serving(1, *options)))
        yield running[0], running[1]


def ask(kms: RunningKms, method: str, path: str, **more: object) -> Answer:
    with kms.connect() as client:
        return call(client, method, path, **{"user": None, **more})  # type: ignore[arg-type]


def test_sessions_and_tokens_are_shared_and_a_cancel_reaches_everywhere_within_the_bound(
    instances: tuple[RunningKms, RunningKms],
) -> None:
    one, other = instances
    cookie = (ask(one, "OPTIONS", "/kms/v1/", user="alice").header("Set-Cookie") or "").partition(";")[0]
    for kms in (one, other):
        assert ask(kms, "GET", NAMES, headers={"Cookie": cookie}).status == 200
    answer = ask(one, "GET", "/kms/v1/", user="alice", query={"op": "GETDELEGATIONTOKEN", "renewer": "bob"})
    token = json_of(answer)["Token"]["urlString"]
    use = {"X-Hadoop-Delegation-Token": token}
    dates = []
    for kms in (other, one, other):
        assert ask(kms, "GET", NAMES, headers=use).status == 200
        renewed = ask(kms, "PUT", "/kms/v1/", user="bob", query={"op": "RENEWDELEGATIONTOKEN", "token": token})
        dates.append(json_of(renewed)["long"])
    assert dates == sorted(set(dates))
    cancelled_s = time.monotonic()
    assert ask(other, "PUT", "/kms/v1/", query={"op": "CANCELDELEGATIONTOKEN", "token": token}).status == 200
    assert ask(other, "GET", NAMES, headers=use).status == 403
    while ask(one, "GET", NAMES, headers=use).status == 200:
        assert time.monotonic() < cancelled_s + BOUND_S, "a cancelled token was served past the revocation bound"
        time.sleep(0.02)
    refused = ask(one, "PUT", "/kms/v1/", user="bob", query={"op": "RENEWDELEGATIONTOKEN", "token": token})
    assert (refused.status, "Renewal request for unknown token" in refused.reason) == (403, True)
    # Numbers of tokens never meet, whoever issues them.
    tokens = {
        json_of(ask(kms, "GET", "/kms/v1/", user="alice", query={"op": "GETDELEGATIONTOKEN"}))["Token"]["urlString"]
        for kms in (one, other) * 3
    }
    assert len(tokens) == 6
    for each in tokens:
        for kms in (one, other):
            assert ask(kms, "GET", NAMES, headers={"X-Hadoop-Delegation-Token": each}).status == 200
