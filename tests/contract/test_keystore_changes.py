"""How instances that share a store learn of each other's changes, on each kind of place in `store_places`."""

from __future__ import annotations

import os
import signal

import pytest
from local_stores import in_child, kill, new_key
from store_places import Place

from ringfence_agent.keystore.interface import ChangeOrigin, Changes, OpenStore
from ringfence_agent.keystore.rows.changes import KEPT_CHANGES
from ringfence_zones.errors import KeyExistsError, KeyNotFoundError, UnconfirmedChangeError

ETL = ChangeOrigin("etl", b"d" * 32)


def test_each_change_of_keys_or_policy_moves_the_change_number_on_every_handle(place: Place) -> None:
    one, other = place.open(), place.open()
    numbers = [other.change_number()]
    for change in (
        lambda: one.create_key(new_key("k")),
        lambda: one.roll_key("k", None),
        lambda: one.delete_key("k"),
        lambda: one.publish_policy(0, b"{}", "root"),
    ):
        change()
        numbers.append(other.change_number())
        assert one.change_number() == numbers[-1]
    assert numbers == sorted(set(numbers))


def test_what_was_refused_moves_nothing(store: OpenStore) -> None:
    store.create_key(new_key("k"))
    before = store.change_number()
    with pytest.raises(KeyExistsError):
        store.create_key(new_key("k"), ETL)
    with pytest.raises(KeyNotFoundError):
        store.roll_key("none", None, ETL)
    assert store.change_number() == before
    assert list(store.find_unconfirmed("k")) == []


def test_changes_since_a_number_are_the_keys_changed_after_it(place: Place) -> None:
    one, other = place.open(), place.open()
    one.create_key(new_key("before"))
    seen = other.change_number()
    assert other.changes_since(seen) == Changes(seen, frozenset())
    one.create_key(new_key("a"))
    one.roll_key("before", None)
    one.publish_policy(0, b"{}", "root")
    one.delete_key("a")
    assert other.changes_since(seen) == Changes(one.change_number(), frozenset({"a", "before"}))


def test_changes_too_far_back_or_ahead_of_the_store_may_be_anything(store: OpenStore) -> None:
    store.create_key(new_key("k"))
    first = store.change_number()
    assert store.changes_since(first + 1) == Changes(first, None)
    for revision in range(KEPT_CHANGES):
        store.publish_policy(revision, b"{}", "root")
    newest = store.change_number()
    assert store.changes_since(first) == Changes(newest, frozenset())
    assert store.changes_since(first - 1) == Changes(newest, None)


def test_a_change_with_an_origin_is_unconfirmed_until_it_is_confirmed(place: Place) -> None:
    one, other = place.open(), place.open()
    one.create_key(new_key("k"), ETL)
    one.roll_key("k", None, ChangeOrigin("other", b"e" * 32))
    one.roll_key("k", None)
    created, rolled = other.find_unconfirmed("k")
    assert (created.key_name, created.version, created.origin, created.owner_id) == ("k", 0, ETL, one.owner_id)
    assert (rolled.version, rolled.origin.user, rolled.origin.request_digest) == (1, "other", b"e" * 32)
    assert created.made_ms <= rolled.made_ms
    before = other.change_number()
    other.confirm([created])
    assert list(one.find_unconfirmed("k")) == [rolled]
    one.confirm([created, rolled])
    one.confirm([])
    assert list(other.find_unconfirmed("k")) == []
    assert other.change_number() == before


def test_the_same_request_rolls_a_key_again_only_after_its_first_roll_was_confirmed(place: Place) -> None:
    one, other = place.open(), place.open()
    one.create_key(new_key("k"))
    one.roll_key("k", None, ETL)
    with pytest.raises(UnconfirmedChangeError):
        other.roll_key("k", None, ETL)
    assert other.roll_key("k", None, ChangeOrigin("etl", b"e" * 32)).version == 2
    assert other.roll_key("k", None).version == 3
    one.confirm(one.find_unconfirmed("k"))
    assert other.roll_key("k", None, ETL).version == 4


def test_what_was_left_unconfirmed_of_a_deleted_key_stops_no_roll_of_its_successor(store: OpenStore) -> None:
    store.create_key(new_key("k"))
    store.roll_key("k", None, ETL)
    store.delete_key("k")
    store.create_key(new_key("k"))
    assert store.roll_key("k", None, ETL).version == 3


def test_origins_of_a_key_end_with_no_other_keys(store: OpenStore) -> None:
    for name in ("a", "b"):
        store.create_key(new_key(name), ETL)
    store.confirm(store.find_unconfirmed("a"))
    assert [change.key_name for change in store.find_unconfirmed("b")] == ["b"]
    assert list(store.find_unconfirmed("\ud800")) == []


def test_a_handle_is_alive_until_it_is_closed(place: Place) -> None:
    one, other = place.open(), place.open()
    assert one.owner_id != other.owner_id
    assert one.is_alive(one.owner_id)
    assert one.is_alive(other.owner_id)
    gone = other.owner_id
    other.close()
    assert not eventually_alive(one, gone)
    assert one.is_alive(one.owner_id)
    assert not one.is_alive(1)


def test_a_process_that_was_killed_is_gone_and_what_it_left_unconfirmed_is_found(place: Place) -> None:
    place.open().close()

    def act(report: int) -> None:
        store = place.open()
        store.create_key(new_key("k"), ETL)
        os.write(report, f"{store.owner_id}\n".encode())
        signal.pause()

    pid, read_end = in_child(act)
    owner_id = int(os.read(read_end, 100))
    os.close(read_end)
    store = place.open()
    assert store.is_alive(owner_id)
    future_ms = 10**15
    assert store.remove_unconfirmed(future_ms) == 0
    kill(pid)
    assert not eventually_alive(store, owner_id)
    (left,) = store.find_unconfirmed("k")
    assert (left.owner_id, left.origin) == (owner_id, ETL)
    assert store.remove_unconfirmed(left.made_ms) == 0
    assert store.remove_unconfirmed(future_ms) == 1
    assert list(store.find_unconfirmed("k")) == []


def test_what_nobody_asked_for_again_is_forgotten_by_whoever_made_it(place: Place) -> None:
    one, other = place.open(), place.open()
    one.create_key(new_key("k"), ETL)
    future_ms = 10**15
    assert other.remove_unconfirmed(future_ms) == 0
    assert one.remove_unconfirmed(0) == 0
    assert one.remove_unconfirmed(future_ms) == 1
    assert list(other.find_unconfirmed("k")) == []


def eventually_alive(store: OpenStore, owner_id: int) -> bool:
    """A server may take a moment to notice that a client has gone."""
    return not any(not store.is_alive(owner_id) for _ in range(2000))
