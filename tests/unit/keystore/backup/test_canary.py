from __future__ import annotations

from dataclasses import replace

import pytest

from ringfence_agent.keystore.backup.canary import Canary, canary_of, canary_record, is_opened_by, make_canary
from ringfence_agent.keystore.backup.records import MalformedRecordError, Record
from ringfence_agent.keystore.rows.kinds import KeyVersionRow
from ringfence_agent.kms.eek import EekCipher
from ringfence_zones.keys import KeyVersion
from ringfence_zones.secret import Secret

ROW = KeyVersionRow("pii", 3, "AES/CTR/NoPadding", 256, 1, b"sealed")
MATERIAL, DIGEST_KEY = Secret(bytes(range(32))), Secret(b"d" * 32)


@pytest.mark.parametrize("length", [16, 24, 32])
def test_a_canary_opens_with_its_material_and_no_other(length: int) -> None:
    material = Secret(bytes(range(length)))
    canary = make_canary(ROW, material, DIGEST_KEY)
    assert is_opened_by(canary, material, DIGEST_KEY)
    assert not is_opened_by(canary, Secret(bytes(length)), DIGEST_KEY)
    assert not is_opened_by(canary, material, Secret(b"e" * 32))
    assert not is_opened_by(canary, Secret(b"odd"), DIGEST_KEY)
    for changed in (replace(canary, version=4), replace(canary, key_name="other"), replace(canary, row=bytes(32))):
        assert not is_opened_by(changed, material, DIGEST_KEY)


@pytest.mark.parametrize("iv", [bytes(16), bytes(15) + b"\xff", bytes(range(16))])
def test_a_canary_is_an_edek_as_the_key_server_opens_them(iv: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """An IV of zeros is a counter that carries over all of its bytes."""
    dek = bytes(range(100, 132))
    monkeypatch.setattr("secrets.token_bytes", lambda length: iv if length == 16 else dek)
    canary = make_canary(ROW, MATERIAL, DIGEST_KEY)
    assert EekCipher(KeyVersion("pii", 3, MATERIAL)).apply(canary.iv, canary.edek) == dek
    assert dek not in b"".join((canary.edek, canary.digest, canary.row, canary.iv))


def test_its_record_is_read_back_and_others_are_refused() -> None:
    canary = make_canary(ROW, MATERIAL, DIGEST_KEY)
    record = canary_record(canary)
    assert canary_of(record) == canary
    for fields in ((), record.fields[:-1], (*record.fields[:-1], b"short"), ("k", "3", *record.fields[2:])):
        with pytest.raises(MalformedRecordError):
            canary_of(Record("canary", fields))


def test_no_two_canaries_are_alike() -> None:
    made: list[Canary] = [make_canary(ROW, MATERIAL, DIGEST_KEY) for _ in range(2)]
    assert made[0].iv != made[1].iv
    assert made[0].edek != made[1].edek
