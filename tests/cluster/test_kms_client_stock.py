"""`KmsClient` against Hadoop's own KMS: the same contract as against ours."""

from __future__ import annotations

import kms_client_contract
import pytest
from cluster_commands import Cluster

from ringfence_zones.kms_client import KmsClient

pytestmark = pytest.mark.cluster


@pytest.fixture
def client(stock_cluster: Cluster) -> KmsClient:
    return KmsClient(stock_cluster.environment["RINGFENCE_KMS_URI"], "hdfs")


def test_a_keys_life_is_seen_as_it_is(client: KmsClient) -> None:
    kms_client_contract.a_keys_life_is_seen_as_it_is(client, "client-life")


def test_a_length_no_cipher_takes_is_refused(client: KmsClient) -> None:
    kms_client_contract.a_length_no_cipher_takes_is_refused(client, "client-length")


def test_it_is_not_taken_for_ours_and_its_open_get_is_seen(client: KmsClient) -> None:
    client.create_key("client-open", 128)
    assert client.find_ringfence_status() is None
    assert client.is_get_open("client-open")
