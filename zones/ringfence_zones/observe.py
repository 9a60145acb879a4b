"""One look at a cluster: what `plan`, `check`, `apply` and the agent decide on.

Read-only, and it works on Hadoop's own KMS as well. A KMS that does not answer is part of what is seen; a NameNode
that does not answer is an error, for without zones there is nothing to say.

Only what policy or a zone names is looked at, in parallel: a thousand zones cost a few seconds, not a walk of the
namespace. Whether GET hands out key material is asked on request only (`probe_get`): it is one call per key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ringfence_zones.errors import AuthenticationError, KmsError
from ringfence_zones.hdfs_interface import Hdfs
from ringfence_zones.keys import KeyMetadata
from ringfence_zones.kms_client import KmsClient
from ringfence_zones.model import ClusterState, DirectoryState, EncryptionZone, KmsState
from ringfence_zones.policy import Policy

# Enough to hide the round trips; the NameNode answers reads of one client from several handlers.
_THREADS = 16
# Fewer calls than this are not worth a pool.
_FEW = 4

T = TypeVar("T")
R = TypeVar("R")


def observe_cluster(
    hdfs: Hdfs, kms: KmsClient | None, policy: Policy | None, *, probe_get: bool = False
) -> ClusterState:
    """What the cluster shows. `kms` is None when the NameNode has no key provider.

    Directories and keys are those of the cluster's zones and of the policy's. Raises the `HdfsError` family.
    """
    zones = hdfs.list_zones()
    state, kms_error = _observe_kms(kms, _keys(zones, policy), probe_get=probe_get)
    return ClusterState(
        hadoop_version=hdfs.hadoop_version(),
        zones=zones,
        directories=_observe_directories(hdfs, _paths(zones, policy)),
        protected_directories=hdfs.protected_directories(),
        kms=state,
        kms_error=kms_error,
    )


def _observe_directories(hdfs: Hdfs, paths: Sequence[str]) -> Mapping[str, DirectoryState]:
    return {state.path: state for state in _concurrently(hdfs.find_directory, paths) if state is not None}


def _observe_kms(kms: KmsClient | None, names: Sequence[str], *, probe_get: bool) -> tuple[KmsState | None, str | None]:
    if kms is None:
        return None, "the NameNode has no key provider"
    try:
        status = kms.find_ringfence_status()
        keys = kms.find_keys(names)
        get_open = _probe_get(kms, keys) if probe_get else {}
    except (KmsError, AuthenticationError) as error:
        return None, error.message
    return (
        KmsState(
            uri=kms.uri.text,
            plain_http=kms.uri.is_plain_http,
            is_ringfence=status is not None,
            revision=status.revision if status is not None else None,
            revision_digest=status.digest if status is not None else None,
            keys=keys,
            custodies=status.custodies if status is not None else (),
            get_open=get_open,
        ),
        None,
    )


def _probe_get(kms: KmsClient, keys: Mapping[str, KeyMetadata]) -> dict[str, bool]:
    return dict(zip(keys, _concurrently(kms.is_get_open, list(keys)), strict=True))


def _concurrently(call: Callable[[T], R], items: Sequence[T]) -> list[R]:
    if len(items) <= _FEW:
        return [call(item) for item in items]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="observe") as pool:
        return list(pool.map(call, items))


def _paths(zones: Iterable[EncryptionZone], policy: Policy | None) -> list[str]:
    return sorted({zone.path for zone in zones} | ({zone.path for zone in policy.zones} if policy else set()))


def _keys(zones: Iterable[EncryptionZone], policy: Policy | None) -> list[str]:
    return sorted({zone.key_name for zone in zones} | ({zone.key for zone in policy.zones} if policy else set()))
