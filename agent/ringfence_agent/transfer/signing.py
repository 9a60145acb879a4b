"""The agent's own key, with which it signs receipts: Ed25519, made once, in the agent's state directory.

`receipt-key.pem` (0600) is never replaced and leaves the machine in no answer; `receipt-key.pub` (0644) is for whoever
verifies receipts, and is written anew when it is missing. A key file that others can read stops the agent.
"""

from __future__ import annotations

import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from ringfence_zones.durable_file import install_durably, prepared_name, replace_file, write_new_file
from ringfence_zones.errors import ConfigError
from ringfence_zones.receipt import Receipt, encode_receipt, signed_message, signer_of

_PRIVATE, _PUBLIC = "receipt-key.pem", "receipt-key.pub"


class Signer:
    """Signs receipts. Made by `open_signer`."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        public_key = key.public_key()
        self.name = signer_of(public_key.public_bytes_raw())
        self.public_pem = public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, receipt: Receipt) -> bytes:
        """The receipt as a file. It must name this signer."""
        assert receipt.signer == self.name
        return encode_receipt(receipt, self._key.sign(signed_message(receipt)))


def open_signer(state_dir: Path) -> Signer:
    """The key of this state directory, made when there is none yet. Raises ConfigError when it cannot be used."""
    path = state_dir / _PRIVATE
    try:
        if not path.exists():
            _make(path)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ConfigError(
                f"the agent's key {path} is open to others",
                hint="let nobody but its owner read it; receipts that were signed with it prove less than they say",
                command=f"chmod 600 {path}",
            )
        signer = Signer(_read(path))
        public = state_dir / _PUBLIC
        if not public.exists() or public.read_bytes() != signer.public_pem:
            replace_file(public, signer.public_pem, 0o644)
    except OSError as error:
        raise ConfigError(f"cannot use the agent's key {path}: {error.strerror}") from error
    return signer


def _make(path: Path) -> None:
    content = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    draft = prepared_name(path)
    draft.unlink(missing_ok=True)  # of a process that died
    write_new_file(draft, content)
    install_durably(draft, path)


def _read(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            f"{path} holds no Ed25519 key",
            hint="restore it from a backup; moved away, a new one is made, which older receipts do not fit",
        )
    return key
