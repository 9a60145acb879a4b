"""The NameNodes of a cluster by address, and the one thing they tell over HTTP: a live configuration value.

Addresses come from `core-site.xml` and `hdfs-site.xml` by the rules of `org.apache.hadoop.hdfs.DFSUtil`. A daemon's
`/conf` servlet (`org.apache.hadoop.conf.ConfServlet`) shows what the process holds now, a live reload included; its
RPC has no call for that. Where the web interface is closed to us the answer is None, not a guess.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

import requests

from ringfence_zones.errors import AuthenticationError, ConfigError
from ringfence_zones.hadoop_conf import split_list
from ringfence_zones.http_session import PLAIN_ACCESS, DaemonSession, HttpAccess

DEFAULT_RPC_PORT = 8020
_HTTP = ("http", "dfs.namenode.http-address", 9870)
_HTTPS = ("https", "dfs.namenode.https-address", 9871)
_CONNECT_TIMEOUT_S = 5
# The first question to a NameNode that has just started loads half of its web server.
_READ_TIMEOUT_S = 15
_MAX_ANSWER_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class NameNodeAddress:
    """One NameNode: `rpc` is `host:port` as `dfsadmin -reconfig` takes it, `web` its `http(s)://host:port`."""

    rpc: str
    web: str


@dataclass(frozen=True, slots=True)
class LiveValue:
    """What a daemon holds for a property: `known` False and an empty value when the property is not set."""

    known: bool
    value: str


def default_filesystem(conf: Mapping[str, str]) -> str:
    """`fs.defaultFS`, which must be an `hdfs://` URI. Raises ConfigError naming the fix."""
    uri = conf.get("fs.defaultFS", "file:///")
    try:
        is_hdfs = urlsplit(uri).scheme == "hdfs" and bool(urlsplit(uri).netloc)
    except ValueError:
        is_hdfs = False
    if not is_hdfs:
        raise ConfigError(
            f"fs.defaultFS is {uri!r}, which is no HDFS",
            hint="set it to hdfs://HOST:PORT in core-site.xml, or give --hadoop-conf DIR",
        )
    return uri


def namenode_addresses(conf: Mapping[str, str]) -> tuple[NameNodeAddress, ...]:
    """Every NameNode of the default file system: one, or all of a high-availability pair. Raises ConfigError."""
    authority = urlsplit(default_filesystem(conf)).netloc
    if authority not in split_list(conf.get("dfs.nameservices", "")):
        return (_address(conf, "", conf.get("dfs.namenode.rpc-address") or authority),)
    members = split_list(conf.get(f"dfs.ha.namenodes.{authority}", ""))
    suffixes = [f".{authority}.{member}" for member in members] or [f".{authority}"]
    addresses = []
    for suffix in suffixes:
        rpc = conf.get(f"dfs.namenode.rpc-address{suffix}")
        if not rpc:
            raise ConfigError(
                f"hdfs-site.xml names the NameNode '{suffix[1:]}' but has no dfs.namenode.rpc-address{suffix}"
            )
        addresses.append(_address(conf, suffix, rpc))
    return tuple(addresses)


def find_live_value(address: NameNodeAddress, name: str, access: HttpAccess = PLAIN_ACCESS) -> LiveValue | None:
    """A property as that NameNode holds it now; None when the daemon would not tell.

    Raises ConfigError when it speaks TLS and what to trust cannot be read.
    """
    found = _ask(access, address, name)
    if found is None or found.known:
        return found
    # 404 means "no such property" only from a servlet that knows another one.
    control = _ask(access, address, "fs.defaultFS")
    return found if control is not None and control.known else None


def find_listed_by_all(
    addresses: Sequence[NameNodeAddress], name: str, access: HttpAccess = PLAIN_ACCESS
) -> tuple[str, ...] | None:
    """The entries of a list property that every running NameNode holds, sorted; None when one would not tell.

    One that does not run holds nothing and serves nobody, and reads its file when it starts: it is left out while
    another one tells. Raises ConfigError as `find_live_value` does.
    """
    common: set[str] | None = None
    for address in addresses:
        live = find_live_value(address, name, access)
        if live is None:
            if is_down(address):
                continue
            return None
        entries = set(split_list(live.value))
        common = entries if common is None else common & entries
    return None if common is None else tuple(sorted(common))


def is_down(address: NameNodeAddress) -> bool:
    """Whether its host refuses connections to its RPC and its web port: nothing runs there.

    A host that does not answer at all is not known to be down: it may be busy, or behind a firewall.
    """
    web = urlsplit(address.web)
    host, _, port = address.rpc.rpartition(":")
    return _refuses(host, int(port)) and _refuses(web.hostname or host, web.port or 0)


def _refuses(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), _CONNECT_TIMEOUT_S):
            return False
    except ConnectionRefusedError:
        return True
    except OSError:
        return False


def _ask(access: HttpAccess, address: NameNodeAddress, name: str) -> LiveValue | None:
    try:
        # A connection of its own: after a 404 the NameNode's Jetty closes some without having said so, and the next
        # request on such a one is never answered.
        with closing(DaemonSession(access)) as session:
            answer = session.exchange(
                "GET",
                f"{address.web}/conf",
                params=[("name", name), ("format", "json")],
                # Newer releases go by Accept, older ones by `format`.
                headers={"Accept": "application/json"},
                timeout=(_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S),
                max_bytes=_MAX_ANSWER_BYTES,
            )
        if answer.status == HTTPStatus.NOT_FOUND:
            return LiveValue(known=False, value="")
        if answer.status != HTTPStatus.OK:
            return None
        found = json.loads(answer.body)["property"]
        return LiveValue(known=True, value=str(found.get("value") or "")) if found.get("key") == name else None
    except (requests.RequestException, AuthenticationError, ValueError, KeyError, AttributeError, TypeError, OSError):
        return None


def _address(conf: Mapping[str, str], suffix: str, rpc: str) -> NameNodeAddress:
    host, _, port = rpc.rpartition(":") if ":" in rpc else (rpc, "", str(DEFAULT_RPC_PORT))
    scheme, name, default_port = _HTTPS if conf.get("dfs.http.policy", "").upper() == "HTTPS_ONLY" else _HTTP
    web = conf.get(name + suffix) or conf.get(name) or f"0.0.0.0:{default_port}"
    web_host, _, web_port = web.rpartition(":") if ":" in web else (web, "", str(default_port))
    # A wildcard is where it listens; it is reached where its RPC is.
    if web_host in ("0.0.0.0", "::", "[::]", ""):  # noqa: S104 - compared, not bound
        web_host = host
    return NameNodeAddress(f"{host}:{port}", f"{scheme}://{web_host}:{web_port}")
