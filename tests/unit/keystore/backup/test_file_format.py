from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from ringfence_agent.keystore.backup.file_format import BackupFile, BodyDigest, Manifest, write_file, write_records
from ringfence_agent.keystore.backup.records import Record
from ringfence_zones.errors import BackupError
from ringfence_zones.secret import Secret

KEY = Secret(b"k" * 32)
ROWS = [Record("zone_key", ("pii", 256)), Record("zone_key", ("raw", 128)), Record("canary", ("pii", 0))]


def written() -> bytes:
    digest, body = BodyDigest(), io.BytesIO()
    write_records(body, ROWS, digest)
    manifest = Manifest(
        product="ringfence 1",
        source="sqlite:////k.db",
        made_ms=1,
        store_id="ab" * 16,
        store_created_ms=2,
        schema_version=3,
        change_number=7,
        policy_revision=1,
        protector="slots",
        protector_header="00",
        columns={"zone_key": ["name", "length_bits"]},
        rows=digest.rows,
        body_bytes=digest.body_bytes,
        sha256=digest.sha256,
    )
    whole = io.BytesIO()
    write_file(whole, manifest, KEY, body)
    return whole.getvalue()


def test_a_backup_says_what_it_is_in_its_first_lines() -> None:
    first, manifest, signature, _ = written().split(b"\n", 3)
    assert first == b"ringfence keystore backup 1"
    assert json.loads(manifest)["change_number"] == 7
    assert len(bytes.fromhex(signature.decode())) == 32


def test_what_is_written_is_read_back_as_often_as_wanted() -> None:
    backup = BackupFile(io.BytesIO(written()), "b")
    assert list(backup.records()) == list(backup.records()) == ROWS
    assert backup.manifest.rows == {"zone_key": 2, "canary": 1}
    assert backup.is_signed_with(KEY)
    assert not backup.is_signed_with(Secret(b"x" * 32))


def test_a_changed_bit_anywhere_is_found() -> None:
    whole = written()
    signed = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 0x01
        try:
            backup = BackupFile(io.BytesIO(bytes(changed)), "b")
        except BackupError:
            continue
        # Nothing else than manifest and signature can be changed without its being found before the key is known.
        assert place < signed + 65, place
        assert not backup.is_signed_with(KEY), place


@pytest.mark.parametrize("cut", [0, 1, 10, 100, -1, -20])
def test_a_cut_off_backup_is_refused(cut: int) -> None:
    with pytest.raises(BackupError):
        BackupFile(io.BytesIO(written()[:cut]), "b")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "not a backup"),
        (b"SQLite format 3\0", "cut off, or not a backup"),
        (b"SQLite format 3\n", "not a backup"),
        (b"ringfence keystore backup 2\n{}\n00\n", "another format"),
        (b"ringfence keystore backup 1\n[[[[\n00\n", "manifest cannot be read"),
        (b"ringfence keystore backup 1\n" + b"[" * 100_000 + b"\n00\n", "manifest cannot be read"),
        (b"ringfence keystore backup 1\n" + b"x" * 5_000_000, "cut off"),
    ],
)
def test_what_is_no_backup_is_named(content: bytes, word: str) -> None:
    with pytest.raises(BackupError, match=word):
        BackupFile(io.BytesIO(content), "b")


def test_there_is_one_spelling_of_a_manifest() -> None:
    with pytest.raises(BackupError, match="not written as Ringfence writes it"):
        BackupFile(io.BytesIO(written().replace(b'"change_number":7', b'"change_number": 7')), "b")


def test_only_a_regular_file_is_opened_and_nothing_is_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, word in (
        (pipe, "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (tmp_path, "directory"),
    ):
        with pytest.raises(BackupError, match=word):
            BackupFile.open(path)
