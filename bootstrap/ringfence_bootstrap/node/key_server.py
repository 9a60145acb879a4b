"""A key server on a machine that is no EMR node, as steps of the same journal: `mode: key-server`.

Rules:

1. kms.yaml is written from `kms` of bootstrap.yaml. The server is tried with it, as its own user, before the unit is
   started; what it says then is the error.
2. A store that several servers share is made only with `init: true`, by the one machine that has no root key yet. The
   others get that root key by `files`. Two machines with one document and no `init` are the usual case.
3. Keys are never deleted in passing. A rollback leaves a store or a root key on this machine that something may have
   been sealed with, and `uninstall` refuses to delete one without being told so. A store elsewhere is never touched.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from ringfence_bootstrap.journal import Step, Undo
from ringfence_bootstrap.node import places
from ringfence_bootstrap.node.accounts import account_step
from ringfence_bootstrap.node.changes import Backups, directory_step, file_step
from ringfence_bootstrap.node.configuration import NodeConfig
from ringfence_bootstrap.node.facts import NodeFacts, Provisioning, is_emr_node
from ringfence_bootstrap.node.setting_up import fetched_file_step, unit_step
from ringfence_bootstrap.node.systemctl import is_known, systemctl
from ringfence_bootstrap.node.waiting import Waiting
from ringfence_bootstrap.takeover.key_commands import ringfence_command
from ringfence_bootstrap.takeover.services import Account
from ringfence_bootstrap.takeover.trial import trial_server
from ringfence_zones.errors import ConfigError, InstallError
from ringfence_zones.findings import Finding, Rule, Severity

ROLE = "key-server"
_TIMEOUT_S = 60
_LAST_CHARS = 300

CLEAR_WIRE = (
    "clients call this key server over plain HTTP (kms.allow_plain_http): whoever reads the network between it and the"
    " cluster reads data keys; give it a certificate (kms.tls)"
)
ONE_SERVER = (
    "the keys are in an SQLite store on this machine alone: while it is down no file of a zone is opened, and with its"
    " disk the keys are gone unless kms.settings.backup says where copies go; a pair shares a store in PostgreSQL,"
    " MariaDB or Vault"
)


def key_server_facts() -> NodeFacts:
    """This machine, as the status object has it: EMR knows nothing of it."""
    return NodeFacts(ROLE, None, socket.gethostname(), None, None, False, Provisioning.SUCCESSFUL)


def check_machine() -> None:
    """Raises ConfigError on a node of a cluster."""
    if is_emr_node():
        raise ConfigError(
            "mode: key-server is for machines off the cluster, and this is a node of an EMR cluster",
            hint="on a primary node that is mode: ringfence-kms; nodes that call a key server elsewhere take mode:"
            " clients-only",
        )


@dataclass(frozen=True, slots=True)
class KeyServerSetUp:
    """One machine's set-up. `delete_keys` is the leave to delete a store and a root key when it is undone."""

    config: NodeConfig
    facts: NodeFacts
    backups: Backups
    say: Callable[[str], None]
    delete_keys: bool = False
    _proven_empty: list[bool] = field(default_factory=list)

    def check(self) -> None:
        """Raises ConfigError for a machine that this is not for."""
        check_machine()

    def warnings(self) -> list[str]:
        """What this set-up does not protect from, for people."""
        told = [] if self.config.kms.tls is not None else [CLEAR_WIRE]
        return [*told, ONE_SERVER] if self._store_path() is not None else told

    def wait(self, waiting: Waiting) -> None:
        """Nothing that another program brings is needed here."""

    def steps(self) -> list[Step]:
        """Everything, in order. Files may be for the key server's user alone."""
        account = account_step(places.KMS_USER, places.KMS_STATE, self.backups)
        keys = directory_step("key-directory", places.KMS_STATE, 0o700, places.KMS_USER, private=True)
        text = self.kms_yaml
        return [
            replace(account, undo=lambda undo: self._keep_owner(account, undo)),
            replace(keys, undo=lambda undo: self._keep_keys(keys, undo)),
            directory_step("log-directory", places.KMS_LOGS, 0o750, places.KMS_USER, private=True),
            unit_step("kms-unit", places.KMS_UNIT, self.backups),
            *(fetched_file_step(number, each, self.backups) for number, each in enumerate(self.config.files)),
            file_step("kms-config", places.KMS_CONFIG, lambda: text().encode(), self.backups),
            Step("trial", "trying the key server with its configuration", self._try, self._look_for_keys),
            Step("start", f"starting {places.KMS_UNIT}", _start, lambda _undo: _stop()),
            Step("ready", "waiting until the key server is ready", self._wait_until_ready),
        ]

    def kms_yaml(self) -> str:
        """The server's own configuration."""
        kms = self.config.kms
        found: dict[str, object] = {"listen": kms.listen, "keystore": kms.keystore}
        for name, path in (
            ("keystore_password_file", kms.keystore_password_file),
            ("root_key_file", kms.root_key_file),
        ):
            found |= {name: str(path)} if path is not None else {}
        if kms.allow_plain_http:
            found["allow_plain_http"] = True
        if kms.tls is not None:
            found["tls"] = {"cert": str(kms.tls.cert), "key": str(kms.tls.key)}
        told = "# Written by ringfence emr node from bootstrap.yaml; ringfence uninstall removes it.\n"
        return told + yaml.safe_dump(found | kms.settings, sort_keys=False)

    def check_uninstall(self, begun: Mapping[str, Undo]) -> None:
        """Raises ConfigError when the only copy of keys would be deleted and nobody said that this is meant.

        `begun`: the journal's steps.
        """
        is_ours = begun.get("key-directory", {}).get("made", False)
        held = [str(each) for each in self._held() if is_ours and each.exists()]
        if held and not self.delete_keys and not self._is_empty():
            raise ConfigError(
                f"{' and '.join(held)} would be deleted, without which no key of this key server can be opened again:"
                " every file of every zone would be lost",
                hint="back it up off this machine first (ringfence keystore backup; a root key file is copied), or move"
                " the zones' files out; then say that it is meant",
                command="ringfence uninstall --delete-keys --yes",
            )

    # -- steps

    def _try(self) -> None:
        """On the address that it will have, so that a port that is taken shows now."""
        kms = self.config.kms
        options = ("--init",) if kms.init else ()
        owner = Account(places.KMS_USER)
        with trial_server(
            places.KMS_CONFIG, str(kms.listen), kms.keystore, places.JOURNALS, account=owner, options=options
        ):
            pass

    def _wait_until_ready(self) -> None:
        waiting = Waiting(lambda missing: self.say(f"waiting for {missing}"))
        waiting.until(server_waits_for, self.config.wait.kms, f"journalctl -u {places.KMS_UNIT}")

    # -- what holds keys on this machine

    def _store_path(self) -> Path | None:
        is_file, _, path = self.config.kms.keystore.partition("sqlite:///")
        return Path(path) if not is_file and path else None

    def _held(self) -> Iterator[Path]:
        """Files below our own directory without which keys are lost."""
        store = self._store_path()
        for each in (store, self.config.kms.root_key_file):
            if each is not None and each.is_relative_to(places.KMS_STATE):
                yield each

    def _is_empty(self) -> bool:
        """Whether a store on this machine holds no key at all; one elsewhere has other users, and is not asked."""
        if self._store_path() is None or not places.KMS_CONFIG.exists():
            return False
        command = [ringfence_command(), "keystore", "slots", "--json", "--config", str(places.KMS_CONFIG)]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
            found = json.loads(done.stdout)
            return not found["held"] and not any(each["versions"] for each in found["slots"])
        except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
            return False

    def _look_for_keys(self, _undo: Undo) -> None:
        """While kms.yaml is still there; whoever does not come past here knows of no emptiness."""
        self._proven_empty.append(self._is_empty())

    def _keep_keys(self, step: Step, undo: Undo) -> str | None:
        may_go = self.delete_keys or bool(self._proven_empty and self._proven_empty[-1])
        if undo["made"] and not may_go and any(os.path.lexists(each) for each in self._held()):
            return f"{places.KMS_STATE} stays, for keys may be sealed with what is in it"
        return step.undo(undo)

    def _keep_owner(self, step: Step, undo: Undo) -> str | None:
        if any(os.path.lexists(each) for each in self._held()):
            return f"the user {places.KMS_USER} stays, whose files those in {places.KMS_STATE} are"
        return step.undo(undo)


