"""Custody `transit` in one worker: what Vault is asked, what its answers become, what a create and a roll do there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from vault_settings import make_settings

from ringfence_agent.keystore.held import HeldKey, HeldVersion, TransitVersion
from ringfence_agent.kms.custody import transit_changes
from ringfence_agent.kms.custody.held import TransitHeldKey
from ringfence_agent.kms.custody.key import KeyWords
from ringfence_agent.kms.custody.transit import HeldEek, TransitCustody
from ringfence_agent.kms.custody.transit_changes import TransitChanges
from ringfence_agent.promise import Promise
from ringfence_agent.vault.transit_keys import KEY_TYPE, TransitKey
from ringfence_agent.vault.transit_wire import EncryptItem, ItemFault, OpenItem, RewrapItem, TransitCiphertext
from ringfence_zones.errors import (
    InputError,
    ProtectorRefusedError,
    ProtectorUnavailableError,
    RingfenceError,
)
from ringfence_zones.keys import DEFAULT_CIPHER, KeyMetadata
from ringfence_zones.secret import Secret

NAME = "z-" + "a" * 26
IV = bytes(range(16))


class FakeBatcher:
    """Transit without cryptography: a ciphertext is its version, and the plaintext in clear between nonce and tag.

    `answer` may change what comes back of each item.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, int]] = []
        self.contexts: dict[bytes, bytes] = {}
        self.answer: Callable[[Any], Any] = lambda found: found
        self.waiting = 0

    async def encrypt(self, key: str, items: Sequence[EncryptItem], caller: str, deadline: float) -> list[Any]:
        self.seen.append(("encrypt", caller, len(items)))
        return [self.answer(self._made(item.plaintext, item.context, item.key_version)) for item in items]

    async def decrypt(self, key: str, items: Sequence[OpenItem], caller: str, deadline: float) -> list[Any]:
        self.seen.append(("decrypt", caller, len(items)))
        return [self.answer(self._opened(item.ciphertext, item.context)) for item in items]

    def decrypt_one(self, key: str, item: OpenItem, caller: str, deadline: float) -> Promise[Any]:
        self.seen.append(("decrypt", caller, 1))
        promise: Promise[Any] = Promise()
        found = self.answer(self._opened(item.ciphertext, item.context))
        asyncio.get_running_loop().call_soon(promise.keep, found)
        return promise

    async def rewrap(self, key: str, items: Sequence[RewrapItem], caller: str, deadline: float) -> list[Any]:
        self.seen.append(("rewrap", caller, len(items)))
        opened = [(self._opened(item.ciphertext, item.context), item) for item in items]
        return [
            self.answer(self._made(plain, item.context, item.key_version)) if isinstance(plain, Secret) else plain
            for plain, item in opened
        ]

    def _made(self, plain: Secret, context: bytes, version: int) -> TransitCiphertext:
        raw = bytes([version]) * 12 + plain.reveal() + bytes(16)
        self.contexts[raw] = context
        return TransitCiphertext(version, raw)

    def _opened(self, ciphertext: TransitCiphertext, context: bytes) -> Secret | ItemFault:
        if self.contexts.get(ciphertext.raw) != context:
            return ItemFault.CORRUPT
        return Secret(ciphertext.raw[12:-16])


class FakeServers:
    left_alone = 1


@dataclass
class Bench:
    batcher: FakeBatcher = field(default_factory=FakeBatcher)

    @property
    def custody(self) -> TransitCustody:
        return TransitCustody(self.batcher, FakeServers())  # type: ignore[arg-type]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def held_key(*places: tuple[int, int], length_bits: int = 256, name: str = "k") -> TransitHeldKey:
    """A key with these (number, version in Transit)."""
    metadata = KeyMetadata(name, DEFAULT_CIPHER, length_bits, 1, places[-1][0] + 1)
    versions = tuple(HeldVersion(name, number, TransitVersion(NAME, version)) for number, version in places)
    return TransitHeldKey(metadata, 0.0, KeyWords(), HeldKey(metadata, versions))


