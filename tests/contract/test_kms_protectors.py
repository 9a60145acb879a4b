"""The real server with its keys under remote protectors: what it serves while one is away, and how a store moves."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable

import pytest
from kms_serving import call, json_of, remote_exception_of
from protected_kms import Protected, create, decrypt, generate
from protector_places import RemotePlace

DEADLINE_S = 20.0
RETRIABLE = "org.apache.hadoop.ipc.RetriableException"


@pytest.mark.parametrize("name", ["vault-transit", "aws-kms"])
def test_a_store_that_a_remote_protector_opens_alone_is_served_and_survives_its_absence(
    protected: Protected, name: str, find_remote: Callable[[str], RemotePlace]
) -> None:
    away = find_remote(name)
    assert away.stop is not None and away.start is not None
    with protected.serving(name, init=True) as kms:
        client = kms.one_worker()
        for key in ("warm", "cold"):
            assert create(client, key).status == 201
        warm, cold = generate(client, "warm"), generate(client, "cold")
        assert call(client, "POST", "/kms/v1/key/warm", {}).status == 200
        first = json_of(decrypt(client, warm))
    assert not list(protected.place.directory.glob("*root-key*"))
    with protected.serving(name) as kms:
        client = kms.one_worker()
        assert json_of(decrypt(client, warm)) == first
        away.stop()
        assert json_of(decrypt(client, warm)) == first
        assert call(client, "GET", "/kms/v1/key/cold/_metadata").status == 200
        for refused in (decrypt(client, cold), create(client, "new"), call(client, "POST", "/kms/v1/key/cold", {})):
            assert remote_exception_of(refused)[:2] == (503, RETRIABLE)
        assert call(client, "GET", "/health/ready", user=None).status == 503
        away.start()
        deadline = time.monotonic() + DEADLINE_S
        while decrypt(client, cold).status != 200:
            assert time.monotonic() < deadline
        assert create(client, "new").status == 201
        eeks = [generate(client, "warm"), warm]
        assert [eek[0] for eek in eeks] == ["warm@1", "warm@0"]
        assert {decrypt(client, eek).status for eek in eeks} == {200}


def test_a_store_whose_keys_are_under_several_protectors_is_degraded_while_one_is_away(
    protected: Protected, find_remote: Callable[[str], RemotePlace]
) -> None:
    vault, aws = find_remote("vault-transit"), find_remote("aws-kms")
    assert vault.stop and vault.start and aws.stop and aws.start
    protected.blocks["key_memory"] = "1s"
    with protected.serving("file", "vault-transit", "aws-kms") as kms:
        client = kms.one_worker()
        assert create(client, "by-file").status == 201
        for protector in ("vault-transit", "aws-kms"):
            protected.run("protect", "--with", protector)
            assert create(client, f"by-{protector}").status == 201
        eeks = {name: generate(client, f"by-{name}") for name in ("file", "vault-transit", "aws-kms")}
        assert "slot 1 (file" in protected.run("protect", "--with", "file")
        assert create(client, "by-file-again").status == 201
        assert "slot 3 (aws-kms" in protected.run("protect", "--with", "aws-kms")
        slots = json.loads(protected.run("slots", "--json"))["slots"]
        assert [(slot["slot"], slot["versions"], slot["active"]) for slot in slots] == [
            (1, 2, False),
            (2, 1, False),
            (3, 1, True),
        ]
        assert "goes with --with file" in protected.run(
            *("protect", "--with", "aws-kms", "--new-root-key", "/nonexistent/key"), exit_code=2
        )

        def until(**statuses: int) -> None:
            deadline = time.monotonic() + DEADLINE_S
            wanted = {"file": 200, "vault-transit": statuses["vault"], "aws-kms": statuses["aws"]}
            while (found := {name: decrypt(client, eek).status for name, eek in eeks.items()}) != wanted:
                assert time.monotonic() < deadline, found

        def ready(status: int, **expected: bool) -> None:
            deadline = time.monotonic() + DEADLINE_S
            while True:
                answer = call(client, "GET", "/health/ready", user=None)
                if (answer.status, json_of(answer)) == (status, expected):
                    return
                assert time.monotonic() < deadline, answer

        ready(200, ready=True)
        vault.stop()
        until(vault=503, aws=200)
        ready(200, ready=True, degraded=True)
        with kms.connect_admin() as admin:
            told = json_of(call(admin, "GET", "/ringfence/v1/status", user=None))["server"]
        assert (told["ready"], told["degraded"], len(told["problems"])) == (True, True, 1)
        assert create(client, "new").status == 201  # the active slot's protector is there
        aws.stop()
        until(vault=503, aws=503)
        ready(200, ready=True, degraded=True)
        assert remote_exception_of(create(client, "newer"))[:2] == (503, RETRIABLE)
        for place in (vault, aws):
            assert place.start
            place.start()
        until(vault=200, aws=200)
        ready(200, ready=True)


def test_a_protector_that_the_running_server_lacks_is_not_made_active(protected: Protected) -> None:
    with protected.serving("file") as kms:
        client = kms.one_worker()
        assert create(client, "k").status == 201
        eek = generate(client, "k")
        protected.name("file", "vault-transit")
        refused = protected.run("protect", "--with", "vault-transit", exit_code=2)
        assert "runs without the protector vault-transit" in refused
        assert "restart it" in refused
        assert decrypt(client, eek).status == 200
        assert create(client, "another").status == 201
    assert "slot 2 (vault-transit" in protected.run("protect", "--with", "vault-transit")  # nobody runs


@pytest.mark.long
def test_a_store_moves_between_three_protectors_while_it_is_served(protected: Protected) -> None:
    everyone = ("file", "vault-transit", "aws-kms")
    with protected.serving(*everyone, workers=2) as kms:
        clients = kms.every_worker()
        for number in range(6):
            assert create(clients[0], f"k{number}").status == 201
        eeks = [generate(clients[1], f"k{number}") for number in range(6)]
        answers = [json_of(decrypt(clients[0], eek)) for eek in eeks]

        def check() -> None:
            for client in clients:
                assert [json_of(decrypt(client, eek)) for eek in eeks] == answers

        for slot, protector in ((2, "vault-transit"), (3, "aws-kms")):
            assert f"new keys are sealed by slot {slot} ({protector}" in protected.run("protect", "--with", protector)
            check()
            assert call(clients[0], "POST", "/kms/v1/key/k0", {}).status == 200
            check()
            assert "moved; all are sealed by" in protected.run("rewrap")
            check()
            assert f"slot {slot - 1} " in protected.run("unprotect", str(slot - 1))
            protected.name(*everyone[slot - 1 :])
            check()
        slots = json.loads(protected.run("slots", "--json"))["slots"]
        assert [(slot["slot"], slot["protector"], slot["active"], slot["versions"]) for slot in slots] == [
            (3, "aws-kms", True, 8)
        ]
        new_root_key = protected.place.directory / "new.root-key"
        protected.run("protect", "--with", "file", "--new-root-key", str(new_root_key))
        assert "0 versions" not in protected.run("rewrap")
        check()
        assert "stop every key server" in protected.run("rotate-root", exit_code=2)
    protected.run("rotate-root", "--root-key", str(new_root_key), exit_code=2)  # kms.yaml does not name `file`
    protected.name("file", "aws-kms")
    assert "sealed for 2 slots" in protected.run("rotate-root", "--root-key", str(new_root_key))
    protected.run("unprotect", "3", "--root-key", str(new_root_key))
    protected.name("file")
    with protected.place.serving(1, "--config", str(protected.config), "--root-key", str(new_root_key)) as kms:
        client = kms.one_worker()
        assert [json_of(decrypt(client, eek)) for eek in eeks] == answers


def test_a_server_that_is_not_set_up_for_the_active_slot_says_which_setting_it_lacks(protected: Protected) -> None:
    with protected.serving("file") as kms:
        client = kms.one_worker()
        assert create(client, "k").status == 201
        eek = generate(client, "k")
        # As from another machine: the command cannot ask this server.
        protected.blocks["admin"] = {"socket": str(protected.place.directory / "elsewhere.sock")}
        protected.name("file")
        protected.run("protect", "--with", "vault-transit")
        assert decrypt(client, eek).status == 200
        status, kind, message = remote_exception_of(create(client, "new"))
        assert (status, kind) == (503, RETRIABLE)
        assert "slot 2 (vault-transit" in message


def test_no_key_memory_and_a_remote_protector_do_not_go_together(protected: Protected) -> None:
    protected.blocks["key_memory"] = "0s"
    protected.name("vault-transit")
    done = subprocess.run(
        [*protected.place.command("--init"), "--config", str(protected.config)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "key_memory is 0" in done.stderr and "vault-transit" in done.stderr
