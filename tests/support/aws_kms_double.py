"""AWS KMS in one process of its own, for what moto does not do as AWS does.

It speaks the KMS JSON protocol (`TrentService.*`) to whoever signs with Signature Version 4, which it verifies, and of
STS and IAM the two calls that tell who that is. What it does for real: AES-256-GCM over the encryption context, key
states (a disabled key, one to be deleted or without material does nothing), aliases, key policies, identity policies
and grants (`aws_policy`), keys of another account, ReEncrypt with both of its permissions.

What tests make it do wrong is told at `/double/fault`: throttle or fail with any code, wait, hang, cut an answer off,
answer nonsense, redirect. Every signed request is kept without its secrets, for tests that count calls.

    with AwsKmsDouble.started() as double:
        client = double.client("kms", double.admin)
        key = client.create_key()["KeyMetadata"]["Arn"]
        double.fault("Decrypt", code="ThrottlingException", times=2)

One region and two accounts. Nothing rests on a disk. It listens on loopback alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.server
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from aws_kms_world import REGION, AwsError, Operations, World
from aws_policy import Asked, Principal, is_allowed

ACCOUNT = "111122223333"
OTHER_ACCOUNT = "444455556666"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/service/ringfence-kms"
_START_S = 20.0


@dataclass(frozen=True)
class Credentials:
    """What a client of the double signs with."""

    access_key: str
    secret: str
    token: str | None = None

    def environment(self) -> dict[str, str]:
        """For a process that is to sign so; nothing else is looked for."""
        found = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret}
        return found | ({"AWS_SESSION_TOKEN": self.token} if self.token else {}) | {"AWS_EC2_METADATA_DISABLED": "true"}


def authenticate(world: World, handler: http.server.BaseHTTPRequestHandler, body: bytes) -> tuple[Principal, str]:
    """Who signed the request, and for which service: Signature Version 4, verified."""
    header = handler.headers.get("Authorization", "")
    scheme, _, rest = header.partition(" ")
    if scheme != "AWS4-HMAC-SHA256":
        raise AwsError("MissingAuthenticationTokenException", status=400)
    fields = dict(part.strip().split("=", 1) for part in rest.split(","))
    access_key, date, region, service, _ = fields["Credential"].split("/")
    principal = world.principals.get(access_key)
    if principal is None or handler.headers.get("X-Amz-Security-Token") != principal.token:
        raise AwsError("UnrecognizedClientException", "The security token included in the request is invalid.")
    headers = "".join(
        f"{name}:{' '.join((handler.headers.get(name) or '').split())}\n" for name in fields["SignedHeaders"].split(";")
    )
    canonical = "\n".join(
        ["POST", handler.path, "", headers, fields["SignedHeaders"], hashlib.sha256(body).hexdigest()]
    )
    scope = f"{date}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = "\n".join(["AWS4-HMAC-SHA256", handler.headers["X-Amz-Date"], scope, digest])
    signing_key = b"AWS4" + principal.secret.encode()
    for part in (date, region, service, "aws4_request"):
        signing_key = hmac.digest(signing_key, part.encode(), "sha256")
    expected = hmac.new(signing_key, to_sign.encode(), "sha256").hexdigest()
    if not hmac.compare_digest(expected, fields["Signature"]):
        raise AwsError("InvalidSignatureException", "The request signature we calculated does not match")
    if principal.expired:
        raise AwsError("ExpiredTokenException", "The security token included in the request is expired")
    return principal, service


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    world: World

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.startswith("/double/"):
            self._answer(200, json.dumps(control(self.world, self.path[8:], json.loads(body))).encode())
            return
        self.world.arrivals += 1
        target = self.headers.get("X-Amz-Target", "")
        operation = target.removeprefix("TrentService.") if target else _form(body).get("Action", "")
        try:
            principal, service = authenticate(self.world, self, body)
            fault = self.world.take_fault(operation)
            if fault is not None and self._go_wrong(fault, body):
                return
            answer = self._do(principal, service, operation, body)
        except AwsError as error:
            self._refuse(error, is_json=bool(target))
            return
        if fault is not None and "key" in fault:
            answer = json.dumps(json.loads(answer) | {"KeyId": fault["key"]}).encode()
        self._answer(200, answer, cut=fault is not None and fault.get("truncate", False))

    def _do(self, principal: Principal, service: str, operation: str, body: bytes) -> bytes:
        if service in ("sts", "iam"):
            return identity_answer(principal, operation, _form(body))
        ask = json.loads(body)
        with self.world.lock:
            self.world.requests.append(
                {
                    "operation": operation,
                    "principal": principal.arn,
                    "key": ask.get("KeyId", ask.get("DestinationKeyId")),
                    "context": ask.get("EncryptionContext", ask.get("DestinationEncryptionContext")),
                    "agent": self.headers.get("User-Agent"),
                }
            )
            method: Callable[[Mapping[str, Any]], dict[str, Any] | None] | None
            method = getattr(Operations(self.world, principal), operation, None) if operation.isalpha() else None
            if method is None:
                raise AwsError("UnknownOperationException")
            return json.dumps(method(ask) or {}).encode()

    def _go_wrong(self, fault: Mapping[str, Any], body: bytes) -> bool:
        """Whether the answer was given here."""
        if fault.get("delay_s"):
            time.sleep(fault["delay_s"])
        if fault.get("hang"):
            # Until the client hangs up.
            with contextlib.suppress(OSError):
                self.connection.settimeout(60)
                self.connection.recv(1)
            self.close_connection = True
            return True
        if fault.get("reset"):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return True
        if "redirect" in fault:
            self._answer(307, b"", location=fault["redirect"])
            return True
        if "body" in fault:
            self._answer(fault.get("status", 200), fault["body"].encode())
            return True
        if "code" in fault:
            # An answer that shows what it was asked: nobody may repeat it.
            message = body.decode() if fault.get("echo") else ""
            raise AwsError(fault["code"], message, fault.get("status", 400))
        return False

    def _refuse(self, error: AwsError, *, is_json: bool) -> None:
        if is_json:
            body = json.dumps({"__type": f"com.amazonaws.kms#{error.code}", "message": str(error)}).encode()
        else:
            body = f"<ErrorResponse><Error><Code>{error.code}</Code><Message/></Error></ErrorResponse>".encode()
        self._answer(error.status, body)

    def _answer(self, status: int, body: bytes, *, cut: bool = False, location: str | None = None) -> None:
        head = [
            f"HTTP/1.1 {status} Whatever",
            "Content-Type: application/x-amz-json-1.1",
            f"Content-Length: {len(body)}",
            f"x-amzn-RequestId: {uuid.uuid4()}",
        ]
        if location is not None:
            head.append(f"Location: {location}")
        self.wfile.write("\r\n".join([*head, "", ""]).encode() + (body[: len(body) // 2] if cut else body))
        if cut:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Silence: the log of a test is pytest's."""


