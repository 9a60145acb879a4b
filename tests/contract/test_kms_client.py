"""The clients of `ringfence_zones` against the real `ringfence kms serve`."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import kms_client_contract
import pytest
from kms_serving import KmsPlace, RunningKms

from ringfence_zones.client_config import ClientConfig
from ringfence_zones.errors import AuthenticationError, KmsRemoteError, KmsUnavailableError, RevisionConflictError
from ringfence_zones.kms_admin import open_admin_client
from ringfence_zones.kms_client import KmsClient
from ringfence_zones.policy import canonical_json, parse_policy

POLICY = "version: 1\ncluster: c\nzones: [{path: /a}]\nkms: {namenode_users: [hdfs], admins: [hdfs]}\n"


def client_of(kms: RunningKms, user: str = "hdfs") -> KmsClient:
    return KmsClient(f"kms://http@localhost:{kms.port}/kms", user)


def test_a_keys_life_is_seen_as_it_is(kms: RunningKms) -> None:
    kms_client_contract.a_keys_life_is_seen_as_it_is(client_of(kms), "client-life")


def test_a_length_no_cipher_takes_is_refused(kms: RunningKms) -> None:
    kms_client_contract.a_length_no_cipher_takes_is_refused(client_of(kms), "client-length")


def test_keys_made_from_many_threads_are_all_there(kms: RunningKms) -> None:
    client = client_of(kms)
    names = [f"client-many-{number}" for number in range(60)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: client.create_key(name, 128), names))
    assert set(client.find_keys(names)) == set(names)
    client.close()


def test_get_is_open_to_whom_the_acl_opens_it_and_closed_to_others(tmp_path_factory: pytest.TempPathFactory) -> None:
    acls = {"hadoop.kms.acl.GET": "auditor"} | {
        f"default.key.acl.{operation}": "*" for operation in ("MANAGEMENT", "READ")
    }
    with KmsPlace.make(tmp_path_factory.mktemp("kms"), acls).serving(1) as kms:
        client_of(kms).create_key("probed", 128)
        assert not client_of(kms).is_get_open("probed")
        assert client_of(kms, "auditor").is_get_open("probed")
        with pytest.raises(AuthenticationError):
            client_of(kms, "").list_key_names()


def test_a_policy_is_published_once_and_seen_in_the_status(tmp_path_factory: pytest.TempPathFactory) -> None:
    document = canonical_json(parse_policy(POLICY, "zones.yaml"))
    digest = hashlib.sha256(document).hexdigest()
    with KmsPlace.make(tmp_path_factory.mktemp("kms")).serving(2) as kms:
        client = client_of(kms)
        before = client.find_ringfence_status()
        assert before is not None
        assert (before.revision, before.digest) == (0, None)
        admin = open_admin_client(ClientConfig(kms_admin_socket=kms.place.admin_socket), client.uri)
        assert admin.get_publication().revision == 0
        published = admin.publish(0, document)
        assert (published.revision, published.digest) == (1, digest)
        with pytest.raises(RevisionConflictError) as caught:
            admin.publish(0, document)
        assert caught.value.actual == 1
        with pytest.raises(KmsRemoteError):
            admin.publish(1, json.dumps({"version": 1, "nonsense": True}).encode())
        after = client.find_ringfence_status()
        assert after is not None
        assert (after.revision, after.digest) == (1, digest)


def test_a_kms_that_was_stopped_is_unavailable(tmp_path_factory: pytest.TempPathFactory) -> None:
    with KmsPlace.make(tmp_path_factory.mktemp("kms")).serving(1) as kms:
        client = client_of(kms)
        client.list_key_names()
    with pytest.raises(KmsUnavailableError):
        client.list_key_names()
    with pytest.raises(KmsUnavailableError):
        open_admin_client(ClientConfig(kms_admin_socket=kms.place.admin_socket), client.uri).get_publication()
