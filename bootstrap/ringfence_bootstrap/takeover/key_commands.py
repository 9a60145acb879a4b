"""`ringfence key import` and `ringfence key export`, run as commands of this installation."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence_zones.errors import InstallError

_PASSWORD_VARIABLE = "HADOOP_KEYSTORE_PASSWORD"  # noqa: S105 - the name of a variable
_HADOOPS_DEFAULT = "none"
_RECEIPT = "key-receipt.json"
# A stock KMS that is writing its key store has its new file beside it for a moment.
_ATTEMPTS = 5
_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Written:
    """What came of an export: whether the keys differ from its base's, and the names of keys that Vault holds."""

    has_changes: bool
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyCommands:
    """Between one store of ours and Java key stores of one password (None: Hadoop's variable or default).

    `settings` is YAML of kms.yaml with the store's protectors; None for a root key file alone.
    """

    keystore: str
    root_key: Path | None
    store_password: Path | None
    password_file: Path | None
    state: Path
    settings: Path | None = None

    def bring(self, source: Path, *, may_be_missing: bool = False) -> None:
        """Imports what `source` has and our store has not; nothing, where it may be missing and is. Raises
        InstallError.
        """
        # A store is made when neither it nor its root key is there. One in a file needs leave for that too, where
        # something else than a root key file opens it.
        options = ["--init", *(["--missing-is-empty"] if may_be_missing else [])]
        for attempt in range(_ATTEMPTS):
            try:
                self._run("import", "--from", f"jceks://file@{source}", *options)
            except InstallError:
                if attempt == _ATTEMPTS - 1 or not _is_being_written(source):
                    raise
                time.sleep(_PAUSE_S)
            else:
                return

    def write(self, target: Path, base: Path | None, *, without_held: bool = False) -> Written:
        """Exports all keys, or all but those that Vault holds; what `base` has already is taken over sealed.

        Raises InstallError.
        """
        options = ["--without-held"] if without_held else []
        if base is not None:
            options += ["--base", f"jceks://file@{base}"]
        done = self._run("export", "--to", f"jceks://file@{target}", *options)
        return Written(bool(done["sealed"] or done["dropped"]), tuple(done["left_out"]))

    def _run(self, *arguments: str) -> dict[str, Any]:
        command = [ringfence_command(), "key", *arguments, "--keystore", self.keystore, "--json"]
        command += ["--receipt", str(self.state / _RECEIPT)]
        if self.root_key is not None:
            command += ["--root-key", str(self.root_key)]
        if self.store_password is not None:
            command += ["--keystore-password-file", str(self.store_password)]
        if self.settings is not None:
            command += ["--config", str(self.settings)]
        environ = dict(os.environ)
        if self.password_file is not None:
            command += ["--password-file", str(self.password_file)]
        else:
            environ.setdefault(_PASSWORD_VARIABLE, _HADOOPS_DEFAULT)
        try:
            finished = subprocess.run(
                command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise InstallError(f"{command[0]} does not run: {error.strerror}") from error
        if finished.returncode:
            raise _failure(finished.stderr, f"ringfence key {arguments[0]}")
        found: dict[str, Any] = json.loads(finished.stdout)
        return found


def ringfence_command() -> str:
    """This installation's own command, whatever else the PATH holds."""
    installed = Path(sysconfig.get_path("scripts")) / "ringfence"
    found = str(installed) if installed.exists() else shutil.which("ringfence")
    if found is None:
        raise InstallError(f"the ringfence command of {sys.prefix} is not installed", hint="install it with pip")
    return found


def _is_being_written(source: Path) -> bool:
    return any(os.path.lexists(f"{source}{suffix}") for suffix in ("_NEW", "_OLD"))


def _failure(stderr: str, what: str) -> InstallError:
    """The command's own error, which `--json` put on the last line of its standard error."""
    lines = stderr.strip().splitlines()
    try:
        error = json.loads(lines[-1])["error"]
        return InstallError(str(error["message"]), hint=error.get("hint"), command=error.get("command"))
    except (ValueError, KeyError, TypeError, IndexError):
        return InstallError(f"{what} failed: {lines[-1] if lines else 'it said nothing'}")
