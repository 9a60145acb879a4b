"""A key server with flow rules: policies, EDEKs as the NameNode gets them and clients open them, and its records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from http_serving import Answer, RawClient
from kms_serving import OPEN_ACLS, KmsPlace, RunningKms, call, json_of, remote_exception_of

AUTHORIZATION = "org.apache.hadoop.security.authorize.AuthorizationException"
ZONES = ("pii", "masked", "third")
SHADOW: dict[str, Any] = {"mode": "shadow"}
ENFORCE: dict[str, Any] = {"mode": "enforce", "enforce_on_claimed_identity": True}
Eek = dict[str, str]


def policy(flow_control: object, flows: Sequence[tuple[str, str, Sequence[str]]] | None = ()) -> dict[str, Any]:
    zones = [
        {"path": f"/data/{zone}", "key": zone, "readers": ["alice", "bob"], "writers": ["alice", "bob", "masker"]}
        for zone in ZONES
    ]
    document = {
        "version": 1,
        "cluster": "c",
        "zones": zones,
        "kms": {"namenode_users": ["hdfs"], "admins": ["hdfs"]},
        "flow_control": flow_control,
    }
    if flows is not None:
        document["flows"] = [{"from": f"/data/{a}", "to": f"/data/{b}", "who": list(who)} for a, b, who in flows]
    return document


def publish(kms: RunningKms, document: object) -> Answer:
    with kms.connect_admin() as admin:
        revision = json_of(call(admin, "GET", "/ringfence/v1/policy", user=None))["revision"]
        body = {"expected_revision": revision, "policy": document}
        return call(admin, "PUT", "/ringfence/v1/policy", body, user=None)


def force(kms: RunningKms, flow_control: object, flows: Sequence[tuple[str, str, Sequence[str]]] = ()) -> None:
    """Publishes, in shadow mode first where that is asked for."""
    for mode in [SHADOW, flow_control] if flow_control != SHADOW else [SHADOW]:
        answer = publish(kms, policy(mode, flows))
        assert answer.status == 200, answer.body


def make_keys(client: RawClient) -> None:
    for zone in ZONES:
        assert call(client, "POST", "/kms/v1/keys", {"name": zone, "length": 256}).status == 201


@contextmanager
def serving(directory: Path, workers: int, *options: str) -> Iterator[RunningKms]:
    place = KmsPlace.make(directory, OPEN_ACLS)
    with place.serving(workers, *options) as kms:
        make_keys(kms.one_worker())
        yield kms


def new_eeks(client: RawClient, zone: str, count: int = 1) -> list[Eek]:
    """As the NameNode gets them, and puts one into each new file."""
    query = {"eek_op": "generate", "num_keys": str(count)}
    found = json_of(call(client, "GET", f"/kms/v1/key/{zone}/_eek", query=query))
    return [{"name": zone, "iv": each["iv"], "material": each["encryptedKeyVersion"]["material"]} for each in found]


def new_eek(client: RawClient, zone: str) -> Eek:
    return new_eeks(client, zone)[0]


def old_eek(client: RawClient, zone: str) -> Eek:
    """Of a file that somebody wrote."""
    eek = new_eek(client, zone)
    assert open_eek(client, eek, "masker").status == 200
    return eek


def open_eek(client: RawClient, eek: Eek, user: str = "alice", **more: Any) -> Answer:
    path = f"/kms/v1/keyversion/{eek['name']}%400/_eek"
    return call(client, "POST", path, eek, user=more.pop("user", user), query={"eek_op": "decrypt"}, **more)


def refusal(answer: Answer) -> str:
    status, java_class, message = remote_exception_of(answer)
    assert (status, java_class) == (403, AUTHORIZATION)
    return message


def records(kms: RunningKms, user: str = "alice") -> list[dict[str, Any]]:
    lines = kms.place.audit_lines()
    return [line for line in lines if line["op"] == "DECRYPT_EEK" and line["user"] == user]
