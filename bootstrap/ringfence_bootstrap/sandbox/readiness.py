"""Is a daemon ready? Each probe asks it for the real thing over HTTP on loopback, and starts no JVM for it.

A probe returns None when all is well, else what it still waits for. Nothing here follows proxies from the
environment: the daemons are on this machine. With Kerberos each request is the superuser's, by a ticket of its own.
"""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from ringfence_bootstrap.sandbox.state import Ports
from ringfence_zones.errors import AuthenticationError, SandboxError

_TIMEOUT_S = 10.0
_SUPERUSER = "hdfs"

Role = Literal["active", "standby"]


@dataclass(frozen=True, slots=True)
class Access:
    """How a sandbox's daemons are asked: ports, TLS where they speak it, and who is asking.

    `authorize` gives the value of `Authorization` for one request; without it the superuser is named (`user.name`).
    `namenode_http` is the port of the NameNode to ask when there are two; None for the first.
    """

    ports: Ports
    kms_tls: ssl.SSLContext | None = None
    web_tls: ssl.SSLContext | None = None
    authorize: Callable[[], str] | None = None
    namenode_http: int | None = None


def kms_waits_for(access: Access) -> str | None:
    """The KMS lists its keys, which opens its key store."""
    target = f"/kms/v1/keys/names{_named(access, '?')}"
    try:
        status, _, _ = _request(access, access.kms_tls, "GET", access.ports.kms, target)
    except OSError:
        return "the KMS to listen"
    except AuthenticationError as error:
        return f"the KMS to be known to Kerberos ({error.message})"
    return None if status == 200 else f"the KMS to list its keys (it answers {status})"


def hdfs_waits_for(access: Access) -> str | None:
    """A file goes through the NameNode to the DataNode's disk and is deleted again."""
    path = f"/.ringfence-sandbox-{secrets.token_hex(4)}"
    try:
        status, location, body = _webhdfs(access, "PUT", path, "CREATE&overwrite=false")
        if status != 307 or location is None:
            why = _remote_message(body) or f"it answers {status}"
            return f"the NameNode to take a file ({why})"
        target = urlsplit(location)
        # The NameNode's redirect says who is writing: the DataNode is asked without more.
        status, _, _ = _exchange(
            access.web_tls, "PUT", access.ports.datanode_http, f"{target.path}?{target.query}", {}, b"ready\n"
        )
        _webhdfs(access, "DELETE", path, "DELETE")
    except (OSError, http.client.HTTPException):
        return "the NameNode and the DataNode to take a file"
    except AuthenticationError as error:
        return f"the NameNode to be known to Kerberos ({error.message})"
    return None if status == 201 else f"the DataNode to take a file (it answers {status})"


def find_role(access: Access, namenode_http: int) -> Role | None:
    """What a NameNode says it is; None when it does not answer or is still starting."""
    try:
        status, _, body = _webhdfs(replace(access, namenode_http=namenode_http), "GET", "/", "GETFILESTATUS")
    except (OSError, http.client.HTTPException, AuthenticationError):
        return None
    if status == 200:
        return "active"
    return "standby" if _remote(body, "exception") == "StandbyException" else None


def yarn_waits_for(ports: Ports) -> str | None:
    """The ResourceManager knows a NodeManager to run containers on. There is no YARN with Kerberos to ask for it."""
    target = "/jmx?qry=Hadoop:service=ResourceManager,name=ClusterMetrics"
    try:
        status, _, body = _exchange(None, "GET", ports.resourcemanager_http, target, {})
        nodes = json.loads(body)["beans"][0]["NumActiveNMs"] if status == 200 else 0
    except (OSError, http.client.HTTPException):
        return "the ResourceManager to listen"
    except (ValueError, LookupError, TypeError):
        return "the ResourceManager to answer"
    return None if nodes else "the NodeManager to register"


def agent_waits_for(socket_path: Path) -> str | None:
    """The agent answers on its socket, whatever it has to say."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(str(socket_path))
            connection.sendall(b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = connection.recv(16)
    except OSError:
        return "the agent to listen"
    return None if answer.startswith(b"HTTP/1.1 ") else "the agent to answer"


def listens(port: int) -> bool:
    """Whether something takes connections there."""
    with socket.socket() as connection:
        connection.settimeout(_TIMEOUT_S)
        return connection.connect_ex(("127.0.0.1", port)) == 0


def make_directory(access: Access, path: str, owner: str, mode: str) -> None:
    """An ordinary directory, as superuser; one that is there only gets owner and mode. `mode` in octal."""
    for operation in (
        f"MKDIRS&permission={mode}",
        f"SETPERMISSION&permission={mode}",
        f"SETOWNER&owner={owner}&group={owner}",
    ):
        status, _, body = _webhdfs(access, "PUT", path, operation)
        if status != 200:
            raise SandboxError(f"the NameNode did not make {path}: {_remote_message(body) or f'it answers {status}'}")


def _webhdfs(access: Access, method: str, path: str, operation: str) -> tuple[int, str | None, bytes]:
    target = f"/webhdfs/v1{path}?op={operation}{_named(access, '&')}"
    port = access.namenode_http or access.ports.namenode_http
    return _request(access, access.web_tls, method, port, target)


def _named(access: Access, separator: str) -> str:
    return "" if access.authorize else f"{separator}user.name={_SUPERUSER}"


def _remote_message(body: bytes) -> str | None:
    """The first line of a RemoteException."""
    message = _remote(body, "message")
    return None if message is None else message.partition("\n")[0]


def _remote(body: bytes, name: str) -> str | None:
    try:
        return str(json.loads(body)["RemoteException"][name])
    except (ValueError, KeyError, TypeError):
        return None


def _request(
    access: Access, tls: ssl.SSLContext | None, method: str, port: int, target: str
) -> tuple[int, str | None, bytes]:
    headers = {"Authorization": access.authorize()} if access.authorize else {}
    return _exchange(tls, method, port, target, headers)


def _exchange(
    tls: ssl.SSLContext | None, method: str, port: int, target: str, headers: dict[str, str], body: bytes | None = None
) -> tuple[int, str | None, bytes]:
    """(status, Location, body of at most 64 KiB)."""
    if tls is None:
        connection = http.client.HTTPConnection("localhost", port, timeout=_TIMEOUT_S)
    else:
        connection = http.client.HTTPSConnection("localhost", port, timeout=_TIMEOUT_S, context=tls)
    try:
        connection.request(
            method, target, body, {**headers, **({"Content-Type": "application/octet-stream"} if body else {})}
        )
        response = connection.getresponse()
        return response.status, response.getheader("Location"), response.read(65536)
    finally:
        connection.close()
