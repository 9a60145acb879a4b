"""A Vault prepared for one cluster of a test's own, as `ringfence vault setup` prepares it: on the double, or on the
server that RINGFENCE_TEST_VAULT_ADDR and RINGFENCE_TEST_VAULT_TOKEN name, where everything is taken away again."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vault_contract import ADDRESS, TOKEN
from vault_doubles import VaultAnswer, VaultDouble, running_vault, send
from vault_settings import make_settings, write_private

from ringfence_agent.vault.control import FixedToken, VaultControl
from ringfence_agent.vault.login import VaultLogin, log_in_and_share
from ringfence_agent.vault.open import open_control
from ringfence_agent.vault.policy import PolicyRole, policy_name
from ringfence_agent.vault.settings import VaultSettings
from ringfence_agent.vault.setup import SetupChoices, VaultSetup
from ringfence_zones.secret import Secret

SERVERS = ["double", *(["real"] if os.environ.get(ADDRESS) and os.environ.get(TOKEN) else [])]
"""For a fixture's `params`: the double always, and the server that the environment names."""

ROLE_ID, WRAPPED, SECRET_ID = "vault-role-id", "vault-wrapped-secret-id", "vault-secret-id"


@dataclass
class VaultCluster:
    """One cluster's part of a Vault. Names end in something random, and lie below nothing that was there before."""

    addresses: list[str]
    root_token: str = field(repr=False)
    directory: Path
    double: VaultDouble | None = None
    ca_file: Path | None = None
    name: str = field(default_factory=lambda: f"test-{secrets.token_hex(4)}")
    has_store: bool = True
    """Whether kms.yaml names a key store in KV."""
    stack: ExitStack = field(default_factory=ExitStack, repr=False)

    @property
    def kv_mount(self) -> str:
        return f"kv-{self.name}"

    @property
    def approle_mount(self) -> str:
        return f"approle-{self.name}"

    def settings(self, **fields: Any) -> VaultSettings:
        """As kms.yaml would say; a wrapped secret id in `directory` unless `auth` says otherwise."""
        prefix = f"ringfence/{self.name}" if self.has_store else None
        auth = {
            "mount": self.approle_mount,
            "role_id_file": self.directory / ROLE_ID,
            "wrapped_secret_id_file": self.directory / WRAPPED,
        }
        given = {"cluster": self.name, "kv_mount": self.kv_mount, "auth": auth, "ca_file": self.ca_file, **fields}
        return replace(make_settings(self.addresses, self.directory, **given), keystore_prefix=prefix)

    @property
    def block(self) -> dict[str, Any]:
        """What kms.yaml says of it where the key server is logged in already."""
        return {
            "addresses": self.addresses,
            "cluster": self.name,
            "kv_mount": self.kv_mount,
            "token_file": str(self.settings().token_file),
            "auth": {"method": "token_file"},
        }

    def repeatable_settings(self, **fields: Any) -> VaultSettings:
        """With a secret id that is good for every login."""
        auth = {
            "mount": self.approle_mount,
            "role_id_file": self.directory / ROLE_ID,
            "secret_id_file": self.directory / SECRET_ID,
        }
        return self.settings(auth=auth, **fields)

    def call(self, method: str, path: str, body: Any = None, token: str | None = None) -> VaultAnswer:
        """One request of the test's own, as root unless a token is given; the product has no part in it."""
        headers = {"X-Vault-Token": self.root_token if token is None else token}
        return send(self.addresses[0], method, path, body, headers, self.ca_file)

    def done(self, method: str, path: str, body: Any = None) -> VaultAnswer:
        """As `call`, and it must succeed."""
        answer = self.call(method, path, body)
        assert answer.status < 300, (method, path, answer.status, answer.errors)
        return answer

    def until(self, condition: Callable[[], bool]) -> None:
        """Waits for a condition; fails at the deadline."""
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, "the server did not get there in time"
            time.sleep(0.02)

    def administrator(self, settings: VaultSettings | None = None) -> VaultControl:
        return self.stack.enter_context(
            VaultControl(settings or self.settings(), FixedToken(Secret(self.root_token.encode())))
        )

    def as_token(self, token: str) -> VaultControl:
        return self.stack.enter_context(VaultControl(self.settings(), FixedToken(Secret(token.encode()))))

    def own(self, settings: VaultSettings | None = None) -> VaultControl:
        """The key server's identity, once it is logged in."""
        return self.stack.enter_context(open_control(settings or self.settings()))

    def set_up(self, **choices: Any) -> VaultSetup:
        prepared = VaultSetup(self.administrator(), SetupChoices(**choices))
        prepared.apply()
        return prepared

    def issue(self, prepared: VaultSetup) -> str:
        """What a node needs for its first login, in `directory`; the wrapping token."""
        role_id, wrapped = prepared.issue_secret_id()
        write_private(self.directory / ROLE_ID, role_id)
        write_private(self.directory / WRAPPED, wrapped.token.reveal())
        return wrapped.token.reveal().decode()

    def set_up_and_log_in(self) -> VaultControl:
        """Everything, and the key server logged in."""
        self.issue(self.set_up())
        settings = self.settings()
        log_in_and_share(settings, VaultLogin(settings))
        return self.own()

    def give_repeatable_secret_id(self, **role: Any) -> str:
        """A secret id for any number of logins, which a role has to allow."""
        path = f"auth/{self.approle_mount}/role/{self.settings().role}"
        self.done("POST", path, {"secret_id_num_uses": 0, "secret_id_ttl": 0, **role})
        write_private(self.directory / ROLE_ID, self.done("GET", f"{path}/role-id").data["role_id"])
        secret_id = str(self.done("POST", f"{path}/secret-id").data["secret_id"])
        write_private(self.directory / SECRET_ID, secret_id)
        return secret_id

    def token_with(self, hcl: str, **settings: Any) -> str:
        """A token with one policy of this text and without the built-in default one."""
        name = f"{self.name}-{secrets.token_hex(4)}"
        self.done("PUT", f"sys/policies/acl/{name}", {"policy": hcl})
        self.stack.callback(self.call, "DELETE", f"sys/policies/acl/{name}")
        wished = {"policies": [name], "no_default_policy": True, "ttl": "10m", **settings}
        return str(self.done("POST", "auth/token/create", wished).body["auth"]["client_token"])

    def clean_up(self) -> None:
        """Takes away everything, and closes what is open."""
        self.stack.close()
        settings = self.settings()
        self.call("DELETE", f"sys/mounts/{settings.transit_mount}")
        self.call("DELETE", f"sys/mounts/{self.kv_mount}")
        self.call("DELETE", f"sys/auth/{self.approle_mount}")
        for role in PolicyRole:
            self.call("DELETE", f"sys/policies/acl/{policy_name(role, settings)}")


@dataclass
class VaultServer:
    """A running server and a token that may do everything there."""

    addresses: list[str]
    root_token: str = field(repr=False)
    double: VaultDouble | None = None


@contextmanager
def vault_server(kind: str) -> Iterator[VaultServer]:
    """One of SERVERS until the block ends; a real one is there already and stays."""
    if kind == "real":
        yield VaultServer([os.environ[ADDRESS]], os.environ[TOKEN])
        return
    with running_vault() as double:
        yield server_of(double)


def server_of(double: VaultDouble) -> VaultServer:
    return VaultServer(double.addresses, double.root_token, double)


@contextmanager
def vault_cluster(server: VaultServer, directory: Path) -> Iterator[VaultCluster]:
    """A cluster until the block ends."""
    ca_file = server.double.ca_file if server.double else None
    cluster = VaultCluster(server.addresses, server.root_token, directory, server.double, ca_file)
    try:
        yield cluster
    finally:
        cluster.clean_up()
