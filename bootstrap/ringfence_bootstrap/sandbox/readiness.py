"""Is a daemon ready? Each probe asks it for the real thing over HTTP on loopback, and starts no JVM for it.

A probe returns None when all is well, else what it still waits for. Nothing here follows proxies from the
environment: the daemons are on this machine.
"""

from __future__ import annotations

import http.client
import json
import secrets
import socket
from pathlib import Path
from urllib.parse import urlsplit

from ringfence_bootstrap.sandbox.state import Ports
from ringfence_zones.errors import SandboxError

_TIMEOUT_S = 10.0
_SUPERUSER = "hdfs"


def kms_waits_for(ports: Ports) -> str | None:
    """The KMS lists its keys, which opens its key store."""
    try:
        status, _, _ = _request("GET", ports.kms, f"/kms/v1/keys/names?user.name={_SUPERUSER}")
    except OSError:
        return "the KMS to listen"
    return None if status == 200 else f"the KMS to list its keys (it answers {status})"


def hdfs_waits_for(ports: Ports) -> str | None:
    """A file goes through the NameNode to the DataNode's disk and is deleted again."""
    path = f"/.ringfence-sandbox-{secrets.token_hex(4)}"
    try:
        status, location, body = _request("PUT", ports.namenode_http, _webhdfs(path, "CREATE&overwrite=false"))
        if status != 307 or location is None:
            why = _remote_message(body) or f"it answers {status}"
            return f"the NameNode to take a file ({why})"
        target = urlsplit(location)
        status, _, _ = _request("PUT", ports.datanode_http, f"{target.path}?{target.query}", b"ready\n")
        _request("DELETE", ports.namenode_http, _webhdfs(path, "DELETE"))
    except (OSError, http.client.HTTPException):
        return "the NameNode and the DataNode to take a file"
    return None if status == 201 else f"the DataNode to take a file (it answers {status})"


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


def make_directory(ports: Ports, path: str, owner: str, mode: str) -> None:
    """An ordinary directory, as superuser; one that is there only gets owner and mode. `mode` in octal."""
    for operation in (
        f"MKDIRS&permission={mode}",
        f"SETPERMISSION&permission={mode}",
        f"SETOWNER&owner={owner}&group={owner}",
    ):
        status, _, body = _request("PUT", ports.namenode_http, _webhdfs(path, operation))
        if status != 200:
            raise SandboxError(f"the NameNode did not make {path}: {_remote_message(body) or f'it answers {status}'}")


def _webhdfs(path: str, operation: str) -> str:
    return f"/webhdfs/v1{path}?user.name={_SUPERUSER}&op={operation}"


def _remote_message(body: bytes) -> str | None:
    """The first line of a RemoteException."""
    try:
        return str(json.loads(body)["RemoteException"]["message"]).partition("\n")[0]
    except (ValueError, KeyError, TypeError):
        return None


def _request(method: str, port: int, target: str, body: bytes | None = None) -> tuple[int, str | None, bytes]:
    """(status, Location, body of at most 64 KiB)."""
    connection = http.client.HTTPConnection("localhost", port, timeout=_TIMEOUT_S)
    try:
        connection.request(method, target, body, {"Content-Type": "application/octet-stream"} if body else {})
        response = connection.getresponse()
        return response.status, response.getheader("Location"), response.read(65536)
    finally:
        connection.close()
