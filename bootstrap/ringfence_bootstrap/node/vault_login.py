"""The key server's first login to its Vault, before the takeover imports keys under Vault's protector.

The running server logs in by itself; the import comes before it runs, and finds the token that this step leaves where
the server's processes read it. A wrapped secret id opens once: a set-up that is tried again needs another one, so nodes
are better given a way that lasts (`auth.method: aws_iam`, or `secret_id_file` bound to the cluster's network).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any

from ringfence_bootstrap.journal import Step
from ringfence_bootstrap.node import places
from ringfence_bootstrap.takeover.key_commands import ringfence_command
from ringfence_bootstrap.takeover.services import Account
from ringfence_zones.errors import InstallError

_TIMEOUT_S = 120
# Somebody else keeps the token there.
_BY_OTHERS = ("token_file", "agent")


def logs_in(settings: Mapping[str, Any]) -> bool:
    """Whether kms.yaml with these settings has a Vault that the key server logs in to itself."""
    vault = settings.get("vault")
    if not isinstance(vault, Mapping):
        return False
    auth = vault.get("auth")
    return not (isinstance(auth, Mapping) and auth.get("method") in _BY_OTHERS)


def vault_login_step() -> Step:
    """As the key server's user. Undone with the directory that the token is in, which is the key server's own."""
    return Step("vault-login", "logging the key server in to Vault", _log_in, lambda _undo: None)


def _log_in() -> None:
    command = [ringfence_command(), "vault", "login", "--config", str(places.KMS_SETTINGS), "--json"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
            cwd="/",
            **Account(places.KMS_USER).options(),
        )
    except (OSError, KeyError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"ringfence vault login did not run: {error}") from error
    if done.returncode:
        raise _failure(done.returncode, done.stderr)


def _failure(code: int, stderr: str) -> InstallError:
    lines = stderr.strip().splitlines() or ["it said nothing"]
    try:
        error = json.loads(lines[-1])["error"]
        return InstallError(str(error["message"]), hint=error.get("hint"), command=error.get("command"))
    except (ValueError, KeyError, TypeError):
        return InstallError(f"ringfence vault login ended with {code}: {lines[-1]}")
