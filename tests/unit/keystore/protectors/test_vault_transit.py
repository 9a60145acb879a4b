"""The Transit protector over a wrap key that is scripted: what is bound, what is asked, and what answers mean.

Against a running Vault it is tested with every store: tests/contract.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from vault_settings import make_settings

from ringfence_agent.keystore.protector import MaterialBinding
from ringfence_agent.keystore.protectors.vault_transit import VaultTransitProtector, WrapKey, zone_key_context
from ringfence_agent.keystore.sealing import SealBrokenError
from ringfence_agent.vault.transit_keys import TransitKey
from ringfence_agent.vault.transit_wire import EncryptItem, ItemFault, OpenItem, TransitCiphertext
from ringfence_zones.errors import ProtectorRefusedError, ProtectorUnavailableError
from ringfence_zones.secret import Secret

STORE = b"s" * 16
BINDING = MaterialBinding(1, STORE, "päy", 3, "AES/CTR/NoPadding", 256, 1_700_000_000_000)
SOUND = TransitKey(
    name="z-wrap",
    type="aes256-gcm96",
    derived=True,
    exportable=False,
    allow_plaintext_backup=False,
    kdf="hkdf_sha256",
    latest_version=2,
    min_available_version=0,
    min_decryption_version=1,
    min_encryption_version=0,
    deletion_allowed=False,
    soft_deleted=False,
    imported=False,
    created_s={1: 1, 2: 2},
)


class Transit:
    """A wrap key and its batches; `fault` takes the place of the last result."""

    def __init__(self) -> None:
        self.key = SOUND
        self.looks = 0
        self.asked: list[str] = []
        self.contexts: list[bytes] = []
        self.fault: ItemFault | None = None
        self.problem: Exception | None = None

    def get(self, name: str) -> TransitKey:
        assert name == "z-wrap"
        self.looks += 1
        if self.problem is not None:
            raise self.problem
        return self.key

    def encrypt(self, key: str, items: Sequence[EncryptItem]) -> list[TransitCiphertext | ItemFault]:
        self._called("encrypt", key, [item.context for item in items])
        made: list[TransitCiphertext | ItemFault] = [
            TransitCiphertext(item.key_version, b"n" * 12 + item.plaintext.reveal() + item.context[:16])
            for item in items
        ]
        return made if self.fault is None else [*made[:-1], self.fault]

    def decrypt(self, key: str, items: Sequence[OpenItem]) -> list[Secret | ItemFault]:
        self._called("decrypt", key, [item.context for item in items])
        opened: list[Secret | ItemFault] = [
            Secret(item.ciphertext.raw[12:-16]) if item.ciphertext.raw[-16:] == item.context[:16] else ItemFault.CORRUPT
            for item in items
        ]
        return opened if self.fault is None else [*opened[:-1], self.fault]

    def _called(self, operation: str, key: str, contexts: list[bytes]) -> None:
        assert key == "z-wrap"
        self.asked.append(operation)
        self.contexts += contexts


class Bench:
    def __init__(self, directory: Path) -> None:
        self.transit = Transit()
        self.now_s = 0.0
        self.directory = directory
        self.protector = self.make()

    def make(self, **fields: object) -> VaultTransitProtector:
        settings = make_settings("http://127.0.0.1:8200", self.directory, **fields)
        return VaultTransitProtector(WrapKey(settings, self.transit, self.transit, lambda: self.now_s))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def lengths(*fields: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(field)) + field for field in fields)


def test_the_context_of_material_is_that_of_the_contract() -> None:
    text = lengths(b"ringfence-zone-1", b"c1", "päy".encode(), b"3", b"AES/CTR/NoPadding", b"256")
    assert zone_key_context("c1", BINDING) == hashlib.sha256(text).digest()


@pytest.mark.parametrize(
    "change", [{"key_name": "pay"}, {"version": 4}, {"cipher": "AES/GCM/NoPadding"}, {"length_bits": 128}], ids=str
)
def test_contexts_differ_by_all_that_they_bind(change: dict[str, object]) -> None:
    other = dataclasses.replace(BINDING, **change)  # type: ignore[arg-type]
    assert zone_key_context("c1", other) != zone_key_context("c1", BINDING)
    assert zone_key_context("c2", BINDING) != zone_key_context("c1", BINDING)


def test_a_slot_says_whose_it_is_and_nothing_secret(bench: Bench) -> None:
    body = bench.protector.seal_root(STORE, Secret(b"R" * 32))
    fields = json.loads(body)
    root = base64.b64decode(fields.pop("root"))
    assert fields == {"cluster": "c1", "form": 1, "key": "z-wrap", "mount": "transit-c1", "namespace": None}
    assert root[:4] == b"\0\0\0\2"
    assert bench.transit.contexts == [hashlib.sha256(lengths(b"ringfence-root-1", b"c1", STORE)).digest()]
    assert bench.protector.open_root(STORE, body) == Secret(b"R" * 32)
    with pytest.raises(SealBrokenError):
        bench.protector.open_root(b"t" * 16, body)


def test_a_slot_is_recognised_by_its_own_cluster_mount_and_namespace_alone(bench: Bench) -> None:
    body = bench.protector.seal_root(STORE, Secret(b"R" * 32))
    assert bench.protector.recognises(body)
    for other in ({"cluster": "c2"}, {"transit_mount": "elsewhere"}, {"namespace": "team"}):
        stranger = bench.make(**other)
        assert not stranger.recognises(body)
        with pytest.raises(SealBrokenError):
            stranger.open_root(STORE, body)
    for nonsense in (b"", b"{}", b"null", body[:-1], b"x" * 48, body.replace(b'"form":1', b'"form":2')):
        assert not bench.protector.recognises(nonsense)
    assert bench.transit.asked == ["encrypt"]


def test_material_goes_and_comes_in_one_call_each(bench: Bench) -> None:
    materials = bench.protector.materials(b"")
    items = [(dataclasses.replace(BINDING, version=number), Secret(bytes([number]) * 32)) for number in range(5)]
    sealed = materials.seal(items)
    assert bench.transit.asked == ["encrypt"]
    opened = materials.open([(binding, each) for (binding, _), each in zip(items, sealed, strict=True)])
    assert opened == [material for _, material in items]
    assert bench.transit.asked == ["encrypt", "decrypt"]


def test_a_seal_put_to_another_version_does_not_open(bench: Bench) -> None:
    materials = bench.protector.materials(b"")
    (sealed,) = materials.seal([(BINDING, Secret(b"m" * 32))])
    with pytest.raises(SealBrokenError):
        materials.open([(dataclasses.replace(BINDING, version=4), sealed)])


@pytest.mark.parametrize("sealed", [b"", b"\0\0\0\1", b"\0\0\0\0" + b"x" * 60, b"\0\0\0\1" + b"x" * 5], ids=repr)
def test_what_is_no_seal_never_reaches_vault(bench: Bench, sealed: bytes) -> None:
    with pytest.raises(SealBrokenError):
        bench.protector.materials(b"").open([(BINDING, sealed)])
    assert bench.transit.asked == []


@pytest.mark.parametrize("fault", ItemFault)
def test_each_fault_of_an_item_is_told_as_what_can_be_done_about_it(bench: Bench, fault: ItemFault) -> None:
    materials = bench.protector.materials(b"")
    sealed = materials.seal([(BINDING, Secret(b"canary-canary-canary-canary-1234"))] * 2)
    bench.transit.fault = fault
    expected: type[Exception] = ProtectorRefusedError
    if fault is ItemFault.CORRUPT:
        expected = SealBrokenError
    elif fault in (ItemFault.VERSION_AHEAD, ItemFault.SERVER_FAILED):
        expected = ProtectorUnavailableError
    with pytest.raises(expected) as caught:
        materials.open([(BINDING, each) for each in sealed])
    assert "canary" not in str(caught.value)


def test_the_key_is_looked_at_before_it_seals_and_again_after_a_minute(bench: Bench) -> None:
    materials = bench.protector.materials(b"")
    for now_s, looks in ((0.0, 1), (59.9, 1), (60.0, 2), (61.0, 2)):
        bench.now_s = now_s
        (sealed,) = materials.seal([(BINDING, Secret(b"m" * 32))])
        assert bench.transit.looks == looks
    bench.transit.key = dataclasses.replace(SOUND, latest_version=3)
    assert materials.seal([(BINDING, Secret(b"m" * 32))])[0][:4] == b"\0\0\0\2"
    bench.now_s = 121.0
    assert materials.seal([(BINDING, Secret(b"m" * 32))])[0][:4] == b"\0\0\0\3"
    assert materials.open([(BINDING, sealed)]) == [Secret(b"m" * 32)]


@pytest.mark.parametrize(
    "change", [{"derived": False}, {"exportable": True}, {"type": "chacha20-poly1305"}, {"kdf": "x"}], ids=str
)
def test_nothing_is_sealed_with_a_key_that_protects_nothing(bench: Bench, change: dict[str, object]) -> None:
    bench.transit.key = dataclasses.replace(SOUND, **change)  # type: ignore[arg-type]
    with pytest.raises(ProtectorRefusedError):
        bench.protector.materials(b"").seal([(BINDING, Secret(b"m" * 32))])
    with pytest.raises(ProtectorRefusedError):
        bench.protector.seal_root(STORE, Secret(b"R" * 32))
    assert bench.transit.asked == []


def test_opening_asks_for_nothing_that_only_an_active_node_could_tell(bench: Bench) -> None:
    body = bench.protector.seal_root(STORE, Secret(b"R" * 32))
    bench.transit.problem = ProtectorUnavailableError("no node is active")
    fresh = bench.make()
    assert fresh.open_root(STORE, body) == Secret(b"R" * 32)
    with pytest.raises(ProtectorUnavailableError):
        fresh.materials(body).seal([(BINDING, Secret(b"m" * 32))])


def test_a_root_of_another_length_is_none(bench: Bench) -> None:
    body = bench.protector.seal_root(STORE, Secret(b"R" * 16))
    with pytest.raises(SealBrokenError):
        bench.protector.open_root(STORE, body)


def test_nothing_prints_what_is_sealed(bench: Bench) -> None:
    root = Secret(b"canary-root-key-canary-root-key-")
    body = bench.protector.seal_root(STORE, root)
    assert "canary" not in f"{bench.protector!r}{bench.protector.label}{vars(bench.protector)}"
    assert bench.protector.open_root(STORE, body) == root
