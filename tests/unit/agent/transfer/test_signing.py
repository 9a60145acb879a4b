"""The agent's key: made once, closed to others, and never another one by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence_agent.transfer.signing import open_signer
from ringfence_zones.errors import ConfigError
from ringfence_zones.receipt import read_public_key, signer_of


def test_the_key_is_made_once_and_its_public_half_lies_beside_it(tmp_path: Path) -> None:
    first = open_signer(tmp_path)
    assert open_signer(tmp_path).name == first.name
    assert (tmp_path / "receipt-key.pem").stat().st_mode & 0o777 == 0o600
    public = tmp_path / "receipt-key.pub"
    assert public.stat().st_mode & 0o777 == 0o644
    assert signer_of(read_public_key(public.read_bytes(), "k")) == first.name


def test_a_missing_or_foreign_public_half_is_written_anew(tmp_path: Path) -> None:
    signer = open_signer(tmp_path)
    (tmp_path / "receipt-key.pub").write_bytes(b"-----BEGIN PUBLIC KEY-----")
    open_signer(tmp_path)
    assert (tmp_path / "receipt-key.pub").read_bytes() == signer.public_pem


def test_a_key_that_others_can_read_stops_the_agent(tmp_path: Path) -> None:
    open_signer(tmp_path)
    (tmp_path / "receipt-key.pem").chmod(0o640)
    with pytest.raises(ConfigError, match="is open to others") as refused:
        open_signer(tmp_path)
    assert refused.value.command == f"chmod 600 {tmp_path / 'receipt-key.pem'}"


def test_a_file_that_is_no_key_is_neither_used_nor_replaced(tmp_path: Path) -> None:
    path = tmp_path / "receipt-key.pem"
    path.write_bytes(b"half of something")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="holds no Ed25519 key"):
        open_signer(tmp_path)
    assert path.read_bytes() == b"half of something"