def ivs(count: int) -> list[bytes]:
    return [os.urandom(16) for _ in range(count)]


def run(work: Awaitable[Any]) -> Any:
    async def wait() -> Any:
        return await work

    return asyncio.run(wait())


def opened(bench: Bench, key: TransitHeldKey, eek: HeldEek) -> Secret:
    async def wait() -> Secret:
        return await bench.custody.open(key, eek, "etl")

    return asyncio.run(wait())


@pytest.mark.parametrize(("length_bits", "edek_bytes"), [(128, 50), (256, 66)])
def test_deks_are_as_long_as_the_key_says_and_never_the_same(bench: Bench, length_bits: int, edek_bytes: int) -> None:
    key = held_key((3, 7), length_bits=length_bits)
    made = run(bench.custody.generate(key, ivs(40), "hdfs"))
    assert len({iv for iv, _ in made}) == len({edek for _, edek in made}) == 40
    assert {(edek[:6], len(edek)) for _, edek in made} == {(bytes.fromhex("ee0100000007"), edek_bytes)}
    assert bench.batcher.seen == [("encrypt", "hdfs", 40)]
    for iv, edek in made:
        assert len(opened(bench, key, HeldEek(3, iv, edek))) * 8 == length_bits


def test_none_asked_for_is_none_made(bench: Bench) -> None:
    assert run(bench.custody.generate(held_key((0, 1)), ivs(0), "hdfs")) == []


def test_an_edek_is_bound_to_key_name_iv_and_version(bench: Bench) -> None:
    key = held_key((0, 1), (1, 2))
    ((iv, edek),) = run(bench.custody.generate(key, ivs(1), "hdfs"))
    for bad, words in (
        (HeldEek(0, iv, edek), "another version"),
        (HeldEek(1, IV, edek), "corrupt"),
        (HeldEek(1, iv, edek[:-1]), "not made by Vault"),
        (HeldEek(1, iv[:8], edek), "IV has 8 bytes"),
    ):
        with pytest.raises(InputError, match=words):
            opened(bench, key, bad)
    with pytest.raises(InputError, match="corrupt"):
        opened(bench, held_key((1, 2), name="other"), HeldEek(1, iv, edek))


def test_only_what_is_old_is_rewrapped_and_into_its_place(bench: Bench) -> None:
    before, after = held_key((0, 1)), held_key((0, 1), (1, 4))
    old = run(bench.custody.generate(before, ivs(3), "hdfs"))
    new = run(bench.custody.generate(after, ivs(2), "hdfs"))
    secrets = [opened(bench, before, HeldEek(0, iv, edek)) for iv, edek in old]
    bench.batcher.seen.clear()
    mixed = [HeldEek(0, *old[0]), HeldEek(1, *new[0]), HeldEek(0, *old[1]), HeldEek(1, *new[1]), HeldEek(0, *old[2])]
    found = run(bench.custody.reencrypt(after, mixed, "hdfs"))
    assert bench.batcher.seen == [("rewrap", "hdfs", 3)]
    assert [found[1], found[3]] == [new[0][1], new[1][1]]
    again = [HeldEek(1, eek.iv, edek) for eek, edek in zip(mixed, found, strict=True) if eek.number == 0]
    assert [opened(bench, after, eek) for eek in again] == secrets
    bench.batcher.seen.clear()
    assert run(bench.custody.reencrypt(after, mixed[1:2], "hdfs")) == [new[0][1]]
    assert bench.batcher.seen == []


