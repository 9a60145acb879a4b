"""What every key store must do with delegation tokens, on each kind of place in `store_places`."""

from __future__ import annotations

import os
import threading

import pytest
from local_stores import new_key
from store_places import Place

from ringfence_agent.keystore.interface import OpenStore
from ringfence_agent.keystore.token_store import TokenRecord
from ringfence_zones.secret import Secret


def issue(store: OpenStore, expires_ms: int = 1000) -> TokenRecord:
    token = TokenRecord(store.next_sequence(), os.urandom(40), expires_ms)
    store.add_token(token)
    return token


def test_a_new_store_has_no_master_key_and_no_token(store: OpenStore) -> None:
    assert list(store.list_master_keys()) == []
    assert store.find_token(1) is None
    assert not store.cancel_token(1)
    assert store.renew_token(1, 5) is None
    assert store.remove_expired(10**15) == 0


def test_a_token_is_found_as_it_was_issued_on_every_handle(place: Place) -> None:
    one, other = place.open(), place.open()
    token = issue(one)
    assert other.find_token(token.sequence) == one.find_token(token.sequence) == token
    assert other.find_token(token.sequence + 1) is None


def test_a_renewal_moves_the_expiry_and_never_back(place: Place) -> None:
    one, other = place.open(), place.open()
    token = issue(one, 1000)
    later = TokenRecord(token.sequence, token.identifier, 2000)
    assert other.renew_token(token.sequence, 2000) == later
    assert one.renew_token(token.sequence, 1500) == later
    assert one.find_token(token.sequence) == later


def test_a_cancelled_token_is_gone_for_everyone_and_cannot_be_renewed(place: Place) -> None:
    one, other = place.open(), place.open()
    token, stays = issue(one), issue(one)
    assert other.cancel_token(token.sequence)
    assert one.find_token(token.sequence) is None
    assert one.renew_token(token.sequence, 5000) is None
    assert not one.cancel_token(token.sequence)
    assert one.find_token(stays.sequence) == stays


def test_sequence_numbers_never_repeat_across_handles_and_reopening(place: Place) -> None:
    handles = [place.open(), place.open()]
    numbers = [handles[turn % 2].next_sequence() for turn in range(200)]
    for handle in handles:
        handle.close()
    again = place.open()
    numbers += [again.next_sequence() for _ in range(100)]
    assert len(set(numbers)) == 300
    assert min(numbers) == 1
    assert max(numbers) < 1000  # blocks are small: the numbers must last for 2^31 tokens


def test_sequence_numbers_never_repeat_between_threads(store: OpenStore) -> None:
    numbers: list[int] = []
    threads = [
        threading.Thread(target=lambda: numbers.extend(store.next_sequence() for _ in range(100))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(numbers)) == 400


def test_a_master_key_comes_back_with_its_secret(place: Place) -> None:
    secret = os.urandom(32)
    made = place.open().add_master_key(0, Secret(secret), 5, 600)
    (found,) = place.open().list_master_keys()
    assert (found.key_id, found.created_ms, found.expires_ms) == (made.key_id, 5, 600) == (1, 5, 600)
    assert found.secret.reveal() == made.secret.reveal() == secret


def test_of_several_instances_that_add_a_master_key_at_once_one_does_and_all_use_it(place: Place) -> None:
    handles = [place.open(), place.open()]
    start = threading.Barrier(6)
    given: list[bytes] = []

    def add(number: int) -> None:
        start.wait()
        key = handles[number % 2].add_master_key(0, Secret(bytes([number]) * 32), number, 1000 + number)
        given.append(key.secret.reveal())

    threads = [threading.Thread(target=add, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (key,) = handles[0].list_master_keys()
    assert given == [key.secret.reveal()] * 6
    second = handles[1].add_master_key(1, Secret(b"x" * 32), 9, 9)
    assert [found.key_id for found in handles[0].list_master_keys()] == [1, second.key_id] == [1, 2]


def test_what_expired_is_removed_except_the_newest_master_key(store: OpenStore) -> None:
    old, live = issue(store, 999), issue(store, 1000)
    store.add_master_key(0, Secret(b"1" * 32), 1, 500)
    store.add_master_key(1, Secret(b"2" * 32), 2, 600)
    assert store.remove_expired(1000) == 1
    assert store.find_token(old.sequence) is None
    assert store.find_token(live.sequence) == live
    assert [key.key_id for key in store.list_master_keys()] == [2]
    assert store.add_master_key(2, Secret(b"3" * 32), 3, 700).key_id == 3
    assert store.add_master_key(1, Secret(b"4" * 32), 3, 700).key_id == 3


def test_an_expired_token_is_there_until_it_is_removed(store: OpenStore) -> None:
    token = issue(store, 0)
    assert store.find_token(token.sequence) == token


@pytest.mark.parametrize("change", ["renew", "cancel", "remove", "master key"])
def test_whatever_ends_what_a_cache_holds_moves_the_token_change_number(place: Place, change: str) -> None:
    one, other = place.open(), place.open()
    token = issue(one, 10)
    before = other.token_change_number()
    match change:
        case "renew":
            one.renew_token(token.sequence, 20)
        case "cancel":
            one.cancel_token(token.sequence)
        case "remove":
            one.remove_expired(11)
        case _:
            one.add_master_key(0, Secret(b"s" * 32), 1, 2)
    assert other.token_change_number() > before


def test_tokens_and_keys_have_change_numbers_of_their_own(store: OpenStore) -> None:
    keys, tokens = store.change_number(), store.token_change_number()
    store.cancel_token(issue(store).sequence)
    store.add_master_key(0, Secret(b"s" * 32), 1, 2)
    assert store.change_number() == keys
    tokens = store.token_change_number()
    store.create_key(new_key("k"))
    assert store.change_number() > keys
    assert store.token_change_number() == tokens


def test_the_secret_of_a_master_key_never_rests_in_clear(place: Place) -> None:
    secret = os.urandom(32)
    store = place.open()
    store.add_master_key(0, Secret(secret), 1, 2)
    store.add_token(TokenRecord(store.next_sequence(), b"canary-identifier", 5))
    stored = place.stored_bytes()
    assert b"canary-identifier" in stored  # the scan does find what is there
    assert secret not in stored
    assert secret.hex().encode() not in stored


def test_derived_secrets_are_the_same_on_every_handle_and_apart_by_purpose_and_store(
    place: Place, new_place: object
) -> None:
    one, other = place.open(), place.open()
    secret = one.derive_secret("cookie").reveal()
    assert len(secret) == 32
    assert other.derive_secret("cookie").reveal() == secret
    assert one.derive_secret("other").reveal() != secret
    assert callable(new_place)
    assert new_place().open().derive_secret("cookie").reveal() != secret
