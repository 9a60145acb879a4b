"""The Java client as a user to whom nothing is allowed: which exception arrives, with which message."""

from __future__ import annotations

from java_client import JavaClient, java


def nobody(client: JavaClient) -> None:
    denied = client.key("j-denied")
    provider = client.provider()
    crypto = client.crypto(provider)
    client.step("create", lambda: provider.createKey(denied, client.options()))
    client.step("create-given", lambda: provider.createKey(denied, bytes(16), client.options(bits=128)))
    client.step("list", provider.getKeys)
    client.step("metadata", lambda: provider.getMetadata(denied))
    client.step("metadata-of-many", lambda: provider.getKeysMetadata(denied))
    client.step("current", lambda: provider.getCurrentKey(denied))
    client.step("version", lambda: provider.getKeyVersion(f"{denied}@0"))
    client.step("versions", lambda: provider.getKeyVersions(denied))
    client.step("roll", lambda: provider.rollNewVersion(denied))
    client.step("delete", lambda: provider.deleteKey(denied))
    client.step("invalidate", lambda: provider.invalidateCache(denied))
    client.step("generate", lambda: crypto.generateEncryptedKey(denied))
    client.step("warm-up", lambda: crypto.warmUpEncryptedKeys(denied))
    parts = java("crypto.key.KeyProviderCryptoExtension$EncryptedKeyVersion")
    edek = parts.createForDecryption(denied, f"{denied}@0", bytes(16), bytes(16))
    client.step("decrypt", lambda: crypto.decryptEncryptedKey(edek))
    client.step("reencrypt", lambda: crypto.reencryptEncryptedKey(edek))
    batch = java("java.util.ArrayList")()
    batch.add(edek)
    client.step("batch", lambda: crypto.reencryptEncryptedKeys(batch))


def nobody_in_the_shell(client: JavaClient) -> None:
    denied = client.key("j-denied")
    with client.shell() as run:
        client.steps["create"] = run("create", denied)
        client.steps["list"] = run("list")
        client.steps["roll"] = run("roll", denied)
        client.steps["delete"] = run("delete", denied, "-f")


def nobody_with_two_hosts(client: JavaClient) -> None:
    """A refusal is final: the other host is not asked."""
    denied = client.key("j-denied")
    provider = client.provider("localhost;127.0.0.1")
    client.step("create", lambda: provider.createKey(denied, client.options()))
    client.step("metadata", lambda: provider.getMetadata(denied))