def _form(body: bytes) -> dict[str, str]:
    return dict(urllib.parse.parse_qsl(body.decode()))


def identity_answer(principal: Principal, operation: str, form: Mapping[str, str]) -> bytes:
    """STS's GetCallerIdentity, which needs no permission, and IAM's GetRole, which does."""
    if operation == "GetCallerIdentity":
        inner = f"<Arn>{principal.arn}</Arn><UserId>U</UserId><Account>{principal.account}</Account>"
    elif operation == "GetRole":
        asked = Asked("iam:GetRole", principal.role_arn, principal.account, {})
        everything = {"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "*"}]}
        own = Principal(**{**vars(principal), "account": "0"})  # another account's: its own policy decides
        if not is_allowed(own, asked, everything, []) or not principal.role_arn.endswith("/" + form["RoleName"]):
            raise AwsError("AccessDenied", status=403)
        inner = f"<Role><Arn>{principal.role_arn}</Arn><RoleName>{form['RoleName']}</RoleName></Role>"
    else:
        raise AwsError("InvalidAction")
    return f"<{operation}Response><{operation}Result>{inner}</{operation}Result></{operation}Response>".encode()


def control(world: World, what: str, ask: Mapping[str, Any]) -> Any:
    """What tests say to the double itself."""
    with world.lock:
        match what:
            case "fault":
                world.faults.append(dict(ask))
            case "mend":
                world.faults.clear()
            case "principal":
                principal = world.principals[ask["access_key"]]
                principal.policy = ask.get("policy", principal.policy)
                principal.expired = ask.get("expired", principal.expired)
            case "key":
                vars(world.keys[ask["arn"]]).update(ask["fields"])
            case "arrivals":
                return world.arrivals
            case "requests":
                found, world.requests = world.requests, []
                return found
            case _:
                raise AssertionError(what)
    return {}


def serve(credentials: Mapping[str, Credentials]) -> NoReturn:
    """Prints the port, then serves until the process is ended or its standard input closes."""
    world = World()
    everything = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    for name, arn, role_arn, account, policy in (
        ("admin", f"arn:aws:iam::{ACCOUNT}:user/admin", f"arn:aws:iam::{ACCOUNT}:user/admin", ACCOUNT, everything),
        ("server", f"arn:aws:sts::{ACCOUNT}:assumed-role/ringfence-kms/i-0abc", ROLE, ACCOUNT, {}),
        ("other_admin", f"arn:aws:iam::{OTHER_ACCOUNT}:user/x", f"arn:aws:iam::{OTHER_ACCOUNT}:user/x", OTHER_ACCOUNT,
         everything),
    ):  # fmt: skip
        held = credentials[name]
        world.principals[held.access_key] = Principal(
            held.access_key, held.secret, held.token, arn, role_arn, account, policy
        )
    Handler.world = world
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()
    os._exit(0)


def _made_up(prefix: str, *, token: bool) -> Credentials:
    return Credentials(
        prefix + secrets.token_hex(8).upper(), secrets.token_urlsafe(30), secrets.token_urlsafe(90) if token else None
    )


class AwsKmsDouble:
    """A running double, and what its users sign with: `admin` may do everything in its account, `server` is a session
    of the role ROLE that no policy names yet, `other_admin` is another account's.
    """

    region = REGION

    def __init__(self, url: str, admin: Credentials, server: Credentials, other_admin: Credentials) -> None:
        self.url = url
        self.admin = admin
        self.server = server
        self.other_admin = other_admin
        self._clients: dict[tuple[str, Credentials], Any] = {}

    @classmethod
    @contextlib.contextmanager
    def started(cls) -> Iterator[AwsKmsDouble]:
        held = {
            "admin": _made_up("AKIA", token=False),
            "server": _made_up("ASIA", token=True),
            "other_admin": _made_up("AKIA", token=False),
        }
        process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({name: vars(each) for name, each in held.items()}) + "\n")
            process.stdin.flush()
            port = int(process.stdout.readline())
            yield cls(f"http://127.0.0.1:{port}", **held)
        finally:
            # A child that somebody forked meanwhile may hold its standard input open.
            process.terminate()
            process.communicate(timeout=_START_S)

    def client(self, service: str, credentials: Credentials) -> Any:
        """A plain boto3 client, for what administrators do. Kept: the SDK takes its time to make one."""
        import boto3.session

        if (service, credentials) not in self._clients:
            held = (credentials.access_key, credentials.secret, credentials.token)
            session = boto3.session.Session(*held, region_name=REGION)
            self._clients[service, credentials] = session.client(service, endpoint_url=self.url)
        return self._clients[service, credentials]

    def fault(self, operation: str, *, times: int = 1_000_000, **fault: Any) -> None:
        """From now on `operation` (`*` for all) goes wrong so often: see `Handler._go_wrong`.

        After it was throttled, the SDK itself sends one request in two seconds at first, mended or not.
        """
        self._say("fault", {"operation": operation, "times": times, **fault})

    def mend(self) -> None:
        """No faults any more."""
        self._say("mend", {})

    def set_policy(self, credentials: Credentials, policy: Mapping[str, Any]) -> None:
        """An identity policy."""
        self._say("principal", {"access_key": credentials.access_key, "policy": policy})

    def expire(self, credentials: Credentials, *, expired: bool = True) -> None:
        self._say("principal", {"access_key": credentials.access_key, "expired": expired})

    def set_key(self, arn: str, **fields: Any) -> None:
        """Puts a key into a state that no call leads to at once."""
        self._say("key", {"arn": arn, "fields": fields})

    def take_requests(self) -> list[dict[str, Any]]:
        """KMS requests since the last time, in order: operation, principal, key, context, agent."""
        found = self._say("requests", {})
        assert isinstance(found, list)
        return found

    def count_arrivals(self) -> int:
        """All requests so far, of whatever kind and signature."""
        found = self._say("arrivals", {})
        assert isinstance(found, int)
        return found

    def _say(self, what: str, ask: Mapping[str, Any]) -> Any:
        request = urllib.request.Request(f"{self.url}/double/{what}", json.dumps(ask).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=_START_S) as response:
            return json.load(response)


if __name__ == "__main__":
    given = json.loads(sys.stdin.readline())
    serve({name: Credentials(**each) for name, each in given.items()})
