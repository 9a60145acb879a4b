"""What a key server tells over HTTP to somebody whom its Unix socket does not serve: less, but not nothing.

To anybody: its address, whether it is ready, and its certificate, whoever issued it. To a user whom it authenticates:
its version and the revision it enforces. Nothing is sent in a request that is secret.
"""

from __future__ import annotations

import datetime
import http.client
import json
import os
import socket
import ssl
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from typing import Any

from cryptography import x509

from ringfence_agent.kms.audit.record import utc_text
from ringfence_zones.client_config import read_http_access
from ringfence_zones.errors import RingfenceError
from ringfence_zones.kms_client import KmsClient

_TIMEOUT_S = 10.0
_MAX_ANSWER_BYTES = 64 * 1024
_UNSPECIFIED = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on


def find_over_http(host: str, port: int, hadoop_conf: Path, user: str) -> dict[str, Any] | None:
    """`{"version", "revision", "server": {"address", "ready", "certificate"}}`, with None for what it did not tell.

    None altogether when no key server answers there.
    """
    named = "localhost" if host in _UNSPECIFIED else host
    for scheme, certificate in (("https", _find_certificate(named, port)), ("http", None)):
        ready = _find_ready(scheme, named, port) if scheme == "http" or certificate is not None else None
        if ready is None:
            continue
        address = f"kms://{scheme}@{socket.getfqdn() if host in _UNSPECIFIED else host}:{port}/kms"
        return {
            **_ask_as(address, hadoop_conf, user),
            "server": {"address": address, "ready": ready, "certificate": certificate},
        }
    return None


def _unverified() -> ssl.SSLContext:
    # Who issued the certificate is not the question here: it is only looked at, and nothing secret is sent.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _find_certificate(host: str, port: int) -> dict[str, Any] | None:
    """As the server's own status has it; None without TLS."""
    try:
        with (
            socket.create_connection((host, port), _TIMEOUT_S) as plain,
            _unverified().wrap_socket(plain, server_hostname=host) as tls,
        ):
            shown = tls.getpeercert(binary_form=True)
        not_after = x509.load_der_x509_certificate(shown or b"").not_valid_after_utc
    except (OSError, ValueError):
        return None
    left = not_after - datetime.datetime.now(datetime.UTC)
    return {"not_after": utc_text(not_after.timestamp()), "days_left": left.days}


def _find_ready(scheme: str, host: str, port: int) -> bool | None:
    """None when what answers is no key server of ours, or nothing does."""
    connection: http.client.HTTPConnection = (
        http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=_unverified())
        if scheme == "https"
        else http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    )
    try:
        with closing(connection):
            connection.request("GET", "/health/ready")
            answer = connection.getresponse()
            body = answer.read(_MAX_ANSWER_BYTES)
        if answer.status not in (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE):
            return None
        ready = json.loads(body)["ready"]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None
    return ready if isinstance(ready, bool) else None


def _ask_as(address: str, hadoop_conf: Path, user: str) -> dict[str, Any]:
    """What it tells this user, proven or claimed as the cluster's configuration says."""
    told = None
    try:
        access = read_http_access(hadoop_conf, os.environ)
        with closing(KmsClient(address, user, access=access, read_timeout_s=_TIMEOUT_S)) as client:
            told = client.find_ringfence_status()
    except RingfenceError:
        pass  # not authenticated, or its certificate is not trusted: it has told what it tells anybody
    return {"version": told.version if told else None, "revision": told.revision if told else None}
