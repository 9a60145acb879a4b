"""What two answers are compared in: a flat record of text, with what must differ between two servers put aside.

The rules, all of them:

1. Ports, http or https, the key store's own name, times, numbers of tokens, session expiries and signatures become
   placeholders; so do the words that a JVM finds for its own exceptions, which change with its version.
2. Random key material, IVs and EDEKs become their length and their alphabet; `exact` calls keep the bytes.
3. JSON is compared by its values. Blanks and the order of members (a Java HashMap's) mean nothing; chunks and lengths
   are transport.
4. Of the headers count those that Hadoop's clients read. `raw-http.json-headers` compares those for caches and
   browsers, `raw-key.location` the one that nobody reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from key_servers import KeyServer

Record = dict[str, str]

# Header as sent -> the name of its field in a record.
_HEADERS = {
    "Content-Type": "type",
    "WWW-Authenticate": "challenge",  # of SPNEGO's answering token no more than that it is there
    "Set-Cookie": "cookie",
}
_RANDOM = ("material", "iv")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*=*")
_COOKIE_PARTS = (
    (re.compile(r"&e=\d{13}\b"), "&e=<ms>"),
    (re.compile(r"&s=[A-Za-z0-9+/=]+"), "&s=<signature>"),
)
_NEGOTIATE = re.compile(r"Negotiate [A-Za-z0-9+/]+=*")
_TIME = 2**31
_JVM_CLASSES = ("java.lang.ClassCastException", "java.lang.NullPointerException")
_TOKEN = re.compile(r"\btoken=[A-Za-z0-9_-]+")
_TOKEN_PARTS = re.compile(r"\b(issueDate|maxDate|sequenceNumber|masterKeyId)=\d+")
_JVM_WORDS = re.compile(r"(java\.lang\.(ClassCast|NumberFormat)Exception): .*")
# Object.toString of a Java class that has none of its own.
_OBJECT = re.compile(r"(?<=Provider)@[0-9a-f]{1,8}\b")


def of_answer(
    server: KeyServer, status: int, reason: str, headers: Mapping[str, str], body: bytes, *, exact: bool = False
) -> Record:
    """The record of one HTTP answer; absent headers are absent fields."""
    record = {"status": str(status), "reason": text(server, reason)}
    for header, field in _HEADERS.items():
        value = next((value for name, value in headers.items() if name.lower() == header.lower()), None)
        if value is not None:
            record[field] = _NEGOTIATE.sub("Negotiate <token>", _cookie(text(server, value)))
    return {**record, **_body(server, record.get("type", ""), body, exact=exact)}


def _body(server: KeyServer, content_type: str, body: bytes, *, exact: bool) -> Record:
    if not body:
        return {"body": "nothing"}
    if content_type.startswith("text/html"):
        return {"body": "HTML"}
    if not content_type.startswith("application/json"):
        return {"body": f"{len(body)} bytes" if b"<application" not in body else "WADL"}
    value = json.loads(body)
    if isinstance(value, dict) and list(value) == ["RemoteException"]:
        error = value["RemoteException"]
        assert list(error) == ["message", "exception", "javaClassName"], error
        assert error["exception"] == re.split(r"[.$]", error["javaClassName"])[-1], error
        words = "<the JVM's words>" if error["javaClassName"] in _JVM_CLASSES else str(error["message"])
        return {"exception": error["javaClassName"], "message": text(server, words)}
    return {"body": text(server, json.dumps(value if exact else _blur(value), ensure_ascii=False, sort_keys=True))}


def _blur(value: Any) -> Any:
    if isinstance(value, list):
        return [_blur(item) for item in value]
    if isinstance(value, dict):
        return {name: _blur_member(name, item) for name, item in value.items()}
    return value


def _blur_member(name: str, value: Any) -> Any:
    if name in _RANDOM and isinstance(value, str):
        return describe_base64(value)
    if name in ("created", "long") and isinstance(value, int):
        return "<ms>" if value > _TIME else value
    return _blur(value)


def describe_base64(value: str) -> str:
    """Length and spelling of a base64 value, `<16 bytes>` when it is URL-safe without padding."""
    assert _BASE64.fullmatch(value), "not base64"
    size = len(value.rstrip("=")) * 3 // 4
    spelling = ", standard alphabet" if set(value) & set("+/") else ""
    return f"<{size} bytes{spelling}{', padded' if value.endswith('=') else ''}>"


def _cookie(value: str) -> str:
    for pattern, placeholder in _COOKIE_PARTS:
        value = pattern.sub(placeholder, value)
    return value


def text(server: KeyServer, value: str) -> str:
    """A message without this server's port and the name of its store."""
    if server.scheme == "https":
        value = value.replace("https://", "http://").replace("kms://https@", "kms://http@")
    value = _OBJECT.sub("@<hash>", value.replace(server.store, "<store>"))
    value = _TOKEN.sub("token=<token>", value)
    value = _TOKEN_PARTS.sub(r"\1=<number>", value)
    value = _JVM_WORDS.sub(r"\1: <the JVM's words>", value)
    return re.sub(rf"\b(localhost|127\.0\.0\.[12])([:/]){server.port}\b", r"\1\2<port>", value)
