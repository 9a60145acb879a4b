"""A receipt is exactly what the agent signed: one altered byte, one other spelling, one other key, and it is none."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from sandboxes import RINGFENCE

from ringfence_zones.errors import InputError, ReceiptError
from ringfence_zones.receipt import (
    Receipt,
    ReceiptEnd,
    ReceiptFile,
    ReceiptPolicy,
    ReceiptZone,
    canonical_bytes,
    encode_receipt,
    files_digest,
    read_public_key,
    signed_message,
    signer_of,
    verify_receipt,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
FILES = [ReceiptFile(path="a", bytes=5, sha256="a" * 64), ReceiptFile(path="é/b", bytes=0, sha256="0" * 64)]


def receipt(**changes: Any) -> Receipt:
    values: dict[str, Any] = {
        "transfer": "0123456789abcdef" * 2,
        "cluster": "hdfs://nn:8020",
        "source": ReceiptEnd(path="/p", zones=[ReceiptZone(path="/p", key="kp")], key_versions=["kp@0"]),
        "target": ReceiptEnd(path="/m/p", zones=[ReceiptZone(path="/m", key="km")], key_versions=["km@2"]),
        "requested_by": "masker",
        "copied_as": "masker",
        "purpose": None,
        "policy": ReceiptPolicy(revision=4, sha256="b" * 64),
        "grant": None,
        "submitted_ms": 1,
        "finished_ms": 2,
        "kept": ["mode"],
        "not_kept": ["acl"],
        "source_removed": False,
        "file_count": 2,
        "bytes": 5,
        "files": FILES,
        "files_sha256": files_digest(FILES),
        "signer": signer_of(PUBLIC),
    }
    return Receipt(**values | changes)


def signed(body: Receipt, key: Ed25519PrivateKey = KEY) -> bytes:
    return encode_receipt(body, key.sign(signed_message(body)))


def test_what_was_signed_verifies_and_comes_back() -> None:
    assert verify_receipt(signed(receipt()), PUBLIC) == receipt()


def test_any_flipped_bit_anywhere_fails() -> None:
    content = signed(receipt())
    for at in range(len(content)):
        for bit in range(8):
            altered = content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :]
            with pytest.raises(ReceiptError):
                verify_receipt(altered, PUBLIC)


@pytest.mark.parametrize(
    "altered",
    [
        lambda content: content[:-1],
        lambda content: content + b"\n",
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: content.replace(b":", b": ", 1),
        lambda content: json.dumps(json.loads(content), indent=1).encode(),
        lambda content: content.replace(b"\\u00e9", "é".encode()),
        lambda content: content.replace(b'"bytes":5,', b'"bytes":5.0,', 1),
        lambda content: content.replace(b'"bytes":5,', b'"bytes":4,"bytes":5,', 1),
        lambda content: content[:1000],
        lambda content: b"",
        lambda content: b"[" * 100_000,
        lambda content: b"x" * (64 * 1024 * 1024 + 1),
    ],
)
def test_there_is_one_way_to_write_a_receipt(altered: Any) -> None:
    with pytest.raises(ReceiptError):
        verify_receipt(altered(signed(receipt())), PUBLIC)


def test_another_key_is_named_before_the_signature_is_looked_at() -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    with pytest.raises(ReceiptError, match="signed with another key"):
        verify_receipt(signed(receipt()), other.public_key().public_bytes_raw())


def test_a_receipt_that_names_our_key_and_is_signed_by_another_fails() -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    with pytest.raises(ReceiptError, match="does not fit"):
        verify_receipt(signed(receipt(), other), PUBLIC)


def test_a_signature_over_the_body_alone_is_none() -> None:
    body = receipt()
    with pytest.raises(ReceiptError, match="does not fit"):
        verify_receipt(encode_receipt(body, KEY.sign(canonical_bytes(body.model_dump()))), PUBLIC)


@pytest.mark.parametrize(
    "changes",
    [
        {"file_count": 3},
        {"bytes": 6},
        {"files_sha256": "c" * 64},
        {"files": FILES[::-1], "files_sha256": files_digest(FILES[::-1])},
    ],
)
def test_a_signed_receipt_that_contradicts_itself_fails(changes: dict[str, Any]) -> None:
    with pytest.raises(ReceiptError, match="contradicts itself"):
        verify_receipt(signed(receipt(**changes)), PUBLIC)


def test_a_private_key_and_other_files_are_no_public_key() -> None:
    private = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(InputError, match="is a private key"):
        read_public_key(private, "k")
    for content in (b"", PEM[:40], b"x" * 20_000):
        with pytest.raises(InputError, match="no Ed25519 public key"):
            read_public_key(content, "k")
    assert read_public_key(PEM, "k") == PUBLIC


# The command


def verify_command(directory: Path, content: bytes, pem: bytes = PEM) -> subprocess.CompletedProcess[str]:
    """In an empty home, without configuration, Hadoop or, where this machine lets us, a network."""
    (directory / "receipt").write_bytes(content)
    (directory / "key.pub").write_bytes(pem)
    home = directory / "home"
    home.mkdir(exist_ok=True)
    argv = [str(RINGFENCE), "receipt", "verify", str(directory / "receipt"), "--key", str(directory / "key.pub")]
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}
    finished = subprocess.run(argv, env=environ, cwd=home, capture_output=True, text=True, timeout=60, check=False)
    assert list(home.iterdir()) == []
    return finished


def test_the_command_says_what_was_verified(tmp_path: Path) -> None:
    finished = verify_command(tmp_path, signed(receipt()))
    assert finished.returncode == 0, finished.stderr
    assert "allowed by  policy revision 4" in finished.stdout
    assert "moved       2 files, 5 bytes" in finished.stdout


def test_the_commands_exit_codes(tmp_path: Path) -> None:
    good = signed(receipt())
    altered = good.replace(b'"bytes":5,', b'"bytes":6,', 1)
    assert verify_command(tmp_path, altered).returncode == 1
    assert verify_command(tmp_path, good, b"no key").returncode == 2
    (tmp_path / "receipt").unlink()
    (tmp_path / "receipt").mkdir()
    argv = [str(RINGFENCE), "receipt", "verify", str(tmp_path / "receipt"), "--key", str(tmp_path / "key.pub")]
    assert subprocess.run(argv, capture_output=True, timeout=60, check=False).returncode == 2


@pytest.mark.parametrize("end", [b"{}]}}", b'{}]},"signature":"' + b"0" * 128 + b'"}\n'])
def test_a_large_file_that_nobody_signed_is_not_even_parsed(end: bytes) -> None:
    # A list of empty objects of the largest size took 17 GB to say what is wrong with each of them.
    key = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ReceiptError, match="altered"):
        verify_receipt(b'{"receipt":{"files":[' + b"{}," * 2_000_000 + end, key)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 200 * 1024
