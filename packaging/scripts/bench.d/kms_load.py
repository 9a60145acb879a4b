"""One load on one KMS: the requests that a Java client sends, made beforehand, and one timed run of wrk.

The requests are whole byte strings with the headers of the JDK's HttpURLConnection and a valid signed cookie, so
that the server does all of its work and the generator almost none. They are written as a Lua table for wrk, which
sends them round robin over kept-alive connections, each connection waiting for its answer (a closed loop).
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from machine import generator_cpus, on_cpus

KEY_LENGTH_BITS = 256
KEYS = 10
EEKS_PER_KEY = 100
GENERATE_COUNT = 150
_TIMEOUT_S = 60

# What HttpURLConnection of Java 17 adds to every request (seen on the wire).
_JAVA_HEADERS = (
    "Cache-Control: no-cache\r\nPragma: no-cache\r\nUser-Agent: Java/17.0.15\r\n"
    "Accept: text/html, image/gif, image/jpeg, */*; q=0.2\r\nConnection: keep-alive\r\n"
)
_LUA = """\
local requests = {%s}
local at, count = 0, #requests
function request()
  at = at %% count + 1
  return requests[at]
end
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\\nresult {"requests": %%d, "seconds": %%f, "p50_ms": %%f, "p99_ms": %%f, "errors": %%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


class BenchError(Exception):
    """The benchmark cannot go on, and says why: no figure is better than a wrong one."""


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What wrk counted. `errors` are socket errors, time-outs and answers other than 2xx or 3xx."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int


@dataclass(frozen=True, slots=True)
class KmsRequest:
    """One request to send again and again. `target` comes after `/kms`; `body` is JSON's value."""

    method: str
    target: str
    body: Mapping[str, str] | None = None

    def java_body(self) -> str:
        """The body as Jackson's pretty printer writes it."""
        return "" if self.body is None else json.dumps(self.body, indent=2, separators=(",", " : "))


class KmsCaller:
    """Calls to one KMS as one user over one connection, with the cookie that the KMS gave for the OPTIONS handshake.

    `ca` is the certificate authority (PEM) that a server with TLS is trusted by.
    """

    def __init__(self, kms_url: str, user: str, ca: Path | None = None) -> None:
        parts = urlsplit(kms_url)
        if parts.hostname is None or parts.port is None:
            raise BenchError(f"{kms_url} names no host and port")
        self.host, self.port, self.base = parts.hostname, parts.port, parts.path.rstrip("/")
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self.user = user
        self._connection = (
            http.client.HTTPConnection(self.host, self.port, timeout=_TIMEOUT_S)
            if ca is None
            else http.client.HTTPSConnection(
                self.host, self.port, timeout=_TIMEOUT_S, context=ssl.create_default_context(cafile=ca)
            )
        )
        self.cookie = self._sign_in()

    def call(self, method: str, target: str, body: Any = None, *, expect: int = 200) -> Any:
        """One request; the answer's JSON, None when it has none. Raises BenchError on any other status."""
        status, _, answer = self._send(method, target, body, {"Cookie": self.cookie})
        if status != expect:
            raise BenchError(f"{method} {target} as {self.user}: HTTP {status} {answer[:300]!r}")
        return json.loads(answer) if answer else None

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def raw_request(self, request: KmsRequest) -> str:
        """The request as the Java client would write it, cookie included."""
        text = request.java_body()
        length = f"Content-Length: {len(text)}\r\n" if text else ""
        return (
            f"{request.method} {self.base}{request.target} HTTP/1.1\r\nCookie: {self.cookie}\r\n"
            f"Content-Type: application/json\r\nHost: {self.host}:{self.port}\r\n{_JAVA_HEADERS}{length}\r\n{text}"
        )

    def raw_inline_request(self, request: KmsRequest) -> str:
        """The request as hdfs-native writes it: no cookie ever, the user in each query, compact JSON."""
        text = "" if request.body is None else json.dumps(request.body, separators=(",", ":"))
        length = f"content-length: {len(text)}\r\n" if text else ""
        mark = "&" if "?" in request.target else "?"
        return (
            f"{request.method} {self.base}{request.target}{mark}user.name={self.user} HTTP/1.1\r\n"
            f"content-type: application/json\r\naccept: */*\r\nhost: {self.host}:{self.port}\r\n{length}\r\n{text}"
        )

    def _sign_in(self) -> str:
        status, headers, _ = self._send("OPTIONS", f"/v1/keys/names?user.name={self.user}", None, {})
        cookie = (headers.get("Set-Cookie") or "").split(";", 1)[0]
        if status != 200 or not cookie.startswith("hadoop.auth="):
            raise BenchError(f"the KMS at {self.host}:{self.port} gave {self.user} no cookie (HTTP {status})")
        return cookie

    def _send(
        self, method: str, target: str, body: Any, headers: dict[str, str]
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        try:
            data = None if body is None else json.dumps(body).encode()
            self._connection.request(method, self.base + target, data, {"Content-Type": "application/json", **headers})
            response = self._connection.getresponse()
            return response.status, response.headers, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise BenchError(f"the KMS at {self.host}:{self.port} does not answer: {error}") from error


def key_names() -> tuple[str, ...]:
    """The keys that the load uses."""
    return tuple(f"bench-key-{number}" for number in range(KEYS))


def create_keys(admin: KmsCaller) -> None:
    """Creates the load's keys where they are not there yet."""
    present = set(admin.call("GET", "/v1/keys/names"))
    for name in key_names():
        if name not in present:
            body = {"name": name, "cipher": "AES/CTR/NoPadding", "length": KEY_LENGTH_BITS}
            admin.call("POST", "/v1/keys", body, expect=201)


def decrypt_requests(generator: KmsCaller, reader: KmsCaller) -> list[KmsRequest]:
    """Distinct EEKs of every key, made by this very KMS, as the requests that open them.

    Each key's first EEK is opened twice to see that the KMS gives one DEK of the right length.
    """
    requests = open_requests(generator, key_names(), EEKS_PER_KEY)
    for request in requests[::EEKS_PER_KEY]:
        _check_dek(reader, request)
    return requests


def open_requests(generator: KmsCaller, names: Sequence[str], count: int) -> list[KmsRequest]:
    """`count` new EEKs of each key, as the requests that open them."""
    requests = []
    for name in names:
        for eek in generator.call("GET", f"/v1/key/{name}/_eek?num_keys={count}&eek_op=generate"):
            body = {
                "name": name,
                "iv": _standard_base64(eek["iv"]),
                "material": _standard_base64(eek["encryptedKeyVersion"]["material"]),
            }
            target = f"/v1/keyversion/{quote(eek['versionName'], safe='')}/_eek?eek_op=decrypt"
            requests.append(KmsRequest("POST", target, body))
    return requests


def generate_requests(names: Sequence[str], count: int = GENERATE_COUNT) -> list[KmsRequest]:
    """`count` EEKs from each key in turn, as a NameNode fills its queue."""
    return [KmsRequest("GET", f"/v1/key/{name}/_eek?num_keys={count}&eek_op=generate") for name in names]


def metadata_requests(names: Sequence[str]) -> list[KmsRequest]:
    """The metadata of each key in turn."""
    return [KmsRequest("GET", f"/v1/key/{name}/_metadata") for name in names]


def write_script(path: Path, requests: Sequence[str]) -> None:
    """The wrk script that sends `requests` round robin. It holds a cookie, so only its owner may read it."""
    path.touch(mode=0o600)
    path.write_text(_LUA % ",\n".join(_lua_string(request) for request in requests))


def run_wrk(base_url: str, script: Path, *, connections: int, seconds: float) -> LoadResult:
    """One closed-loop run from one thread. Raises BenchError when wrk fails or a single request did."""
    parts = urlsplit(base_url)
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "20s", "-s", str(script)]
    finished = subprocess.run(
        [*on_cpus(generator_cpus(), argv), f"{parts.scheme}://{parts.netloc}"],
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
    )
    line = next((line for line in finished.stdout.splitlines() if line.startswith("result ")), None)
    if finished.returncode != 0 or line is None:
        raise BenchError(f"wrk failed: {finished.stderr.strip() or finished.stdout.strip()}")
    result = LoadResult(**json.loads(line.removeprefix("result ")))
    if result.errors:
        raise BenchError(f"{result.errors} of {result.requests} requests to {parts.netloc} failed under load")
    return result


def _check_dek(reader: KmsCaller, request: KmsRequest) -> None:
    first, second = (reader.call(request.method, request.target, request.body)["material"] for _ in range(2))
    if first != second or len(_decode_base64(first)) != KEY_LENGTH_BITS // 8:
        raise BenchError(f"the KMS at {reader.host}:{reader.port} does not decrypt its own EEK")


def _decode_base64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _standard_base64(text: str) -> str:
    # The server answers in the URL-safe alphabet without padding; the Java client sends the standard one with it.
    return base64.b64encode(_decode_base64(text)).decode()


def _lua_string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "\\r").replace("\n", "\\n")
    return f'"{escaped}"'
