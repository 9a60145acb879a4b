"""The zip with which EMR's nodes show and trust certificates, in the one layout that EMR takes.

    privateKey.pem           the key of the first certificate below: PEM, without a passphrase
    certificateChain.pem     the nodes' certificate, then who signed it, and so on
    trustedCertificates.pem  optional: what nodes trust; without it, what the chain ends with

Rules:

1. Nothing is in a folder, and nothing else is in the zip. EMR says nothing of either until a cluster fails.
2. The key never touches a disk but in a file of mode 0600 that was not there before; it is in no error and no output.
3. A zip is read with bounds, in memory; no name in it becomes a path. What keeps EMR from taking one is told by
   `security_configuration.pem_bundle`, which the linter has too.

Source: "Providing certificates for encrypting data in transit" of the EMR management guide.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ringfence_bootstrap.security_configuration.pem_bundle import (
    CERTIFICATE_CHAIN,
    MAX_MEMBER_BYTES,
    MAX_MEMBERS,
    PRIVATE_KEY,
    TRUSTED_CERTIFICATES,
    UNREADABLE,
)
from ringfence_zones.durable_file import prepared_name, replace_file, write_new_file
from ringfence_zones.errors import InputError, RingfenceError
from ringfence_zones.secret import Secret

_NAMES = (PRIVATE_KEY, CERTIFICATE_CHAIN, TRUSTED_CERTIFICATES)
# The same bytes for the same files, so that one bundle has one checksum.
_WHEN = (1980, 1, 1, 0, 0, 0)
_MODE = 0o600


@dataclass(frozen=True, slots=True)
class Bundle:
    """The three files; `trusted` is None when there is none. `private_key` is PEM."""

    private_key: Secret
    chain: bytes
    trusted: bytes | None = None


def pack(bundle: Bundle) -> Secret:
    """The zip. The same bundle gives the same bytes."""
    stream = io.BytesIO()
    parts = [(PRIVATE_KEY, bundle.private_key.reveal()), (CERTIFICATE_CHAIN, bundle.chain)]
    if bundle.trusted is not None:
        parts.append((TRUSTED_CERTIFICATES, bundle.trusted))
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts:
            entry = zipfile.ZipInfo(name, _WHEN)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, which is what gives the mode its meaning
            entry.external_attr = (stat.S_IFREG | _MODE) << 16
            archive.writestr(entry, content)
    return Secret(stream.getvalue())


def find_bundle(content: Secret) -> Bundle | None:
    """The files of a zip; None for one without a key or a chain in it, or one that cannot be read.

    What is wrong with such a zip `security_configuration.pem_bundle` says.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content.reveal())) as archive:
            entries = {each.filename: each for each in archive.infolist()[:MAX_MEMBERS]}
            found = {name: _read_entry(archive, entries[name]) for name in _NAMES if name in entries}
    except UNREADABLE:
        return None
    if PRIVATE_KEY not in found or CERTIFICATE_CHAIN not in found:
        return None
    return Bundle(Secret(found[PRIVATE_KEY]), found[CERTIFICATE_CHAIN], found.get(TRUSTED_CERTIFICATES))


def read_secret_bytes(path: Path, limit: int) -> Secret:
    """The bytes of a file with a private key in it. Raises InputError when others than its owner can reach it."""
    try:
        with path.open("rb") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            content = stream.read(limit + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if mode & 0o077:
        raise InputError(
            f"{path} holds a private key, and its mode {mode:04o} lets others read or change it",
            hint="who read it meanwhile has it: make new certificates if that is possible",
            command=f"chmod 600 {path}",
        )
    if len(content) > limit:
        raise InputError(f"{path} is larger than {limit} bytes", hint="name the file with the key")
    return Secret(content)


def write_secret_file(path: Path, content: Secret, *, replace: bool = False) -> None:
    """Writes a file of mode 0600, whole or not at all. Raises RingfenceError when it is there and not `replace`."""
    try:
        if replace:
            replace_file(path, content.reveal(), _MODE)
            return
        draft = prepared_name(path)
        draft.unlink(missing_ok=True)  # of a process that died
        try:
            write_new_file(draft, content.reveal(), _MODE)
            os.link(draft, path, follow_symlinks=False)
        finally:
            draft.unlink(missing_ok=True)
    except FileExistsError as error:
        raise RingfenceError(
            f"{path} is there already, and is not written over", hint="name another file, or give --replace"
        ) from error
    except OSError as error:
        raise RingfenceError(
            f"cannot write {path}: {error.strerror}", hint="name a place that can be written"
        ) from error


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    with archive.open(entry) as stream:
        content = stream.read(MAX_MEMBER_BYTES + 1)
    if len(content) > MAX_MEMBER_BYTES:
        raise ValueError(entry.filename)
    return content
