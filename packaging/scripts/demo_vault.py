"""The Vault or OpenBao that the demonstration was given: a cluster of its own there, and none of it left at the end.

Rules: mounts, policies and role carry a random name, so nothing of anybody else is touched. The administrator's token
comes from a file or the environment, and goes on in a file of mode 0600 and in headers: never in an argument, never
into a process that is not Ringfence's. No redirect is followed with it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import requests
from transcript import NotSoError, chapter, check, run_both

TOKEN_VARIABLE = "VAULT_TOKEN"
_TIMEOUT_S = 30
# 400 is what OpenBao says of a mount that is not there.
_NOT_THERE = (400, 404)


def take_token(token_file: Path | None) -> str:
    """The administrator's token, which is in this process's environment no more. Ends the demonstration without one."""
    given = os.environ.pop(TOKEN_VARIABLE, "")
    if token_file is not None:
        given = token_file.read_text().strip()
    if not given:
        raise NotSoError(f"an administrator's token is in --vault-token-file FILE or in {TOKEN_VARIABLE}")
    return given


class GivenVault:
    """One cluster's part of it. `settings` is the file with the `vault` block."""

    def __init__(self, address: str, token: str, ca_file: Path | None, directory: Path, ringfence: Path) -> None:
        self.cluster = f"demo-{secrets.token_hex(4)}"
        self.mount = f"transit-{self.cluster}"
        self._approle = f"approle-{self.cluster}"
        self._directory = directory / "vault"
        self._directory.mkdir(mode=0o700)
        self._ringfence = ringfence
        self._address = address.rstrip("/")
        self._session = requests.Session()
        # Neither proxies nor authorities of the environment: as Ringfence itself.
        self._session.trust_env = False
        self._session.verify = True if ca_file is None else str(ca_file)
        self._session.headers["X-Vault-Token"] = token
        self.settings = self._directory / "kms-settings.yaml"
        self.settings.write_text(json.dumps({"vault": self._block(ca_file)}, indent=2) + "\n")
        self._token_file = self._directory / "administrator"
        self._token_file.touch(mode=0o600)
        self._token_file.write_text(token)

    def _block(self, ca_file: Path | None) -> dict[str, Any]:
        trust = {} if ca_file is None else {"ca_file": str(ca_file.absolute())}
        return {
            "addresses": [self._address],
            "cluster": self.cluster,
            **trust,
            "token_file": str(self._directory / "token"),
            "auth": {
                "mount": self._approle,
                "role_id_file": str(self._directory / "vault-role-id"),
                "wrapped_secret_id_file": str(self._directory / "vault-wrapped-secret-id"),
            },
        }

    def prepare(self) -> None:
        """Mount, policies and role as `ringfence vault setup` makes them, and what the key server's login needs."""
        chapter("A Vault for keys that never leave it")
        print(self.settings.read_text())
        setup = ("vault", "setup", "--config", str(self.settings), "--token-file", str(self._token_file))
        self._run(*setup, "--dry-run")
        check("a plan changes nothing", self._find(f"sys/mounts/{self.mount}") is None)
        self._run(*setup, "--yes", "--issue", str(self._directory))
        self._token_file.unlink()
        check("the engine is there", self._find(f"sys/mounts/{self.mount}") is not None)

    def zone_keys(self) -> list[dict[str, Any]]:
        """Every Transit key of a zone, as Vault describes it."""
        listed = self._find(f"{self.mount}/keys?list=true")
        names = [] if listed is None else [name for name in listed["keys"] if name != "z-wrap"]
        found = [self._find(f"{self.mount}/keys/{name}") for name in names]
        return [key for key in found if key is not None]

    def gives_out(self, name: str) -> bool:
        """Whether an administrator of Vault can have a key's material."""
        return self._ask("GET", f"{self.mount}/export/encryption-key/{name}").status_code == 200

    def take_away(self) -> None:
        """Everything that was made there, zone keys included, and the files here."""
        chapter("Taking it out of Vault")
        policies = [f"sys/policies/acl/{name}" for name in self._policies()]
        for path in (f"sys/mounts/{self.mount}", f"sys/auth/{self._approle}", *policies):
            print(f"DELETE {path}", flush=True)
            if self._ask("DELETE", path).status_code not in (200, 204, *_NOT_THERE):
                raise NotSoError(f"{self._address} deletes {path}")
        check("the engine is gone", self._find(f"sys/mounts/{self.mount}") is None)
        shutil.rmtree(self._directory)

    def forget(self) -> None:
        """No token is left here; Vault keeps what was made, and the key server its own login."""
        self._token_file.unlink(missing_ok=True)
        policies = ", ".join(self._policies())
        print(f"kept in Vault: {self.mount}, auth/{self._approle}, the policies {policies}")

    def _policies(self) -> list[str]:
        out = self._run("vault", "policy", "--config", str(self.settings), "--json", show=False)
        return list(json.loads(out))

    def _run(self, *arguments: str, show: bool = True) -> bytes:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RINGFENCE_")}
        environment["PATH"] = os.pathsep.join((str(self._ringfence.parent), environment.get("PATH", "")))
        command = (self._ringfence.name, *arguments)
        return run_both(*command, environment=environment, directory=self._directory, show=show)[0]

    def _find(self, path: str) -> dict[str, Any] | None:
        answer = self._ask("GET", path)
        if answer.status_code in _NOT_THERE:
            return None
        if answer.status_code != 200:
            raise NotSoError(f"{self._address} answers {path}: it says {answer.status_code}")
        return dict(answer.json()["data"])

    def _ask(self, method: str, path: str) -> requests.Response:
        url = f"{self._address}/v1/{path}"
        try:
            return self._session.request(method, url, timeout=_TIMEOUT_S, allow_redirects=False)
        except requests.RequestException as error:
            raise NotSoError(f"{self._address} answers {path}: {type(error).__name__}") from None
