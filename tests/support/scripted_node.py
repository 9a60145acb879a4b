"""A node of Vault that answers, byte for byte, what a test tells it to; on the test's own event loop.

It records every request. What a real Vault does is tested against one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ringfence_agent.vault.connection import Endpoint


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it arrived; `connection` counts from 0."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The items of a batch."""
        rows: list[dict[str, Any]] = json.loads(self.body)["batch_input"]
        return rows


# The bytes of an answer; None closes the connection without one.
Script = Callable[[Asked], Awaitable[bytes | None]]


@dataclass(slots=True)
class ScriptedNode:
    """`endpoint` leads here."""

    endpoint: Endpoint
    seen: list[Asked] = field(default_factory=list)
    connections: int = 0
    readers: list[asyncio.StreamReader] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    serving: list[asyncio.Task[Any]] = field(default_factory=list)


def reply(status: int, body: object = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """An answer; a body that is not bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def results(*items: Mapping[str, object]) -> dict[str, object]:
    """The body of a batch's answer."""
    return {"request_id": "r", "data": {"batch_results": list(items)}, "errors": None, "warnings": None}


def always(answer: bytes | None) -> Script:
    """The script of one sentence."""

    async def script(asked: Asked) -> bytes | None:
        return answer

    return script


@asynccontextmanager
async def scripted_node(
    script: Script,
    server_tls: ssl.SSLContext | None = None,
    client_tls: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
    socket: Path | None = None,
) -> AsyncIterator[ScriptedNode]:
    """Serves `script` on a free loopback port, or on a Unix socket, until the block ends."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = node.connections
        node.connections += 1
        node.readers.append(reader)
        node.writers.append(writer)
        task = asyncio.current_task()
        assert task is not None
        node.serving.append(task)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                asked = await _read(reader, number)
                node.seen.append(asked)
                answer = await script(asked)
                if answer is None:
                    break
                writer.write(answer)
        writer.close()

    if socket is not None:
        server = await asyncio.start_unix_server(serve, socket)
        node = ScriptedNode(Endpoint.at_socket(socket))
    else:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_tls)
        port = server.sockets[0].getsockname()[1]
        scheme = "https" if server_tls else "http"
        node = ScriptedNode(Endpoint.at_url(f"{scheme}://{host}:{port}", client_tls))
    try:
        yield node
    finally:
        server.close()
        for writer in node.writers:
            writer.transport.abort()
        for task in node.serving:
            task.cancel()
        await asyncio.gather(*node.serving, return_exceptions=True)


async def _read(reader: asyncio.StreamReader, connection: int) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(method, target, headers, body, connection)
