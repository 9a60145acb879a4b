"""The KMS that is hardened and the NameNode that calls it, stopped and started, each waited for."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from contextlib import closing

from ringfence_bootstrap.stock_kms.hardening import Hardening
from ringfence_bootstrap.takeover.exchange import ANSWER_TIMEOUT_S, Connect
from ringfence_zones.errors import InstallError, KmsError
from ringfence_zones.hadoop_conf import read_hadoop_conf
from ringfence_zones.kms_uri import parse_kms_uri

_POLL_S = 0.1


def stop_kms(hardening: Hardening) -> None:
    """Returns when its port is free. Raises InstallError."""
    hardening.kms.stop()
    _wait(lambda: not _listens(hardening.uri), f"{hardening.kms.describe()} was stopped, but its port is still taken")


def start_kms(hardening: Hardening, connect: Connect, uri: str) -> None:
    """Returns when it answers there. Raises InstallError."""
    hardening.kms.start()
    said = ["nothing answers"]

    def answers() -> bool:
        clients = connect(uri)
        try:
            clients[0].find_ringfence_status()
        except KmsError as error:
            said[0] = error.message
            return False
        finally:
            for client in clients:
                client.close()
        return True

    _wait(answers, f"{hardening.kms.describe()} was started, but does not answer at {uri}", said)


def start_kms_again(hardening: Hardening, connect: Connect, uri: str | None = None) -> None:
    """Undoes a stop, which may not have come to its command. Not every start command asks whether one is running."""
    if _listens(hardening.uri):
        stop_kms(hardening)
    start_kms(hardening, connect, uri or hardening.uri)


def start_namenode(hardening: Hardening) -> None:
    """Of a hardening with a NameNode. Returns when it listens. Raises InstallError."""
    assert hardening.namenode is not None
    hardening.namenode.start()
    place = _namenode_place(hardening)
    if place is not None:
        _wait(
            lambda: _connects(*place), f"{hardening.namenode.describe()} was started, but nothing listens at {place[0]}"
        )


def stop_namenode(hardening: Hardening) -> None:
    """Of a hardening with a NameNode."""
    assert hardening.namenode is not None
    hardening.namenode.stop()


def _namenode_place(hardening: Hardening) -> tuple[str, int] | None:
    authority = read_hadoop_conf(hardening.hadoop_conf, "core-site.xml").get("fs.defaultFS", "").partition("://")[2]
    host, _, port = authority.partition("/")[0].rpartition(":")
    return (host, int(port)) if host and port.isdigit() else None


def _listens(uri: str) -> bool:
    here = parse_kms_uri(uri)
    return _connects(here.hosts[0], here.port)


def _connects(host: str, port: int) -> bool:
    try:
        with closing(socket.create_connection((host, port), timeout=1)):
            return True
    except OSError:
        return False


def _wait(holds: Callable[[], bool], otherwise: str, said: Sequence[str] = ()) -> None:
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while not holds():
        if time.monotonic() > deadline:
            why = f": {said[0]}" if said else ""
            raise InstallError(f"{otherwise}{why}", hint="look at its log")
        time.sleep(_POLL_S)