def server_waits_for() -> str | None:
    """What this machine's key server says of itself over its Unix socket; None when it is ready."""
    command = [ringfence_command(), "kms", "status", "--json", "--config", str(places.KMS_CONFIG)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"ringfence kms status did not run: {error}") from error
    if done.returncode == 0:
        return None
    try:
        lines = done.stderr.strip().splitlines()
        return f"the key server to be ready: {json.loads(lines[-1])['error']['message']}"
    except (ValueError, KeyError, TypeError, IndexError):
        return f"the key server to be ready: {done.stderr.strip()[-_LAST_CHARS:] or 'it is not'}"


def find_server_problems() -> Iterator[Finding]:
    """For `ringfence emr node check`."""
    missing = server_waits_for()
    if missing is not None:
        yield Finding(
            severity=Severity.ERROR,
            rule=Rule.KMS_UNREACHABLE,
            path=str(places.KMS_CONFIG),
            message=f"this machine waits for {missing}",
            hint="is its service running? its log says what it lacks",
            command=f"journalctl -u {places.KMS_UNIT}",
        )


def _start() -> None:
    systemctl("enable", places.KMS_UNIT)
    systemctl("restart", places.KMS_UNIT)


def _stop() -> None:
    if is_known(places.KMS_UNIT):
        systemctl("stop", places.KMS_UNIT)
        systemctl("disable", places.KMS_UNIT)
