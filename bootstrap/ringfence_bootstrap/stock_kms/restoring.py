"""The steps that bring a stock KMS's keys back from a backup.

The key store that is there, if any, stays beside the restored one with its password: what was made since the backup is
in it alone.
"""

from __future__ import annotations

from pathlib import Path

from ringfence_bootstrap.journal import Step, Undo
from ringfence_bootstrap.stock_kms.backup import Content
from ringfence_bootstrap.stock_kms.daemons import start_kms, start_kms_again, stop_kms
from ringfence_bootstrap.stock_kms.file_changes import FileChange, Owner, kept_copy, put, read_if_there, restore
from ringfence_bootstrap.stock_kms.foreign_directories import acting_for
from ringfence_bootstrap.stock_kms.hardening import Hardening
from ringfence_bootstrap.takeover.exchange import Connect
from ringfence_zones.errors import InstallError
from ringfence_zones.secret import Secret


def restore_steps(hardening: Hardening, content: Content | None, stamp: str, connect: Connect) -> list[Step]:
    """`content` is None only to undo what a run that died left. `stamp` names what is put aside."""
    found = content or Content(Secret(b""), Secret(b""))
    owner = Owner.of(hardening.key_store.parent)
    password = FileChange(hardening.password, lambda _: found.password.reveal(), 0o400, owner, forced=True)
    keys = FileChange(hardening.key_store, lambda _: found.key_store.reveal(), 0o600, owner, forced=True)
    return [
        Step(
            "stop",
            f"stopping the KMS ({hardening.kms.describe()})",
            lambda: stop_kms(hardening),
            lambda _undo: start_kms_again(hardening, connect, hardening.secure_uri),
        ),
        _with_the_old_beside(
            password.step("password", f"writing {hardening.password}", hardening.state), hardening.password, stamp
        ),
        _with_the_old_beside(
            keys.step("keys", f"writing {hardening.key_store}", hardening.state), hardening.key_store, stamp
        ),
        Step(
            "start",
            f"starting the KMS ({hardening.kms.describe()})",
            lambda: start_kms(hardening, connect, hardening.secure_uri),
            lambda _undo: stop_kms(hardening),
        ),
    ]


def remove_copies(hardening: Hardening) -> None:
    """After a run that came to its end: what was kept to undo it, secrets among it."""
    for name in ("password", "keys"):
        kept_copy(name, hardening.state).unlink(missing_ok=True)


def _with_the_old_beside(step: Step, path: Path, stamp: str) -> Step:
    aside = path.with_name(f"{path.name}.before-restore-{stamp}")
    checksums = path.with_name(f".{path.name}.crc")

    def do() -> None:
        try:
            content = read_if_there(path)
            if content is not None:
                put(aside, content, 0o400, Owner.of(path))
            # Hadoop would hold them against the new file; they are of the old one, and nobody needs them.
            with acting_for(checksums):
                checksums.unlink(missing_ok=True)
        except OSError as error:
            raise InstallError(f"cannot put {path} aside: {error.strerror}") from error
        step.do()

    def undo(note: Undo) -> None:
        restore(note)
        with acting_for(aside):
            aside.unlink(missing_ok=True)

    return Step(step.name, step.title, do, undo, step.prepare)
