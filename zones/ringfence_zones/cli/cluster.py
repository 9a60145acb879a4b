"""Opens the cluster a command is about: HDFS first, then the KMS that its NameNode uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ringfence_zones.cli.context import CommandContext
from ringfence_zones.errors import NoKeyProviderError
from ringfence_zones.hdfs import HdfsGateway, open_gateway
from ringfence_zones.kms_client import KmsClient


@dataclass(frozen=True, slots=True)
class Cluster:
    """Both ends a command talks to, as one user."""

    hdfs: HdfsGateway
    kms: KmsClient


@contextmanager
def open_hdfs(context: CommandContext) -> Iterator[HdfsGateway]:
    """HDFS alone, for commands that need no key. Closed at the end. Raises the errors of `open_gateway`."""
    gateway = open_gateway(context.hadoop_conf, context.as_user)
    try:
        yield gateway
    finally:
        gateway.close()


@contextmanager
def open_cluster(context: CommandContext) -> Iterator[Cluster]:
    """The cluster of `--hadoop-conf`, as `--as`. Closed at the end.

    The KMS is the one the NameNode names: what a client's own core-site.xml says may differ. Raises the errors of
    `open_gateway`, NameNodeUnavailableError, NoKeyProviderError.
    """
    gateway = open_gateway(context.hadoop_conf, context.as_user)
    try:
        uri = gateway.key_provider_uri()
        if uri is None:
            raise NoKeyProviderError(
                "the NameNode has no key provider, so the cluster can have no encryption zone",
                hint="set hadoop.security.key.provider.path to the KMS in the NameNode's core-site.xml and restart it",
            )
        kms = KmsClient(uri, gateway.user, access=gateway.access)
        try:
            yield Cluster(gateway, kms)
        finally:
            kms.close()
    finally:
        gateway.close()
