"""Files from S3 or from this node's disk, bounded, with their digest where one was given."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

from ringfence_zones.errors import ConfigError, InstallError

_MAX_BYTES = 16 * 1024 * 1024
_MAX_SAID_BYTES = 300
_TIMEOUT_S = 120


def fetch(source: str, sha256: str | None) -> bytes:
    """What is at an s3:// address or a path. Raises InstallError, and ConfigError for another content than named."""
    content = _from_s3(source) if source.startswith("s3://") else _from_disk(Path(source.removeprefix("file://")))
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{source} is larger than {_MAX_BYTES} bytes")
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise ConfigError(
            f"{source} is not the file that bootstrap.yaml means: its SHA-256 is {found}",
            hint="somebody exchanged it, or the digest in bootstrap.yaml is of an older one",
        )
    return content


def _from_disk(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InstallError(f"cannot read {path}: {error.strerror}") from error


def _from_s3(source: str) -> bytes:
    program = shutil.which("aws")
    if program is None:
        raise InstallError(f"{source} cannot be fetched: the aws command is not on the PATH")
    with tempfile.TemporaryFile() as errors:
        try:
            # To standard output: what it holds may be a key, and is never in a file of ours before its owner has it.
            process = subprocess.Popen(
                [program, "s3", "cp", "--only-show-errors", source, "-"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        except OSError as error:
            raise InstallError(f"{source} cannot be fetched: {error.strerror}") from error
        content, is_whole = _read_output(process)
        errors.seek(0)
        said = errors.read(_MAX_SAID_BYTES).decode(errors="replace").strip()
    if not is_whole:
        raise InstallError(f"{source} cannot be fetched: it took more than {_TIMEOUT_S} s")
    if process.returncode and len(content) <= _MAX_BYTES:
        told = "".join(character if character.isprintable() else " " for character in said)
        raise InstallError(
            f"{source} cannot be fetched: {told}",
            hint="may the instance profile do s3:GetObject on it, and kms:Decrypt with its key?",
        )
    return content


def _read_output(process: subprocess.Popen[bytes]) -> tuple[bytes, bool]:
    """What it prints, one byte beyond the bound at most, and whether it ended by itself or for that."""
    timer = threading.Timer(_TIMEOUT_S, process.kill)
    timer.start()
    with process:
        assert process.stdout is not None
        content = process.stdout.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            process.kill()
        process.wait()
        is_late = not timer.is_alive()
        timer.cancel()
    return content, not is_late
