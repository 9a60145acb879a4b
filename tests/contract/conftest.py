"""What the KMS contract suite runs against: the real server, once with one worker and once with four."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from aws_kms_double import AwsKmsDouble
from crash_scenes import own_memory
from kms_serving import KmsPlace, RunningKms
from protected_kms import Protected
from vault_clusters import VaultCluster

from ringfence_agent.keystore.protectors.aws_kms_config import AwsKmsSettings


@pytest.fixture(scope="session", autouse=True)
def _own_memory() -> Iterator[None]:
    with own_memory():
        yield


@pytest.fixture(scope="module", params=[1, 4], ids=["1-worker", "4-workers"])
def kms(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKms]:
    """A server with open ACLs; tests share it and use key names of their own."""
    place = KmsPlace.make(tmp_path_factory.mktemp("kms"))
    with place.serving(request.param) as running:
        yield running


@pytest.fixture(params=[1, 4], ids=["1-worker", "4-workers"])
def workers(request: pytest.FixtureRequest) -> int:
    """For tests that start a server of their own."""
    return int(request.param)


@pytest.fixture
def protected(
    tmp_path: Path,
    vault_cluster_on_double: VaultCluster,
    aws_kms_settings: AwsKmsSettings,
    aws_kms_double: AwsKmsDouble,
) -> Protected:
    """A server of the test's own beside a Vault and an AWS KMS."""
    assert aws_kms_double is not None  # its credentials are in the environment
    return Protected(tmp_path, vault_cluster_on_double, aws_kms_settings)
