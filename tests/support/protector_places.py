"""A pytest plugin: the protectors that the contract suites of key stores run with, each on a server that is its own.

`vault-transit` is on the double, and on a real server when the environment names one (`vault_contract`); `aws-kms` is
on the double of AWS KMS.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from aws_kms_double import AwsKmsDouble
from aws_kms_places import double_settings, make_key
from vault_clusters import SERVERS, VaultCluster, server_of, vault_cluster, vault_server
from vault_doubles import VaultDouble, running_vault

from ringfence_agent.keystore.protector import Protector, Protectors
from ringfence_agent.keystore.protectors.aws_kms import open_aws_kms
from ringfence_agent.keystore.protectors.aws_kms_config import AwsKmsSettings
from ringfence_agent.keystore.protectors.vault_transit import VaultTransitProtector, WrapKey
from ringfence_agent.vault.open import open_control

REMOTE = ["vault-transit", "aws-kms"]
if "real" in SERVERS:
    REMOTE.append("vault-transit-real")


@dataclass
class RemotePlace:
    """One remote root of trust. `open` gives its protector as another process would have it.

    `stop` makes it answer that it cannot now, until `start`; None where that is not ours to do.
    """

    scheme: str
    open: Callable[[], Protector]
    stop: Callable[[], object] | None
    start: Callable[[], object] | None

    @property
    def protectors(self) -> Protectors:
        """For a store that it opens alone."""
        return Protectors(with_file=False, others=(self.open(),))


@pytest.fixture(scope="session")
def protecting_vault() -> Iterator[VaultDouble]:
    """A double that may be sealed: whoever seals it unseals it."""
    with running_vault() as double:
        yield double


@pytest.fixture(scope="session")
def vault_cluster_on_double(
    protecting_vault: VaultDouble, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VaultCluster]:
    """Set up, and the key server logged in."""
    with vault_cluster(server_of(protecting_vault), tmp_path_factory.mktemp("vault")) as cluster:
        cluster.set_up_and_log_in()
        yield cluster


@pytest.fixture(scope="session")
def vault_cluster_on_real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VaultCluster]:
    """The same on the server that the environment names."""
    with vault_server("real") as server, vault_cluster(server, tmp_path_factory.mktemp("vault")) as cluster:
        cluster.set_up_and_log_in()
        yield cluster


def vault_protector(cluster: VaultCluster, stack: ExitStack | None = None) -> VaultTransitProtector:
    """With connections of its own, closed with `stack`, else with the cluster."""
    control = (stack or cluster.stack).enter_context(open_control(cluster.settings()))
    return VaultTransitProtector(WrapKey(control.settings, control.transit, control.batches))


@pytest.fixture(scope="session")
def aws_kms_settings(aws_kms_process: AwsKmsDouble) -> AwsKmsSettings:
    """One key for all stores: what is sealed is bound to its store by the store."""
    return double_settings(aws_kms_process, make_key(aws_kms_process), deadline_s=2.0)


@functools.cache
def _clients(_process_id: int) -> dict[str, Protector]:
    return {}


def _aws_protector(settings: AwsKmsSettings) -> Protector:
    """One for each process: the SDK takes half a second to make a client, and a fork must not share its connections."""
    clients = _clients(os.getpid())
    if settings.key not in clients:
        clients[settings.key] = open_aws_kms(settings)[0]
    return clients[settings.key]


def _cut_off(aws: AwsKmsDouble) -> None:
    for operation in ("Encrypt", "Decrypt"):
        aws.fault(operation, reset=True)


@pytest.fixture
def find_remote(request: pytest.FixtureRequest) -> Iterator[Callable[[str], RemotePlace]]:
    """A remote place by its name in REMOTE."""
    with ExitStack() as stack:

        def find(name: str) -> RemotePlace:
            if name == "aws-kms":
                aws: AwsKmsDouble = request.getfixturevalue("aws_kms_double")
                settings = request.getfixturevalue("aws_kms_settings")
                return RemotePlace("aws-kms", lambda: _aws_protector(settings), lambda: _cut_off(aws), aws.mend)
            if name == "vault-transit-real":
                real: VaultCluster = request.getfixturevalue("vault_cluster_on_real")
                return RemotePlace("vault-transit", lambda: vault_protector(real, stack), None, None)
            cluster: VaultCluster = request.getfixturevalue("vault_cluster_on_double")
            vault = cluster.double
            assert vault is not None
            stack.callback(vault.unseal)
            return RemotePlace("vault-transit", lambda: vault_protector(cluster, stack), vault.seal, vault.unseal)

        yield find


@pytest.fixture(params=REMOTE)
def remote(request: pytest.FixtureRequest, find_remote: Callable[[str], RemotePlace]) -> RemotePlace:
    """Each remote protector."""
    return find_remote(request.param)
