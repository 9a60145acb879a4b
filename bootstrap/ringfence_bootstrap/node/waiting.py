"""What a node's set-up waits for, one thing after another, each for a bounded time.

A bootstrap action runs before Hadoop is installed, so all that needs Hadoop is done by a service that waits: for EMR to
have provisioned this node, for the KMS to answer, for the NameNode to take changes. What will never come (provisioning
that failed) ends the wait at once. Nothing is asked of AWS: many nodes that poll it would be throttled.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import requests

from ringfence_bootstrap.node.facts import NodeFacts, Provisioning, find_provider_path, read_node_facts
from ringfence_zones.errors import AuthenticationError, ConfigError, InstallError, KmsError, RingfenceError
from ringfence_zones.hadoop_conf import read_hadoop_conf
from ringfence_zones.http_session import DaemonSession, HttpAccess
from ringfence_zones.kms_client import KmsClient
from ringfence_zones.namenodes import namenode_addresses

Probe = Callable[[], str | None]
"""None when it is there, else half a sentence: what is waited for."""

_POLL_S = 2.0
_TIMEOUT = (5.0, 15.0)
_MAX_BYTES = 4 * 1024 * 1024


class Waiting:
    """`say` is told when what is waited for changes."""

    def __init__(
        self,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._say = say
        self._clock = clock
        self._sleep = sleep

    def until(self, probe: Probe, limit_s: float, hint: str) -> None:
        """Returns when the probe does not wait any more. Raises InstallError after `limit_s`, and what it raises."""
        deadline = self._clock() + limit_s
        said = None
        while (missing := probe()) is not None:
            if self._clock() > deadline:
                raise InstallError(f"after {limit_s:.0f} s this node still waits for {missing}", hint=hint)
            if missing != said:
                self._say(missing)
                said = missing
            self._sleep(_POLL_S)


def provisioning_waits_for(read: Callable[[], NodeFacts] = read_node_facts) -> str | None:
    """Raises InstallError when EMR says that it failed."""
    found = read().provisioning
    if found is Provisioning.FAILED:
        raise InstallError(
            "EMR says that provisioning this node failed, so there is no Hadoop to set up",
            hint="see /mnt/var/log/provision-node and /var/log/provision-node/apps-phase on it",
        )
    return None if found is Provisioning.SUCCESSFUL else "EMR to provision this node"


def kms_waits_for(conf: Path, user: str, access: Callable[[], HttpAccess]) -> str | None:
    """The KMS that core-site.xml names lists its keys."""
    try:
        uri = find_provider_path(conf)
        if uri is None:
            return f"core-site.xml in {conf} to name a KMS"
        with closing(KmsClient(uri, user, access=access())) as client:
            client.list_key_names()
    except (KmsError, AuthenticationError) as error:
        return f"the KMS ({error.message})"
    return None


def hdfs_waits_for(conf: Path, access: Callable[[], HttpAccess]) -> str | None:
    """Every NameNode says that it is not in safe mode (`NameNodeInfo`, as its own web page shows it)."""
    try:
        found = read_hadoop_conf(conf, "core-site.xml", "hdfs-site.xml")
        addresses = namenode_addresses(found)
    except ConfigError as error:
        return f"Hadoop's files to name a NameNode ({error.message})"
    for address in addresses:
        try:
            reason = _safe_mode(address.web, access())
        except (requests.RequestException, RingfenceError, ValueError, LookupError, TypeError):
            return f"the NameNode {address.rpc} to answer"
        if reason:
            return f"the NameNode {address.rpc} to leave safe mode"
    return None


def _safe_mode(web: str, access: HttpAccess) -> str:
    with closing(DaemonSession(access)) as session:
        answer = session.exchange(
            "GET",
            f"{web}/jmx",
            params=[("qry", "Hadoop:service=NameNode,name=NameNodeInfo")],
            timeout=_TIMEOUT,
            max_bytes=_MAX_BYTES,
        )
    if answer.status != 200:
        raise ValueError("no answer")
    return str(json.loads(answer.body)["beans"][0]["Safemode"])