def test_one_bad_edek_of_a_batch_refuses_it(bench: Bench) -> None:
    key = held_key((0, 1), (1, 2))
    ((iv, edek),) = run(bench.custody.generate(held_key((0, 1)), ivs(1), "hdfs"))
    with pytest.raises(InputError, match="k@0 is corrupt"):
        run(bench.custody.reencrypt(key, [HeldEek(0, iv, edek), HeldEek(0, IV, edek)], "hdfs"))


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (ItemFault.CORRUPT, InputError),
        (ItemFault.VERSION_AHEAD, ProtectorUnavailableError),
        (ItemFault.SERVER_FAILED, ProtectorUnavailableError),
        (ItemFault.VERSION_RETIRED, ProtectorRefusedError),
        (ItemFault.KEY_DISABLED, ProtectorRefusedError),
        (ItemFault.NO_SUCH_KEY, ProtectorRefusedError),
        (ItemFault.OUR_BUG, ProtectorRefusedError),
    ],
)
def test_every_fault_is_told_apart_and_names_the_version(
    bench: Bench, fault: ItemFault, kind: type[RingfenceError]
) -> None:
    key = held_key((0, 1))
    ((iv, edek),) = run(bench.custody.generate(key, ivs(1), "hdfs"))
    bench.batcher.answer = lambda _found: fault
    with pytest.raises(kind, match="k@0") as caught:
        opened(bench, key, HeldEek(0, iv, edek))
    assert edek.hex() not in str(caught.value)
    assert type(caught.value) is kind


def test_a_vault_that_uses_another_version_is_not_believed(bench: Bench) -> None:
    bench.batcher.answer = lambda found: TransitCiphertext(9, found.raw)
    with pytest.raises(ProtectorRefusedError, match="used version 9"):
        run(bench.custody.generate(held_key((0, 1)), ivs(1), "hdfs"))


def test_a_proof_waits_for_a_node_that_has_not_heard_of_the_key(bench: Bench) -> None:
    left = 2

    def lagging(found: Any) -> Any:
        nonlocal left
        left -= 1
        return ItemFault.NO_SUCH_KEY if left >= 0 else found

    bench.batcher.answer = lagging
    run(bench.custody.prove(TransitVersion(NAME, 1)))
    bench.batcher.answer = lambda _found: ItemFault.KEY_DISABLED
    with pytest.raises(ProtectorRefusedError, match="disabled"):
        run(bench.custody.prove(TransitVersion(NAME, 1)))


def test_a_vault_that_gives_back_something_else_is_not_believed(bench: Bench) -> None:
    bench.batcher.answer = lambda found: Secret(bytes(32)) if isinstance(found, Secret) else found
    with pytest.raises(ProtectorRefusedError, match="what was not put into it"):
        run(bench.custody.prove(TransitVersion(NAME, 1)))


def test_it_tells_how_it_stands(bench: Bench) -> None:
    assert {name: value for name, (_, value) in bench.custody.gauges().items()} == {
        "transit_waiting": 0,
        "transit_nodes_left_alone": 1,
    }


# -- changes in Vault


@dataclass
class FakeControl:
    """`VaultControl` with one Transit key in these versions; `rotations` were asked for."""

    latest: int = 0
    faults: dict[str, Any] = field(default_factory=dict)
    rotations: int = 0
    closed: bool = False

    @property
    def transit(self) -> FakeControl:
        return self

    def create(self, name: str) -> TransitKey:
        self.latest = self.latest or 1
        return self.get(name)

    def get(self, name: str) -> TransitKey:
        if not self.latest:
            raise ProtectorRefusedError(f"there is no Transit key {name}", reason="key_not_found")
        return transit_key(name, self.latest, **self.faults)

    def rotate(self, name: str, from_version: int) -> TransitKey:
        assert from_version == self.latest
        self.rotations += 1
        self.latest += 1
        return self.get(name)

    def close(self) -> None:
        self.closed = True


def transit_key(name: str, latest: int, **changes: Any) -> TransitKey:
    sound: dict[str, Any] = {
        "name": name,
        "type": KEY_TYPE,
        "derived": True,
        "exportable": False,
        "allow_plaintext_backup": False,
        "kdf": "hkdf_sha256",
        "latest_version": latest,
        "min_available_version": 0,
        "min_decryption_version": 1,
        "min_encryption_version": 0,
        "deletion_allowed": False,
        "soft_deleted": False,
        "imported": False,
        "created_s": {},
    }
    return TransitKey(**(sound | changes))


