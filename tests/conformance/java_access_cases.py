"""The Java client as a user to whom nothing is allowed: which exception arrives, with which message."""

from __future__ import annotations

from java_client import JavaClient, java


def nobody(client: JavaClient) -> None:
    provider = client.provider()
    crypto = client.crypto(provider)
    client.step("create", lambda: provider.createKey("j-denied", client.options()))
    client.step("create-given", lambda: provider.createKey("j-denied", bytes(16), client.options(bits=128)))
    client.step("list", lambda: provider.getKeys())
    client.step("metadata", lambda: provider.getMetadata("j-denied"))
    client.step("metadata-of-many", lambda: provider.getKeysMetadata("j-denied"))
    client.step("current", lambda: provider.getCurrentKey("j-denied"))
    client.step("version", lambda: provider.getKeyVersion("j-denied@0"))
    client.step("versions", lambda: provider.getKeyVersions("j-denied"))
    client.step("roll", lambda: provider.rollNewVersion("j-denied"))
    client.step("delete", lambda: provider.deleteKey("j-denied"))
    client.step("invalidate", lambda: provider.invalidateCache("j-denied"))
    client.step("generate", lambda: crypto.generateEncryptedKey("j-denied"))
    client.step("warm-up", lambda: crypto.warmUpEncryptedKeys("j-denied"))
    parts = java("crypto.key.KeyProviderCryptoExtension$EncryptedKeyVersion")
    edek = parts.createForDecryption("j-denied", "j-denied@0", bytes(16), bytes(16))
    client.step("decrypt", lambda: crypto.decryptEncryptedKey(edek))
    client.step("reencrypt", lambda: crypto.reencryptEncryptedKey(edek))
    batch = java("java.util.ArrayList")()
    batch.add(edek)
    client.step("batch", lambda: crypto.reencryptEncryptedKeys(batch))


def nobody_in_the_shell(client: JavaClient) -> None:
    with client.shell() as run:
        client.steps["create"] = run("create", "j-denied")
        client.steps["list"] = run("list")
        client.steps["roll"] = run("roll", "j-denied")
        client.steps["delete"] = run("delete", "j-denied", "-f")


def nobody_with_two_hosts(client: JavaClient) -> None:
    """A refusal is final: the other host is not asked."""
    provider = client.provider("localhost;127.0.0.1")
    client.step("create", lambda: provider.createKey("j-denied", client.options()))
    client.step("metadata", lambda: provider.getMetadata("j-denied"))
