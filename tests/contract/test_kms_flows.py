"""Flow rules over the wire: what one session may open after what, in every worker, over restarts and by token."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from flow_kms import (
    ENFORCE,
    SHADOW,
    ZONES,
    Eek,
    force,
    make_keys,
    new_eek,
    new_eeks,
    old_eek,
    open_eek,
    policy,
    publish,
    records,
    refusal,
    serving,
)
from http_serving import Answer
from kdc import Kdc
from kerberos_kms import serving_kerberos
from kms_serving import DEADLINE_S, OPEN_ACLS, KmsPlace, call, json_of, remote_exception_of
from sandboxes import run_ringfence
from transit_custody import CustodyKms, create
from vault_clusters import VaultCluster

from ringfence_agent.flow.place import flows_path


def test_without_flows_nothing_is_labelled_and_no_memory_is_made(tmp_path: Path, workers: int) -> None:
    with serving(tmp_path, workers) as kms:
        assert publish(kms, policy(SHADOW, None)).status == 200
        for client in kms.every_worker():
            for zone in ZONES:
                assert open_eek(client, new_eek(client, zone)).status == 200
        assert not any("opened" in line or "flow" in line for line in records(kms))
        assert json_of(call(client, "GET", "/ringfence/v1/status"))["flows"] is None
        assert not flows_path(kms.place.store).exists()


@pytest.mark.parametrize("order", ["source first", "target first"])
def test_a_copy_that_no_flow_allows_is_refused_in_either_order_by_any_worker(
    tmp_path: Path, workers: int, order: str
) -> None:
    with serving(tmp_path, workers) as kms:
        force(kms, ENFORCE)
        clients = kms.every_worker()
        for number, first in enumerate(clients):
            for second in clients:
                user = ("alice", "bob")[number % 2]
                source, target = old_eek(first, "pii"), new_eek(first, "masked")
                one, other = (source, target) if order == "source first" else (target, source)
                granted = open_eek(first, one, user)
                assert granted.status == 200, granted.body
                message = refusal(open_eek(second, other, user))
                assert "/data/pii to /data/masked" in message
                assert "rule flow_refused" in message
                assert f"ringfence policy decide-move --user {user} /data/pii/FILE /data/masked" in message


def test_what_was_granted_stays_granted_and_reads_of_two_zones_are_no_copy(tmp_path: Path, workers: int) -> None:
    with serving(tmp_path, workers) as kms:
        force(kms, ENFORCE)
        clients = kms.every_worker()
        old = {zone: old_eek(clients[0], zone) for zone in ZONES}
        for client in clients:
            for _ in range(2):
                for zone in ZONES:
                    assert open_eek(client, old[zone]).status == 200
        assert {line["opened"] for line in records(kms)} == {"read"}
        assert "alice" in refusal(open_eek(clients[-1], new_eek(clients[0], "pii")))
        for client in clients:
            assert open_eek(client, old["pii"]).status == 200


def test_an_edge_allows_its_users_and_its_direction(tmp_path: Path, workers: int) -> None:
    with serving(tmp_path, workers) as kms:
        force(kms, ENFORCE, [("pii", "masked", ["alice"])])
        client = kms.one_worker()
        for eek in (old_eek(client, "pii"), new_eek(client, "masked")):
            assert open_eek(client, eek, "alice").status == 200
        assert open_eek(client, old_eek(client, "pii"), "bob").status == 200
        refusal(open_eek(client, new_eek(client, "masked"), "bob"))
        assert open_eek(client, old_eek(client, "masked"), "bob").status == 200
        assert "/data/masked to /data/pii" in refusal(open_eek(client, new_eek(client, "pii"), "bob"))


def test_shadow_mode_refuses_nobody_and_records_what_it_would(tmp_path: Path, workers: int) -> None:
    with serving(tmp_path, workers) as kms:
        force(kms, SHADOW)
        clients = kms.every_worker()
        source, target = old_eek(clients[0], "pii"), new_eek(clients[0], "masked")
        for client in clients:
            assert open_eek(client, source).status == 200
        for client in clients:
            assert open_eek(client, target).status == 200
        found = [(line["opened"], line.get("flow")) for line in records(kms)]
        would = {"from": "/data/pii", "to": "/data/masked", "mode": "shadow"}
        assert found == [("read", None)] * len(clients) + [("write", would)] * len(clients)
        status = json_of(call(client, "GET", "/ringfence/v1/status"))
        assert status["flows"] == {"mode": "shadow", "refuses": False, "edges": 0}


def test_claimed_names_are_refused_nothing_unless_that_is_written_out(tmp_path: Path) -> None:
    with serving(tmp_path, 1) as kms:
        force(kms, {"mode": "enforce"})
        client = kms.one_worker()
        assert open_eek(client, old_eek(client, "pii")).status == 200
        assert open_eek(client, new_eek(client, "masked")).status == 200
        assert records(kms)[-1]["flow"]["mode"] == "shadow"
        assert json_of(call(client, "GET", "/ringfence/v1/status"))["flows"]["refuses"] is False
        assert publish(kms, policy(ENFORCE)).status == 200
        assert json_of(call(client, "GET", "/ringfence/v1/status"))["flows"]["refuses"] is True
        refusal(open_eek(client, new_eek(client, "masked")))


def test_flows_are_enforced_only_after_a_revision_in_shadow_mode(tmp_path: Path) -> None:
    with serving(tmp_path, 1) as kms:
        edge = [("pii", "masked", ["alice"])]
        for before, document, status in (
            (None, policy(ENFORCE), 400),
            (policy(SHADOW, edge), policy(ENFORCE), 400),
            (policy(SHADOW), policy(ENFORCE), 200),
            (None, policy(ENFORCE, edge), 200),  # was in shadow mode before
            (None, policy(ENFORCE, [("pii", "masked", ["alice", "bob"])]), 400),
        ):
            if before is not None:
                assert publish(kms, before).status == 200
            answer = publish(kms, document)
            assert answer.status == status, answer.body
            assert status == 200 or "never published in mode shadow" in answer.body.decode()


def test_a_refusal_says_who_what_and_by_which_rule_in_the_audit_log(tmp_path: Path) -> None:
    with serving(tmp_path, 1) as kms:
        force(kms, ENFORCE)
        client = kms.one_worker()
        open_eek(client, old_eek(client, "pii"))
        refusal(open_eek(client, new_eek(client, "masked")))
        granted, refused = records(kms)
        assert (granted["outcome"], granted["opened"], granted["rule"]) == ("ok", "read", "policy:2")
        assert (refused["outcome"], refused["opened"], refused["rule"]) == ("denied", "write", "policy:2:flows")
        assert refused["flow"] == {"from": "/data/pii", "to": "/data/masked", "mode": "enforce"}
        metrics = call(client, "GET", "/metrics", user=None).body.decode()
        assert "ringfence_kms_flow_refusals_total 1.0" in metrics
        assert "ringfence_kms_flow_shadow_refusals_total 0.0" in metrics


def test_labels_and_what_was_opened_survive_a_restart_and_a_killed_worker(tmp_path: Path) -> None:
    place = KmsPlace.make(tmp_path, OPEN_ACLS)
    with place.serving(2) as kms:
        client = kms.one_worker()
        make_keys(client)
        force(kms, ENFORCE)
        source, target = old_eek(client, "pii"), new_eek(client, "masked")
        assert open_eek(client, source).status == 200
    with place.serving(2) as kms:
        refusal(open_eek(kms.one_worker(), target))
        assert open_eek(kms.one_worker(), source, "bob").status == 200
        assert records(kms, "bob")[-1]["opened"] == "read"
        assert open_eek(kms.one_worker(), target, "bob").status == 403
        assert records(kms, "bob")[-1]["opened"] == "write"


def test_a_token_is_a_session_wherever_it_is_used_and_another_token_another(tmp_path: Path, workers: int) -> None:
    with serving(tmp_path, workers) as kms:
        force(kms, ENFORCE)
        clients = kms.every_worker()

        def new_token() -> dict[str, str]:
            query = {"op": "GETDELEGATIONTOKEN", "renewer": "yarn"}
            token = json_of(call(clients[0], "GET", "/kms/v1/", user="alice", query=query))
            return {"X-Hadoop-Delegation-Token": token["Token"]["urlString"]}

        one, other = new_token(), new_token()
        source, target = old_eek(clients[0], "pii"), new_eek(clients[0], "masked")
        assert open_eek(clients[0], source, user=None, headers=one).status == 200
        refusal(open_eek(clients[-1], target, user=None, headers=one))
        assert open_eek(clients[-1], target, user=None, headers=other).status == 200
        refusal(open_eek(clients[0], source, user=None, headers=other))
        tokens = [line["token"] for line in records(kms)]
        assert tokens[0] == tokens[1] != tokens[2] == tokens[3]


def test_edeks_of_before_the_flows_count_as_read_and_write_and_say_so(tmp_path: Path) -> None:
    with serving(tmp_path, 1) as kms:
        client = kms.one_worker()
        before = {zone: new_eek(client, zone) for zone in ZONES}
        # As another KMS draws it.
        foreign = {**before["third"], "iv": "AAAAAAAAAAAAAAAAAAAAAA"}
        force(kms, ENFORCE)
        assert open_eek(client, before["pii"]).status == 200
        refusal(open_eek(client, old_eek(client, "masked")))
        refusal(open_eek(client, new_eek(client, "masked")))
        refusal(open_eek(client, before["masked"]))
        refusal(open_eek(client, foreign))
        assert [line["opened"] for line in records(kms)] == [
            "read or write", "read", "write", "read or write", "read or write",
        ]  # fmt: skip
        # Opened once, it is known to be a read; and the session is one that may have written.
        assert open_eek(client, before["pii"], "bob").status == 200
        assert open_eek(client, before["masked"], "bob").status == 403


def test_many_openings_at_once_of_many_sessions_are_each_decided_once_and_rightly(tmp_path: Path, workers: int) -> None:
    with serving(tmp_path, workers) as kms:
        force(kms, ENFORCE)
        clients = kms.every_worker()
        client = clients[0]
        source = old_eek(client, "pii")
        targets = new_eeks(client, "masked", 20)
        users = [f"user{number}" for number in range(20)]
        widened = policy(ENFORCE)
        for zone in widened["zones"]:
            zone["readers"] = ["*"]
        assert publish(kms, widened).status == 200
        outcomes: dict[str, list[int]] = {user: [] for user in users}

        def run(eeks: Sequence[Eek]) -> None:
            with kms.connect() as mine:
                for user, eek in zip(users, eeks, strict=True):
                    outcomes[user].append(open_eek(mine, eek, user).status)

        threads = [threading.Thread(target=run, args=(eeks,)) for eeks in ([source] * 20, targets)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # Whichever half came first was granted, and the other one was not.
        assert {user: sorted(found) for user, found in outcomes.items()} == {user: [200, 403] for user in users}


def test_a_memory_that_cannot_be_used_refuses_where_rules_are_enforced_and_is_told_in_shadow(tmp_path: Path) -> None:
    place = KmsPlace.make(tmp_path, OPEN_ACLS)
    with place.serving(1) as kms:
        make_keys(kms.one_worker())
        assert publish(kms, policy(SHADOW)).status == 200
    for file in tmp_path.glob("k.db.flows*"):
        file.unlink()
    flows_path(place.store).mkdir()
    with place.serving(1) as kms:
        client = kms.one_worker()
        assert open_eek(client, new_eek(client, "pii")).status == 200
        assert records(kms)[-1]["opened"] == "undecided"
        assert publish(kms, policy(ENFORCE)).status == 503  # in force, it would refuse everybody
        flows_path(place.store).rmdir()
        time.sleep(1.1)
        assert publish(kms, policy(ENFORCE)).status == 200
    for file in tmp_path.glob("k.db.flows*"):
        file.unlink()
    flows_path(place.store).mkdir()
    with place.serving(1) as kms:
        client = kms.one_worker()
        status, java_class, message = remote_exception_of(open_eek(client, new_eek(client, "pii")))
        assert (status, java_class) == (503, "org.apache.hadoop.ipc.RetriableException")
        assert "flow rules are enforced" in message
        flows_path(place.store).rmdir()
        deadline = time.monotonic() + DEADLINE_S
        while open_eek(client, new_eek(client, "pii")).status != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert records(kms)[-1]["opened"] in ("write", "read or write")


def test_who_proved_their_name_is_refused_without_more_and_doas_is_a_session_of_its_own(
    tmp_path: Path, kdc: Kdc
) -> None:
    hive = {"hadoop.kms.proxyuser.hive.users": "*", "hadoop.kms.proxyuser.hive.hosts": "*"}
    with serving_kerberos(tmp_path, kdc, site=hive) as kerberos:
        for zone in ZONES:
            assert kerberos.ask("POST", "/kms/v1/keys", {"name": zone, "length": 256}, user="hdfs").status == 201
        force(kerberos.kms, {"mode": "enforce"})

        def new(zone: str) -> Eek:
            (eek,) = json_of(kerberos.ask("GET", f"/kms/v1/key/{zone}/_eek", query={"eek_op": "generate"}, user="hdfs"))
            return {"name": zone, "iv": eek["iv"], "material": eek["encryptedKeyVersion"]["material"]}

        def open_as(user: str, eek: Eek, **query: str) -> Answer:
            path = f"/kms/v1/keyversion/{eek['name']}%400/_eek"
            return kerberos.ask("POST", path, eek, query={"eek_op": "decrypt", **query}, user=user)

        old = new("pii")
        assert open_as("masker", old).status == 200
        assert open_as("alice", old).status == 200
        assert "may not bring data from /data/pii to /data/masked" in refusal(open_as("alice", new("masked")))
        # The same user through a service, and that service for another: three sessions.
        assert open_as("hive", new("masked"), doAs="alice").status == 200
        assert open_as("hive", old, doAs="bob").status == 200
        refusal(open_as("hive", new("masked"), doAs="bob"))
        lines = [line for line in kerberos.place.audit_lines() if line.get("opened")]
        assert {line["identity"] for line in lines} == {"kerberos"}


def test_keys_that_vault_holds_obey_flow_rules_as_well(tmp_path: Path, vault_cluster_on_double: VaultCluster) -> None:
    with CustodyKms.make(tmp_path, vault_cluster_on_double).serving() as kms:
        client = kms.one_worker()
        for zone in ZONES:
            assert create(client, zone).status == 201
        document = policy(SHADOW)
        for zone in document["zones"]:
            zone["custody"] = "transit"
        for mode in (SHADOW, ENFORCE):
            assert publish(kms, {**document, "flow_control": mode}).status == 200
        old = old_eek(client, "pii")
        assert open_eek(client, old).status == 200
        refusal(open_eek(client, new_eek(client, "masked")))
        assert open_eek(client, old).status == 200
        assert [line["opened"] for line in records(kms)] == ["read", "write", "read"]


def test_an_edge_for_a_group_is_its_members(tmp_path: Path) -> None:
    place = KmsPlace.make(tmp_path, OPEN_ACLS, core={"hadoop.user.group.static.mapping.overrides": "alice=movers;bob="})
    with place.serving(1) as kms:
        client = kms.one_worker()
        make_keys(client)
        document = policy(SHADOW, [("pii", "masked", ["@movers"])])
        for zone in document["zones"]:
            zone["readers"], zone["writers"] = ["bob", "@movers"], ["bob", "masker", "@movers"]
        for mode in (SHADOW, ENFORCE):
            answer = publish(kms, {**document, "flow_control": mode})
            assert answer.status == 200, answer.body
        for user, status in (("alice", 200), ("bob", 403)):
            assert open_eek(client, old_eek(client, "pii"), user).status == 200
            assert open_eek(client, new_eek(client, "masked"), user).status == status


def test_kms_status_shows_what_the_rules_do(tmp_path: Path) -> None:
    with serving(tmp_path, 1) as kms:
        client = kms.one_worker()

        def shown() -> list[str]:
            done = run_ringfence(["kms", "status", "--admin-socket", kms.place.admin_socket])
            assert done.returncode == 0, done.stderr
            return [line.removeprefix("flows").strip() for line in done.stdout.splitlines() if line.startswith("flows")]

        assert shown() == []
        force(kms, SHADOW, [("pii", "third", ["alice"])])
        for eek in (old_eek(client, "pii"), new_eek(client, "masked")):
            assert open_eek(client, eek).status == 200
        assert shown() == ["recorded only, 1 allowed flow: 1 opening would have been refused"]
        force(kms, {"mode": "enforce"}, [("pii", "third", ["alice"])])
        (line,) = shown()
        assert line.startswith("RECORDED ONLY, for callers only claim their names, 1 allowed flow:")
        force(kms, ENFORCE)
        refusal(open_eek(client, new_eek(client, "masked")))
        assert shown() == ["enforced, 0 allowed flows: 1 opening refused"]