def in_vault(
    bench: Bench, control: FakeControl, directory: Path, work: Callable[[TransitChanges], Awaitable[Any]]
) -> Any:
    async def act() -> Any:
        changes = TransitChanges(make_settings("http://127.0.0.1:1", directory), bench.custody)
        changes._control = control  # type: ignore[assignment]
        try:
            return await work(changes)
        finally:
            await changes.close()

    found = asyncio.run(act())
    assert control.closed
    return found


def test_a_new_key_is_proven_before_it_is_believed(bench: Bench, tmp_path: Path) -> None:
    control = FakeControl()
    in_vault(bench, control, tmp_path, lambda changes: changes.make_key(TransitVersion(NAME, 1)))
    assert [operation for operation, _, _ in bench.batcher.seen] == ["encrypt", "decrypt"]


def test_a_key_of_that_name_that_was_there_before_is_not_used(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(ProtectorRefusedError, match="had the Transit key"):
        in_vault(bench, FakeControl(2), tmp_path, lambda changes: changes.make_key(TransitVersion(NAME, 1)))


@pytest.mark.parametrize(("latest", "taken", "rotations"), [(1, 2, 1), (2, 2, 0), (5, 5, 0)])
def test_a_roll_takes_what_is_there_and_else_rotates(
    bench: Bench, tmp_path: Path, latest: int, taken: int, rotations: int
) -> None:
    control = FakeControl(latest)
    found = in_vault(bench, control, tmp_path, lambda changes: changes.next_version(TransitVersion(NAME, 1)))
    assert (found, control.rotations) == (TransitVersion(NAME, taken), rotations)


def test_a_vault_that_was_put_back_is_not_rotated_into_a_used_number(bench: Bench, tmp_path: Path) -> None:
    control = FakeControl(2)
    for _ in range(3):
        with pytest.raises(ProtectorRefusedError, match="put back to an earlier state"):
            in_vault(bench, control, tmp_path, lambda changes: changes.next_version(TransitVersion(NAME, 3)))
    assert control.rotations == 0


def test_an_unsound_key_is_not_rolled(bench: Bench, tmp_path: Path) -> None:
    control = FakeControl(1, {"exportable": True})
    with pytest.raises(ProtectorRefusedError, match="can be exported"):
        in_vault(bench, control, tmp_path, lambda changes: changes.next_version(TransitVersion(NAME, 1)))
    assert control.rotations == 0


def test_a_vault_that_hangs_is_given_up(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transit_changes, "_PATIENCE_S", 0.05)
    control = FakeControl(1)
    control.get = lambda _name: asyncio.run(asyncio.sleep(0.3))  # type: ignore[assignment, method-assign]
    with pytest.raises(ProtectorUnavailableError, match="did not answer within"):
        in_vault(bench, control, tmp_path, lambda changes: changes.next_version(TransitVersion(NAME, 1)))


def test_the_log_says_once_what_stands_in_the_way_and_the_way_out(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsafe = ProtectorRefusedError("the token file has mode 0644", hint="make it private", command="chmod 600 FILE")
    others = iter(ProtectorUnavailableError(f"Vault fails at {number}") for number in range(100))
    problem: list[Exception | None] = [unsafe]
    monkeypatch.setattr(transit_changes, "_TELL_EVERY_S", 0.0)

    class Failing(FakeControl):
        def create(self, name: str) -> TransitKey:
            if problem[0] is not None:
                raise problem[0]
            return super().create(name)

    async def make(changes: TransitChanges) -> None:
        with suppress(ProtectorRefusedError, ProtectorUnavailableError):
            await changes.make_key(TransitVersion(NAME, 1))

    async def act(changes: TransitChanges) -> None:
        for _ in range(3):
            await make(changes)
        problem[0] = None
        await make(changes)
        problem[0] = unsafe
        await make(changes)
        monkeypatch.setattr(transit_changes, "_TELL_EVERY_S", 60.0)
        for problem[0] in others:
            await make(changes)

    in_vault(bench, Failing(), tmp_path, act)
    said = "no key that Vault holds can be made or rolled: "
    told = said + "the token file has mode 0644 (make it private; chmod 600 FILE)"
    assert caplog.messages == [told, told, said + "Vault fails at 0"]
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR", "WARNING"]
