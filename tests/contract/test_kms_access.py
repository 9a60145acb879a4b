"""ACLs and the published policy over the wire, and how soon a change of either holds in every worker."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from http_serving import Answer, RawClient
from kms_serving import DEADLINE_S, OPEN_ACLS, KmsPlace, RunningKms, call, json_of, remote_exception_of, write_xml
from sandboxes import run_ringfence

AUTHORIZATION = "org.apache.hadoop.security.authorize.AuthorizationException"
GROUPS = {"hadoop.user.group.static.mapping.overrides": "analyst=pii,staff;etl=;hdfs=;admin=;nobody="}
POLICY: dict[str, Any] = {
    "version": 1,
    "cluster": "c",
    "zones": [
        {
            "path": "/data/pii",
            "key": "zone-pii",
            "owner": "etl",
            "mode": "0750",
            "readers": ["@pii"],
            "writers": ["loader"],
        },
        {"path": "/data/open", "key": "zone-open", "readers": ["*"], "writers": ["etl"]},
    ],
    "kms": {"namenode_users": ["hdfs"], "admins": ["admin"]},
}
EEK = {"iv": "AAAAAAAAAAAAAAAAAAAAAA==", "material": "AAAAAAAAAAAAAAAAAAAAAA=="}


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def denied(answer: Answer) -> str:
    status, java_class, message = remote_exception_of(answer)
    assert (status, answer.reason, java_class) == (403, "Forbidden", AUTHORIZATION)
    return message


def decrypt(client: RawClient, key: str, user: str) -> Answer:
    path = f"/kms/v1/keyversion/{key}%400/_eek"
    return call(client, "POST", path, {"name": key, **EEK}, user=user, query={"eek_op": "decrypt"})


def generate(client: RawClient, key: str, user: str) -> Answer:
    return call(client, "GET", f"/kms/v1/key/{key}/_eek", user=user, query={"eek_op": "generate"})


def publish(kms: RunningKms, expected: int, policy: object = POLICY) -> Answer:
    client = kms.connect_admin()
    try:
        body = {"expected_revision": expected, "policy": policy}
        return call(client, "PUT", "/ringfence/v1/policy", body, user=None)
    finally:
        client.socket.close()


@pytest.fixture
def kms_with(tmp_path: Path, workers: int) -> Iterator[Callable[[dict[str, str]], RunningKms]]:
    """Starts a server with the ACLs given."""
    with ExitStack() as stack:

        def start(acls: dict[str, str]) -> RunningKms:
            place = KmsPlace.make(tmp_path, acls, core=GROUPS)
            return stack.enter_context(place.serving(workers))

        yield start


Start = Callable[[dict[str, str]], RunningKms]


def test_without_acls_operations_are_open_and_keys_are_closed(kms_with: Start) -> None:
    kms = kms_with({})
    message = denied(call(kms.one_worker(), "POST", "/kms/v1/keys", {"name": "k"}, user="alice"))
    assert message == "User [alice] is not authorized to create key !!"
    assert json_of(call(kms.one_worker(), "GET", "/kms/v1/keys/names", user="alice")) == []


def test_operation_acls_and_blacklists_refuse_in_hadoops_words(kms_with: Start) -> None:
    closed = {
        "hadoop.kms.acl.CREATE": "hdfs",
        "hadoop.kms.acl.GET": " ",
        "hadoop.kms.acl.GET_KEYS": " staff",
        "hadoop.kms.acl.SET_KEY_MATERIAL": "nobody",
        "hadoop.kms.blacklist.DECRYPT_EEK": "hdfs",
    }
    kms = kms_with({**OPEN_ACLS, **closed})
    client = kms.one_worker()
    created = call(client, "POST", "/kms/v1/keys", {"name": "k"}, user="hdfs")
    assert json_of(created) == {"name": "k", "versionName": "k@0", "material": None}
    assert json_of(call(client, "POST", "/kms/v1/key/k", b"{}", user="hdfs"))["material"] is None
    given = {"name": "g", "material": "AAAA"}
    for client in kms.every_worker():
        cases = [
            (call(client, "POST", "/kms/v1/keys", {"name": "x"}, user="etl"), "etl", "CREATE_KEY", " on 'x'"),
            (call(client, "POST", "/kms/v1/keys", given, user="hdfs"), "hdfs", "CREATE_KEY", " on 'g'"),
            (call(client, "GET", "/kms/v1/key/k/_currentversion"), "hdfs", "GET_CURRENT_KEY", " on 'k'"),
            (call(client, "GET", "/kms/v1/key/k/_versions"), "hdfs", "GET_KEY_VERSIONS", " on 'k'"),
            (call(client, "GET", "/kms/v1/keyversion/k%400"), "hdfs", "GET_KEY_VERSION", ""),
            (call(client, "GET", "/kms/v1/keys/names", user="etl"), "etl", "GET_KEYS", ""),
            (decrypt(client, "k", "hdfs"), "hdfs", "DECRYPT_EEK", " on 'k'"),
        ]
        for answer, user, operation, on_key in cases:
            assert denied(answer) == f"User:{user} not allowed to do '{operation}'{on_key}"
        # In the group by static mapping.
        assert json_of(call(client, "GET", "/kms/v1/keys/names", user="analyst")) == ["k"]
        assert decrypt(client, "k", "etl").status == 200


def test_invalidate_cache_takes_rollover_or_delete(kms_with: Start) -> None:
    kms = kms_with({**OPEN_ACLS, "hadoop.kms.acl.ROLLOVER": "roller", "hadoop.kms.acl.DELETE": "deleter"})
    client = kms.one_worker()
    call(client, "POST", "/kms/v1/keys", {"name": "k"})
    for user, status in (("roller", 200), ("deleter", 200), ("hdfs", 403)):
        assert call(client, "POST", "/kms/v1/key/k/_invalidatecache", user=user).status == status


def test_key_acls_refuse_in_hadoops_words(kms_with: Start) -> None:
    acls = {
        "key.acl.k.MANAGEMENT": "admin",
        "key.acl.k.GENERATE_EEK": "hdfs",
        "key.acl.k.DECRYPT_EEK": "etl pii",
        "key.acl.named.ALL": "admin",
        "whitelist.key.acl.MANAGEMENT": "root",
    }
    kms = kms_with(acls)
    client = kms.one_worker()
    assert call(client, "POST", "/kms/v1/keys", {"name": "k"}, user="admin").status == 201
    for client in kms.every_worker():
        assert generate(client, "k", "hdfs").status == 200
        assert decrypt(client, "k", "etl").status == 200
        assert decrypt(client, "k", "analyst").status == 200
        cases = [
            (decrypt(client, "k", "hdfs"), "hdfs", "DECRYPT_EEK"),
            (generate(client, "k", "etl"), "etl", "GENERATE_EEK"),
            (call(client, "POST", "/kms/v1/key/k", b"{}", user="etl"), "etl", "MANAGEMENT"),
            (call(client, "DELETE", "/kms/v1/key/k", user="etl"), "etl", "MANAGEMENT"),
            (call(client, "GET", "/kms/v1/key/k/_metadata", user="etl"), "etl", "READ"),
            (call(client, "GET", "/kms/v1/keys/metadata", user="etl", query={"key": "k"}), "etl", "READ"),
        ]
        for answer, user, operation in cases:
            expected = f"User [{user}] is not authorized to perform [{operation}] on key with ACL name [k]!!"
            assert denied(answer) == expected
    assert call(client, "POST", "/kms/v1/key/k", b"{}", user="root").status == 200


def test_the_acl_name_attribute_leads_to_another_entry(kms_with: Start) -> None:
    kms = kms_with({"key.acl.shared.ALL": "admin"})
    client = kms.one_worker()
    body = {"name": "k", "attributes": {"key.acl.name": "shared"}}
    assert denied(call(client, "POST", "/kms/v1/keys", body, user="etl")) == (
        "User [etl] is not authorized to create key !!"
    )
    assert call(client, "POST", "/kms/v1/keys", body, user="admin").status == 201
    assert generate(client, "k", "admin").status == 200
    assert "with ACL name [shared]!!" in denied(generate(client, "k", "etl"))


def test_a_changed_acl_file_holds_in_every_worker_and_a_broken_one_keeps_the_old(kms_with: Start) -> None:
    kms = kms_with(OPEN_ACLS)
    workers = kms.every_worker()
    call(workers[0], "POST", "/kms/v1/keys", {"name": "k"})
    assert all(decrypt(client, "k", "etl").status == 200 for client in workers)
    write_xml(kms.place.conf / "kms-acls.xml", {**OPEN_ACLS, "hadoop.kms.acl.DECRYPT_EEK": "nobody"})
    wait_for(lambda: all(decrypt(client, "k", "etl").status == 403 for client in workers), "the new ACLs")
    (kms.place.conf / "kms-acls.xml").write_text("<configuration><property>")
    broken_at = time.monotonic()
    # A worker looks once a second: three looks later the ACLs must still be those before.
    while time.monotonic() < broken_at + 3:
        assert all(decrypt(client, "k", "etl").status == 403 for client in workers)
    write_xml(kms.place.conf / "kms-acls.xml", OPEN_ACLS)
    wait_for(lambda: all(decrypt(client, "k", "etl").status == 200 for client in workers), "the repaired ACLs")


def test_a_published_policy_decides_about_its_keys_in_every_worker_at_once(kms_with: Start) -> None:
    kms = kms_with(OPEN_ACLS)
    workers = kms.every_worker()
    for key in ("zone-pii", "zone-open", "other"):
        assert call(workers[0], "POST", "/kms/v1/keys", {"name": key}).status == 201
    assert all(decrypt(client, "zone-pii", "stranger").status == 200 for client in workers)
    answer = publish(kms, 0)
    assert answer.status == 200 and json_of(answer)["revision"] == 1
    digest = json_of(answer)["digest"]
    for client in workers:
        status = json_of(call(client, "GET", "/ringfence/v1/status", user="stranger"))
        assert (status["product"], status["revision"], status["digest"]) == ("ringfence", 1, digest)
        for user in ("etl", "loader", "analyst"):
            assert decrypt(client, "zone-pii", user).status == 200
        for user in ("hdfs", "admin", "stranger"):
            assert "[DECRYPT_EEK]" in denied(decrypt(client, "zone-pii", user))
        assert decrypt(client, "zone-open", "stranger").status == 200
        assert generate(client, "zone-pii", "hdfs").status == 200
        assert "[GENERATE_EEK]" in denied(generate(client, "zone-pii", "etl"))
        assert call(client, "GET", "/kms/v1/key/zone-pii/_metadata", user="admin").status == 200
        assert "[READ]" in denied(call(client, "GET", "/kms/v1/key/zone-pii/_metadata", user="etl"))
        assert "[MANAGEMENT]" in denied(call(client, "POST", "/kms/v1/key/zone-pii", b"{}", user="hdfs"))
        # Not in the policy: kms-acls.xml decides.
        assert decrypt(client, "other", "stranger").status == 200
    rolled = json_of(call(workers[0], "POST", "/kms/v1/key/zone-pii", b"{}", user="admin"))
    assert rolled == {"name": "zone-pii", "versionName": "zone-pii@1", "material": None}


def test_material_of_a_policys_keys_is_refused_to_everyone(kms_with: Start) -> None:
    kms = kms_with(OPEN_ACLS)
    client = kms.one_worker()
    call(client, "POST", "/kms/v1/keys", {"name": "zone-pii"})
    publish(kms, 0)
    for client in kms.every_worker():
        for user in ("hdfs", "admin", "etl", "root"):
            for path in ("key/zone-pii/_currentversion", "key/zone-pii/_versions", "keyversion/zone-pii%400"):
                assert "not allowed to do 'GET_" in denied(call(client, "GET", f"/kms/v1/{path}", user=user))


def test_material_stays_closed_when_a_later_policy_leaves_the_key_out(tmp_path: Path, workers: int) -> None:
    place = KmsPlace.make(tmp_path, OPEN_ACLS, core=GROUPS)
    paths = ("key/zone-pii/_currentversion", "key/zone-pii/_versions", "keyversion/zone-pii%400")
    with place.serving(workers) as kms:
        call(kms.one_worker(), "POST", "/kms/v1/keys", {"name": "zone-pii"})
        publish(kms, 0)
        fewer = {**POLICY, "zones": [zone for zone in POLICY["zones"] if zone["key"] != "zone-pii"]}
        assert publish(kms, 1, fewer).status == 200
        for client in kms.every_worker():
            # kms-acls.xml decides about the key again, but for its material.
            assert decrypt(client, "zone-pii", "stranger").status == 200
            for path in paths:
                assert "not allowed to do 'GET_" in denied(call(client, "GET", f"/kms/v1/{path}", user="hdfs"))
    with place.serving(workers) as kms:  # from the store, not from memory
        for path in paths:
            denied(call(kms.one_worker(), "GET", f"/kms/v1/{path}", user="hdfs"))
    refused = [line for line in place.audit_lines() if line["key"] == "zone-pii" and line["outcome"] == "denied"]
    assert {line["rule"] for line in refused} == {"policy:1"}


def test_explain_says_what_the_running_server_does_and_what_its_audit_log_records(kms_with: Start) -> None:
    kms = kms_with({**OPEN_ACLS, "hadoop.kms.blacklist.DECRYPT_EEK": "hdfs"})
    client = kms.one_worker()
    for key in ("zone-pii", "other"):
        call(client, "POST", "/kms/v1/keys", {"name": key})
    publish(kms, 0)
    environment = {**os.environ, "RINGFENCE_KMS_ADMIN_SOCKET": str(kms.place.admin_socket)}
    for user, key in (("etl", "zone-pii"), ("stranger", "zone-pii"), ("hdfs", "other"), ("stranger", "other")):
        answer = decrypt(client, key, user)
        command = ["key", "acl", "explain", user, "DECRYPT_EEK", key, "--json", "--hadoop-conf", kms.place.conf]
        done = run_ringfence(command, environment)
        explained = json.loads(done.stdout)
        assert explained["allowed"] == (answer.status == 200), done.stderr
        record = next(line for line in reversed(kms.place.audit_lines()) if line["user"] == user and line["key"] == key)
        deciding = explained["steps"][0 if not explained["steps"][0]["allowed"] else 1]
        assert record["rule"] == deciding["rule"]


def test_a_key_of_the_policy_is_not_reached_around_by_an_acl_name(kms_with: Start) -> None:
    kms = kms_with({**OPEN_ACLS, "key.acl.mine.ALL": "stranger"})
    publish(kms, 0)
    client = kms.one_worker()
    body = {"name": "zone-pii", "attributes": {"key.acl.name": "mine"}}
    denied(call(client, "POST", "/kms/v1/keys", body, user="stranger"))
    assert call(client, "POST", "/kms/v1/keys", body, user="admin").status == 201
    denied(decrypt(client, "zone-pii", "stranger"))


def test_publication_is_compare_and_set_and_survives_a_restart(tmp_path: Path, workers: int) -> None:
    place = KmsPlace.make(tmp_path, OPEN_ACLS, core=GROUPS)
    with place.serving(workers) as kms:
        first = json_of(publish(kms, 0))
        conflict = publish(kms, 0)
        assert remote_exception_of(conflict)[0] == 409
        assert json_of(publish(kms, 1, {**POLICY, "cluster": "d"}))["revision"] == 2
    with place.serving(workers) as kms:
        client = kms.connect_admin()
        found = json_of(call(client, "GET", "/ringfence/v1/policy", user=None))
        client.socket.close()
        assert (found["revision"], found["policy"]["cluster"]) == (2, "d")
        assert found["digest"] != first["digest"]
        denied(call(kms.one_worker(), "POST", "/kms/v1/keys", {"name": "zone-pii"}, user="stranger"))


def test_the_policy_is_never_reached_by_a_user_name(kms_with: Start) -> None:
    kms = kms_with(OPEN_ACLS)
    for user in ("root", "hdfs", "admin"):
        denied(call(kms.one_worker(), "GET", "/ringfence/v1/policy", user=user))
        body = {"expected_revision": 0, "policy": POLICY}
        denied(call(kms.one_worker(), "PUT", "/ringfence/v1/policy", body, user=user))
    assert call(kms.one_worker(), "PUT", "/ringfence/v1/policy", b"{}", user=None).status == 401
    assert json_of(call(kms.one_worker(), "GET", "/ringfence/v1/status"))["revision"] == 0


def test_a_bearer_token_from_a_private_file_administers(tmp_path: Path, workers: int) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123456789abcdef\n")
    token.chmod(0o600)
    place = KmsPlace.make(tmp_path, OPEN_ACLS)
    with place.serving(workers, "--admin-token-file", str(token)) as kms:
        for client in kms.every_worker():
            good = {"Authorization": "Bearer 0123456789abcdef0123456789abcdef"}
            assert call(client, "GET", "/ringfence/v1/policy", user=None, headers=good).status == 200
            for bad in ("Bearer 0123456789abcdef", "Bearer ", "Basic 0123456789abcdef0123456789abcdef"):
                headers = {"Authorization": bad}
                assert call(client, "GET", "/ringfence/v1/policy", user=None, headers=headers).status == 401


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kms": None}, "nobody could make an EDEK"),
        ({"flow_control": {"mode": "enforce"}, "flows": []}, "never published in mode shadow"),
        ({"defaults": {"custody": "transit"}}, "connected to no Vault"),
        ({"zones": [{"path": "relative"}]}, "problem"),
    ],
)
def test_a_policy_that_cannot_be_enforced_is_not_taken(kms_with: Start, change: dict[str, object], words: str) -> None:
    kms = kms_with(OPEN_ACLS)
    policy = {name: value for name, value in {**POLICY, **change}.items() if value is not None}
    answer = publish(kms, 0, policy)
    assert answer.status == 400
    assert words in answer.body.decode()
    assert json_of(call(kms.one_worker(), "GET", "/ringfence/v1/status"))["revision"] == 0


def test_a_refused_policy_comes_back_with_every_finding(kms_with: Start) -> None:
    kms = kms_with(OPEN_ACLS)
    policy = {**POLICY, "zones": [{"path": "relative"}, {"path": "/a", "key": "UPPER"}]}
    findings = json_of(publish(kms, 0, policy))["findings"]
    assert {finding["rule"] for finding in findings} >= {"bad_path", "bad_key_name"}
