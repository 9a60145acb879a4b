"""What `KmsClient` does on every Hadoop KMS: run against ours and against Hadoop's own."""

from __future__ import annotations

import pytest

from ringfence_zones.errors import KeyExistsError, KeyNotFoundError, KmsRemoteError
from ringfence_zones.kms_client import KmsClient


def a_keys_life_is_seen_as_it_is(client: KmsClient, key: str) -> None:
    """Create, find, roll, delete, and every one of them where it cannot be."""
    assert client.find_key(key) is None
    client.create_key(key, 256, description="a zone's key", attributes={"ringfence.custody": "envelope"})
    found = client.find_key(key)
    assert found is not None
    assert (found.name, found.length_bits, found.cipher, found.versions) == (key, 256, "AES/CTR/NoPadding", 1)
    assert found.description == "a zone's key"
    assert found.attributes["ringfence.custody"] == "envelope"
    assert found.created_ms > 1_600_000_000_000
    with pytest.raises(KeyExistsError) as caught:
        client.create_key(key, 128)
    assert caught.value.key_name == key
    assert client.roll_key(key) == f"{key}@1"
    assert client.find_keys([key, f"{key}-missing"]) == {key: client.find_key(key)}
    assert key in client.list_key_names()
    client.delete_key(key)
    assert client.find_key(key) is None
    for gone in (client.roll_key, client.delete_key):
        with pytest.raises(KeyNotFoundError):
            gone(key)


def a_length_no_cipher_takes_is_refused(client: KmsClient, key: str) -> None:
    """The KMS's own reason reaches the caller."""
    with pytest.raises(KmsRemoteError) as caught:
        client.create_key(key, 100)
    assert caught.value.java_class is not None
    assert client.find_key(key) is None
