"""A short run on MariaDB in every test; the whole contract suite runs on it with `--all`."""

from __future__ import annotations

from pathlib import Path

import pytest
from databases import DatabaseServer
from local_stores import new_key
from store_places import ServerPlace

from ringfence_agent.keystore.interface import ChangeOrigin
from ringfence_agent.keystore.token_store import TokenRecord
from ringfence_zones.errors import KeyExistsError

# What collations, character sets and padding would take for one another.
NAMES = ["a", "A", "a ", "a  ", "á", "a\u0301", "ß", "ss", "🔑", "🗝", "a\0", "x" * 1000, "x" * 999 + "X"]


def test_keys_tokens_and_policy_are_kept_exactly_on_mariadb(mariadb: DatabaseServer, tmp_path: Path) -> None:
    place = ServerPlace(mariadb, tmp_path)
    store = place.open()
    for name in NAMES:
        store.create_key(new_key(name), ChangeOrigin("etl", b"d" * 32))
    with pytest.raises(KeyExistsError):
        store.create_key(new_key("a "))
    store.roll_key("🔑", None)
    store.delete_key("a")
    store.publish_policy(0, b"{}", "root")
    token = TokenRecord(store.next_sequence(), bytes(range(256)), 5)
    store.add_token(token)
    again = place.open()
    assert {metadata.name: metadata.versions for metadata in again.list_metadata()} == {
        name: 2 if name == "🔑" else 1 for name in NAMES if name != "a"
    }
    for name in NAMES[1:]:
        key = again.find_key(name)
        assert key is not None
        assert key.versions[0].material == new_key(name).material
    assert again.find_token(token.sequence) == token
    assert again.find_policy() == store.find_policy()
    assert [change.owner_id for change in again.find_unconfirmed("🗝")] == [store.owner_id]
    assert again.is_alive(store.owner_id)
    place.close()
