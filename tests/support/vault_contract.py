"""The server that the Vault contract suite speaks to: the double, or a real one.

Against a real server everything lies below mounts, policies and roles whose names end in a random suffix, and
`ContractServer.clean_up` takes all of them away; nothing else there is touched. The client is http.client and nothing
of the product's.
"""

from __future__ import annotations

import base64
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vault_double.flavour import Flavour, flavour_of_version
from vault_doubles import VaultAnswer, VaultDouble, running_vault, send

ADDRESS, TOKEN = "RINGFENCE_TEST_VAULT_ADDR", "RINGFENCE_TEST_VAULT_TOKEN"
CA_FILE, NAMESPACE = "RINGFENCE_TEST_VAULT_CACERT", "RINGFENCE_TEST_VAULT_NAMESPACE"
_DEADLINE_S = 20.0

DERIVED = {"type": "aes256-gcm96", "derived": True, "exportable": False, "allow_plaintext_backup": False}
CONTEXT = base64.b64encode(bytes(range(32))).decode()
OTHER_CONTEXT = base64.b64encode(bytes(range(1, 33))).decode()
DEK = base64.b64encode(bytes(range(100, 132))).decode()


@dataclass
class ContractServer:
    """A server with a Transit mount, a KV v2 mount and login methods of the suite's own."""

    address: str
    token: str = field(repr=False)
    ca_file: Path | None = None
    namespace: str = ""
    double: VaultDouble | None = None
    flavour: Flavour = field(init=False)
    suffix: str = field(default_factory=lambda: secrets.token_hex(4))
    _undo: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.flavour = flavour_of_version(str(self.call("GET", "sys/health", namespace="").body["version"]))
        try:
            self._prepare()
        except BaseException:
            self.clean_up()
            raise

    def _prepare(self) -> None:
        self.transit = self.mount("transit", {"type": "transit"})
        self.kv = self.mount("kv", {"type": "kv", "options": {"version": "2"}})
        self.approle = self.mount_auth("approle")
        self.jwt = self.mount_auth("jwt")
        # A fresh mount of KV answers 400 while it prepares itself.
        self.until(lambda: self.call("GET", f"{self.kv}/config").status == 200)
        self.done("POST", f"{self.kv}/config", {"cas_required": True, "max_versions": 20})

    @property
    def is_double(self) -> bool:
        return self.double is not None

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        namespace: str | None = None,
    ) -> VaultAnswer:
        """One request as the suite's privileged token, or as another; an empty one sends none."""
        sent = dict(headers or {})
        used = self.token if token is None else token
        if used:
            sent["X-Vault-Token"] = used
        space = self.namespace if namespace is None else namespace
        if space:
            sent["X-Vault-Namespace"] = space
        return send(self.address, method, path, body, sent, self.ca_file)

    def named(self, name: str) -> str:
        """A name of the suite's own."""
        return f"ringfence-contract-{name}-{self.suffix}"

    def fresh(self, name: str) -> str:
        """A name that no other test has."""
        return f"{name}-{secrets.token_hex(4)}"

    def mount(self, name: str, settings: Mapping[str, Any]) -> str:
        """Mounts an engine and returns its path without the slash."""
        path = self.named(name)
        self.done("POST", f"sys/mounts/{path}", dict(settings))
        self._undo.append(("DELETE", f"sys/mounts/{path}"))
        return path

    def mount_auth(self, kind: str, name: str = "") -> str:
        """Mounts a login method and returns its path with `auth/` before it."""
        path = self.named(name or kind)
        self.done("POST", f"sys/auth/{path}", {"type": kind})
        self._undo.append(("DELETE", f"sys/auth/{path}"))
        return f"auth/{path}"

    def done(self, method: str, path: str, body: Any = None) -> VaultAnswer:
        """A call of a test's preparation, which must succeed."""
        answer = self.call(method, path, body)
        assert answer.status < 300, (method, path, answer.status, answer.errors)
        return answer

    def key(self, **parameters: Any) -> str:
        """A new Transit key, derived unless told otherwise; returns its name."""
        name = self.fresh("key")
        self.done("POST", f"{self.transit}/keys/{name}", {**DERIVED, **parameters})
        return name

    def rotate(self, name: str, times: int = 1) -> None:
        for _ in range(times):
            self.done("POST", f"{self.transit}/keys/{name}/rotate")

    def configure(self, name: str, **settings: Any) -> VaultAnswer:
        return self.call("POST", f"{self.transit}/keys/{name}/config", settings)

    def encrypt(self, name: str, **body: Any) -> VaultAnswer:
        """Encrypts DEK under CONTEXT unless told otherwise; a parameter of None is not sent."""
        return self.use("encrypt", name, {"plaintext": DEK, "context": CONTEXT, **body})

    def decrypt(self, name: str, ciphertext: Any, **body: Any) -> VaultAnswer:
        return self.use("decrypt", name, {"ciphertext": ciphertext, "context": CONTEXT, **body})

    def rewrap(self, name: str, ciphertext: Any, **body: Any) -> VaultAnswer:
        return self.use("rewrap", name, {"ciphertext": ciphertext, "context": CONTEXT, **body})

    def use(self, operation: str, name: str, body: Mapping[str, Any], token: str | None = None) -> VaultAnswer:
        sent = {parameter: value for parameter, value in body.items() if value is not None}
        return self.call("POST", f"{self.transit}/{operation}/{name}", sent, token=token)

    def ciphertexts(self, name: str, count: int) -> list[str]:
        """So many ciphertexts of DEK under CONTEXT."""
        items = [{"plaintext": DEK, "context": CONTEXT}] * count
        results = self.use("encrypt", name, {"batch_input": items}).data["batch_results"]
        return [str(result["ciphertext"]) for result in results]

    def write_policy(self, text: str) -> str:
        """A policy of the suite's own; returns its name. `{transit}` and `{kv}` in it become the mounts."""
        name = self.named(self.fresh("policy"))
        for mark, path in (("{transit}", self.transit), ("{kv}", self.kv), ("{approle}", self.approle)):
            text = text.replace(mark, path)
        self.done("PUT", f"sys/policies/acl/{name}", {"policy": text})
        self._undo.append(("DELETE", f"sys/policies/acl/{name}"))
        return name

    def token_for(self, text: str, **settings: Any) -> str:
        """A token with one policy and without the built-in default one."""
        wished = {"policies": [self.write_policy(text)], "no_default_policy": True, "ttl": "10m", **settings}
        return str(self.done("POST", "auth/token/create", wished).body["auth"]["client_token"])

    def let_pass(self, seconds: float) -> None:
        """Lets the server's time pass: the double's clock is moved, a real one is waited for."""
        if self.double is not None:
            self.double.advance(seconds)
            return
        began = time.monotonic()
        self.until(lambda: time.monotonic() > began + seconds)

    def until(self, condition: Callable[[], bool]) -> None:
        """Waits for a condition; fails at the deadline."""
        deadline = time.monotonic() + _DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, "the server did not get there in time"
            time.sleep(0.02)

    def clean_up(self) -> None:
        """Takes away everything the suite made on the server."""
        while self._undo:
            self.call(*self._undo.pop())

    def undo_later(self, method: str, path: str) -> None:
        """Called when the suite has ended."""
        self._undo.append((method, path))


def is_real_asked_for() -> bool:
    """Whether the environment names a server."""
    return bool(os.environ.get(ADDRESS) and os.environ.get(TOKEN))


def contract_kinds() -> list[str]:
    """What a suite's server fixture is parametrized with: the double, and `real` when the environment names one."""
    return ["double", *(["real"] if is_real_asked_for() else [])]


@contextmanager
def contract_server(kind: str) -> Iterator[ContractServer]:
    """The server of one of `contract_kinds`, with what the suite made on it taken away at the end."""
    if kind == "double":
        with running_vault() as double:
            yield ContractServer(double.address, double.root_token, double=double)
        return
    found = real_server()
    assert found is not None, f"{ADDRESS} and {TOKEN} name no server"
    try:
        yield found
    finally:
        found.clean_up()


def real_server() -> ContractServer | None:
    """The server that the environment names, or None."""
    address, token = os.environ.get(ADDRESS), os.environ.get(TOKEN)
    if not address or not token:
        return None
    ca_file = os.environ.get(CA_FILE)
    namespace = os.environ.get(NAMESPACE, "")
    return ContractServer(address, token, Path(ca_file) if ca_file else None, namespace)
