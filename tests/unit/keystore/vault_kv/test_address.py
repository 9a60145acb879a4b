"""What a `vault:` URI of a key store names, and what it does not."""

from __future__ import annotations

import pytest

from ringfence_agent.keystore.open import is_shared, local_path
from ringfence_agent.keystore.vault_kv.address import VaultKvAddress, is_vault_uri, parse_vault_uri, require_vault
from ringfence_zones.errors import ConfigError, InputError


@pytest.mark.parametrize(
    ("uri", "prefix"),
    [
        ("vault://ringfence/c1/keystore", "ringfence/c1/keystore"),
        ("vault://kv/ringfence/c1/keystore", "ringfence/c1/keystore"),
        ("VAULT://keys/", "keys"),
        ("vault://kv-keys/a.b_c", "kv-keys/a.b_c"),
    ],
)
def test_the_mount_may_be_said_and_may_be_left_out(uri: str, prefix: str) -> None:
    assert parse_vault_uri(uri, "kv") == VaultKvAddress("kv", prefix)
    assert VaultKvAddress("kv", prefix).label == f"vault://kv/{prefix}"
    assert is_vault_uri(uri)
    assert is_shared(uri)
    assert local_path(uri) is None


@pytest.mark.parametrize(
    "uri",
    [
        "vault:",
        "vault://",
        "vault:keys",
        "vault:/keys",
        "vault:///keys",
        "vault://kv",
        "vault://kv/",
        "vault://a//b",
        "vault://a/../b",
        "vault://a/+/b",
        "vault://a/*",
        "vault://secret@host/keys",
        "vault://host:8200/keys",
        "vault://keys?version=1",
        "vault://ключ",
        "vault://" + "a" * 201,
    ],
)
def test_a_uri_that_is_no_place_is_refused_and_not_quoted(uri: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_vault_uri(uri, "kv")
    assert "secret" not in caught.value.message


def test_a_store_in_vault_takes_the_block_that_says_which() -> None:
    with pytest.raises(ConfigError, match="no vault block"):
        require_vault(None)
