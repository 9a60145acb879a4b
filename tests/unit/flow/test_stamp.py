"""What the IV of a new EDEK says, and to whom."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence_agent.flow.stamp import MAX_EPOCH, Stamp, Stamps
from ringfence_agent.kms.eek import EekCipher
from ringfence_zones import kms_wire
from ringfence_zones.keys import KeyVersion
from ringfence_zones.secret import Secret

NOW_S = 1_795_000_000.0
SECRET = Secret(bytes(range(32)))


def split(ivs: bytes) -> list[bytes]:
    return [ivs[at : at + 16] for at in range(0, len(ivs), 16)]


@given(
    st.text(min_size=1, max_size=50),
    st.integers(0, MAX_EPOCH),
    st.floats(NOW_S, NOW_S + 20 * 366 * 86_400),
    st.integers(0, 20),
)
def test_each_iv_says_epoch_and_minute_of_its_key(name: str, epoch: int, now_s: float, count: int) -> None:
    ivs = split(Stamps(SECRET).make(name, count, epoch, now_s))
    assert len(set(ivs)) == count
    for iv in ivs:
        stamp = Stamps(SECRET).find(name, iv)
        assert stamp is not None
        assert stamp.epoch == epoch
        assert 0 <= now_s - stamp.made_s < 61


def test_another_key_another_store_and_another_kms_say_nothing() -> None:
    ivs = split(Stamps(SECRET).make("k", 200, 7, NOW_S))
    other = Stamps(Secret(bytes(32)))
    # Two bytes tell them apart: by chance one in 65,536 agrees.
    assert sum(Stamps(SECRET).find("l", iv) is not None for iv in ivs) == 0
    assert sum(other.find("k", iv) is not None for iv in ivs) <= 1
    assert sum(Stamps(SECRET).find("k", os.urandom(16)) is not None for _ in range(200)) <= 1


def test_ivs_look_random_to_whoever_lacks_the_secret() -> None:
    ivs = split(Stamps(SECRET).make("k", 4000, 7, NOW_S))
    for position in range(16):
        values = [iv[position] for iv in ivs]
        # A byte that was the same in all, or that counted, would be far from this.
        assert len(set(values)) == 256
        assert max(values.count(value) for value in range(256)) < 60


@pytest.mark.parametrize("key_bytes", [16, 32])
def test_an_edek_with_a_stamped_iv_is_hadoops_own(key_bytes: int) -> None:
    cipher = EekCipher(KeyVersion("k", 0, Secret(os.urandom(key_bytes))))
    ivs = Stamps(SECRET).make("k", 150, 7, NOW_S)
    bodies = kms_wire.decode_eek_list(cipher.generate_json(150, ivs))
    assert [kms_wire.decode_iv(body.iv or "") for body in bodies] == split(ivs)
    deks = set()
    for body in bodies:
        assert body.encrypted_key_version is not None and body.encrypted_key_version.material is not None
        deks.add(
            cipher.apply(kms_wire.decode_iv(body.iv or ""), kms_wire.decode_base64(body.encrypted_key_version.material))
        )
    assert len(deks) == 150
    assert {len(dek) for dek in deks} == {key_bytes}


def test_a_stamp_is_of_whole_minutes() -> None:
    (iv,) = split(Stamps(SECRET).make("k", 1, 3, NOW_S))
    assert Stamps(SECRET).find("k", iv) == Stamp(3, int(NOW_S) // 60 * 60)
