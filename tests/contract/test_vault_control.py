"""Keys, batches and records of a running Vault: the double always, a real server when the environment names one.

What only the double can be made to do (to lose an answer, to step down, to let an hour pass) stands in
`test_vault_control_failures`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from vault_clusters import SERVERS, VaultCluster, VaultServer, vault_cluster, vault_server

from ringfence_agent.vault.policy import PolicyRole, policy_hcl
from ringfence_agent.vault.refusal import Reason, VaultRefusedError
from ringfence_agent.vault.settings import WRAP_KEY
from ringfence_agent.vault.transit_wire import EncryptItem, ItemFault, OpenItem, RewrapItem, TransitCiphertext
from ringfence_zones.errors import ProtectorRefusedError
from ringfence_zones.secret import Secret


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[VaultServer]:
    with vault_server(request.param) as server:
        yield server


@pytest.fixture
def cluster(server: VaultServer, tmp_path: Path) -> Iterator[VaultCluster]:
    with vault_cluster(server, tmp_path) as cluster:
        yield cluster


# Keys


def test_a_key_s_life(cluster: VaultCluster) -> None:
    cluster.set_up()
    keys = cluster.administrator().transit
    made = keys.create("z-one")
    assert (made.latest_version, made.min_decryption_version, made.soft_deleted) == (1, 1, False)
    assert keys.create("z-one") == made, "a key that is there is found, not made anew"
    assert keys.rotate("z-one", from_version=1).latest_version == 2
    assert keys.list_names() == sorted(["z-one", WRAP_KEY])
    keys.configure("z-one", min_decryption_version=2, min_encryption_version=2)
    keys.trim("z-one", 2)
    found = keys.get("z-one")
    assert (found.min_decryption_version, found.min_encryption_version, found.min_available_version) == (2, 2, 2)
    assert sorted(found.created_s) == [2]
    with pytest.raises(VaultRefusedError) as caught:
        keys.delete("z-one")
    assert caught.value.reason is Reason.DELETION_NOT_ALLOWED
    keys.configure("z-one", deletion_allowed=True)
    keys.delete("z-one")
    keys.delete("z-one")
    assert keys.find("z-one") is None
    with pytest.raises(ProtectorRefusedError, match="there is no Transit key z-one"):
        keys.get("z-one")


def test_a_key_can_be_disabled_and_enabled(cluster: VaultCluster) -> None:
    cluster.set_up()
    control = cluster.administrator()
    control.transit.create("z-one")
    sealed = control.batches.encrypt("z-one", [EncryptItem(Secret(b"x" * 32), b"context", 1)])
    control.transit.soft_delete("z-one")
    assert control.transit.get("z-one").soft_deleted
    assert isinstance(sealed[0], TransitCiphertext)
    assert control.batches.decrypt("z-one", [OpenItem(sealed[0], b"context")]) == [ItemFault.KEY_DISABLED]
    assert not control.transit.restore("z-one").soft_deleted
    assert control.batches.decrypt("z-one", [OpenItem(sealed[0], b"context")]) == [Secret(b"x" * 32)]
    with pytest.raises(ProtectorRefusedError, match="there is no Transit key"):
        control.transit.restore("z-none")


def test_a_name_that_is_taken_by_an_unsound_key_is_refused(cluster: VaultCluster) -> None:
    cluster.set_up()
    mount = cluster.settings().transit_mount
    cluster.done("POST", f"{mount}/keys/z-flat", {"type": "aes256-gcm96", "derived": False})
    cluster.done("POST", f"{mount}/keys/z-out", {"type": "aes256-gcm96", "derived": True, "exportable": True})
    keys = cluster.administrator().transit
    for name, fault in (("z-flat", "bound to nothing"), ("z-out", "exported")):
        with pytest.raises(ProtectorRefusedError, match=fault):
            keys.create(name)


def test_a_key_that_somebody_made_without_saying_how_is_refused(cluster: VaultCluster) -> None:
    cluster.set_up()
    settings = cluster.settings()
    token = cluster.token_with(policy_hcl(PolicyRole.KEYADMIN, settings))
    assert cluster.call("POST", f"{settings.transit_mount}/keys/bare", {}, token=token).status == 200
    with pytest.raises(ProtectorRefusedError, match="bound to nothing"):
        cluster.as_token(token).transit.create("bare")


def test_the_wrapping_key_s_folder_is_no_key(cluster: VaultCluster) -> None:
    cluster.set_up()
    cluster.done("GET", f"{cluster.settings().transit_mount}/wrapping_key")
    assert cluster.administrator().transit.list_names() == [WRAP_KEY]


# Batches


def test_three_hundred_items_there_and_back_in_their_order(cluster: VaultCluster) -> None:
    own = cluster.set_up_and_log_in()
    plain = [Secret(bytes([number % 256]) * 32) for number in range(300)]
    contexts = [f"context {number}".encode() for number in range(300)]
    made = own.batches.encrypt(
        WRAP_KEY, [EncryptItem(each, context, 1) for each, context in zip(plain, contexts, strict=True)]
    )
    sealed = [each for each in made if isinstance(each, TransitCiphertext)]
    items = [OpenItem(each, context) for each, context in zip(sealed, contexts, strict=True)]
    assert own.batches.decrypt(WRAP_KEY, items) == plain
    cluster.administrator().transit.rotate(WRAP_KEY, from_version=1)
    rewrapped = own.batches.rewrap(WRAP_KEY, [RewrapItem(*item, 2) for item in items])
    assert {each.version for each in rewrapped if isinstance(each, TransitCiphertext)} == {2}
    again = [
        OpenItem(each, context)
        for each, context in zip(rewrapped, contexts, strict=True)
        if isinstance(each, TransitCiphertext)
    ]
    assert own.batches.decrypt(WRAP_KEY, again) == plain


def test_bad_items_fail_alone(cluster: VaultCluster) -> None:
    own = cluster.set_up_and_log_in()
    (sealed,) = own.batches.encrypt(WRAP_KEY, [EncryptItem(Secret(b"p" * 32), b"context", 1)])
    assert isinstance(sealed, TransitCiphertext)
    spoiled = TransitCiphertext(1, sealed.raw[:-1] + bytes([sealed.raw[-1] ^ 1]))
    items = [
        OpenItem(sealed, b"context"),
        OpenItem(spoiled, b"context"),
        OpenItem(sealed, b"another"),
        OpenItem(TransitCiphertext(7, sealed.raw), b"context"),
        OpenItem(sealed, b"context"),
    ]
    good = Secret(b"p" * 32)
    expected = [good, ItemFault.CORRUPT, ItemFault.CORRUPT, ItemFault.VERSION_AHEAD, good]
    assert own.batches.decrypt(WRAP_KEY, items) == expected
    assert own.batches.decrypt(WRAP_KEY, items[1:2]) == [ItemFault.CORRUPT]


def test_a_key_that_is_not_there_is_named_and_a_policy_too(cluster: VaultCluster) -> None:
    own = cluster.set_up_and_log_in()
    with pytest.raises(ProtectorRefusedError, match="there is no such key"):
        own.batches.encrypt("z-none", [EncryptItem(Secret(b"p" * 32), b"context", 1)])
    generator = cluster.as_token(cluster.token_with(policy_hcl(PolicyRole.GENERATOR, cluster.settings())))
    (sealed,) = generator.batches.encrypt(WRAP_KEY, [EncryptItem(Secret(b"p" * 32), b"context", 1)])
    assert isinstance(sealed, TransitCiphertext)
    with pytest.raises(ProtectorRefusedError, match="decrypt with the Transit key") as caught:
        generator.batches.decrypt(WRAP_KEY, [OpenItem(sealed, b"context")])
    assert caught.value.reason == "forbidden"


# Records


def test_of_twenty_writers_one_wins_and_the_others_know(cluster: VaultCluster) -> None:
    own = cluster.set_up_and_log_in()
    path = f"ringfence/{cluster.name}/k-raced"
    outcomes: list[int | None] = []
    together = threading.Barrier(20)

    def write(number: int) -> None:
        together.wait()
        outcomes.append(own.kv.write(path, {"writer": number}, replaces=0))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes, key=str) == [1] + [None] * 19
    found = own.kv.find(path)
    assert found is not None
    assert found.version == 1


def test_a_record_s_life(cluster: VaultCluster) -> None:
    own = cluster.set_up_and_log_in()
    path = f"ringfence/{cluster.name}/k-one"
    assert own.kv.find(path) is None
    assert own.kv.find_metadata(path) is None
    assert own.kv.list_names(f"ringfence/{cluster.name}") == []
    assert own.kv.write(path, {"state": "creating"}, replaces=0) == 1
    assert own.kv.write(path, {"state": "stale"}, replaces=0) is None
    assert own.kv.write(path, {"state": "active", "n": [1, {"a": None}]}, replaces=1) == 2
    found, before = own.kv.find(path), own.kv.find(path, version=1)
    assert found is not None
    assert before is not None
    assert (found.version, found.data) == (2, {"state": "active", "n": [1, {"a": None}]})
    assert (before.version, before.data) == (1, {"state": "creating"})
    assert own.kv.list_names(f"ringfence/{cluster.name}") == ["k-one"]
    metadata = own.kv.find_metadata(path)
    assert metadata is not None
    assert metadata.current_version == 2


def test_a_record_that_an_outsider_deleted_is_seen_as_such(cluster: VaultCluster) -> None:
    own = cluster.set_up_and_log_in()
    path = f"ringfence/{cluster.name}/k-one"
    own.kv.write(path, {"state": "active"}, replaces=0)
    cluster.done("DELETE", f"{cluster.kv_mount}/data/{path}")
    found = own.kv.find(path)
    assert found is not None
    assert (found.version, found.data) == (1, None)
    assert own.kv.write(path, {}, replaces=0) is None, "the count of versions survives"
    cluster.done("POST", f"{cluster.kv_mount}/destroy/{path}", {"versions": [1]})
    destroyed = own.kv.find(path)
    assert destroyed is not None
    assert destroyed.data is None


def test_a_name_with_every_kind_of_character_is_one_name(cluster: VaultCluster) -> None:
    own = cluster.set_up_and_log_in()
    path = f"ringfence/{cluster.name}/k-ünïcode name+%2e"
    assert own.kv.write(path, {"a": 1}, replaces=0) == 1
    found = own.kv.find(path)
    assert found is not None
    assert own.kv.list_names(f"ringfence/{cluster.name}") == ["k-ünïcode name+%2e"]
