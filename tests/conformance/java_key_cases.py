"""The Java client: keys through `KeyProvider`, EDEKs through its extension, `hadoop key`."""

from __future__ import annotations

import re

from java_client import JavaClient, describe, java
from raw_key_cases import SPECIAL_NAME

# `[a=1], [b=2]`, in the order of a Java HashMap.
_ATTRIBUTES = re.compile(r"\[[^\]]*\](, \[[^\]]*\])+")


def life_of_a_key(client: JavaClient) -> None:
    life, absent = (client.key("j-life"), client.key("j-absent"))
    provider = client.provider()
    options = client.options(bits=256, description="a key", attributes={"team": "data"})
    client.step("create", lambda: provider.createKey(life, options))
    client.step("create-again", lambda: provider.createKey(life, client.options()))
    client.step("metadata", lambda: provider.getMetadata(life))
    client.step("current", lambda: provider.getCurrentKey(life))
    client.step("version", lambda: provider.getKeyVersion(f"{life}@0"))
    client.step("roll", lambda: provider.rollNewVersion(life))
    client.step("versions", lambda: provider.getKeyVersions(life))
    client.step("current-after-roll", lambda: provider.getCurrentKey(life))
    client.step("listed", lambda: life in [str(name) for name in provider.getKeys()])
    client.step("metadata-of-many", lambda: provider.getKeysMetadata(life, absent))
    client.step("invalidate", lambda: provider.invalidateCache(life))
    client.step("delete", lambda: provider.deleteKey(life))
    client.step("metadata-after-delete", lambda: provider.getMetadata(life))


def what_is_not_there(client: JavaClient) -> None:
    absent = client.key("j-absent")
    provider = client.provider()
    client.step("metadata", lambda: provider.getMetadata(absent))
    client.step("current", lambda: provider.getCurrentKey(absent))
    client.step("version", lambda: provider.getKeyVersion(f"{absent}@0"))
    client.step("versions", lambda: provider.getKeyVersions(absent))
    client.step("roll", lambda: provider.rollNewVersion(absent))
    client.step("delete", lambda: provider.deleteKey(absent))
    client.step("invalidate", lambda: provider.invalidateCache(absent))
    client.step("metadata-of-none", provider.getKeysMetadata)


def material_from_the_client(client: JavaClient) -> None:
    given_key, bad = (client.key("j-given"), client.key("j-bad"))
    provider = client.provider()
    material = bytes(range(16))
    client.step("create", lambda: provider.createKey(given_key, material, client.options(bits=128)))
    client.note("same", str(bytes(provider.getCurrentKey(given_key).getMaterial()) == material))
    client.step("roll", lambda: provider.rollNewVersion(given_key, material[::-1]))
    client.note("same-after-roll", str(bytes(provider.getCurrentKey(given_key).getMaterial()) == material[::-1]))
    client.step("too-short", lambda: provider.rollNewVersion(given_key, b"short"))
    client.step("other-length", lambda: provider.createKey(bad, material, client.options(bits=256)))


def names(client: JavaClient) -> None:
    """TestKMS.testSpecialKeyNames and more."""
    provider = client.provider()
    odd = (SPECIAL_NAME, "j@at", "j/slash", "j percent%25", "j+plus", "j;semicolon", "größe-鍵", "j.do.ts")
    for number, name in enumerate(map(client.key, odd)):
        client.step(f"create-{number}", lambda name=name: provider.createKey(name, client.options()))
        client.step(f"metadata-{number}", lambda name=name: provider.getMetadata(name))
        client.step(f"version-{number}", lambda name=name: provider.getKeyVersion(f"{name}@0"))
        client.step(f"many-{number}", lambda name=name: provider.getKeysMetadata(name))
        client.step(f"roll-{number}", lambda name=name: provider.rollNewVersion(name))
        client.step(f"delete-{number}", lambda name=name: provider.deleteKey(name))


def edeks(client: JavaClient) -> None:
    eek = client.key("j-eek")
    provider = client.provider()
    provider.createKey(eek, client.options(bits=256))
    crypto = client.crypto(provider)
    made = client.step("generate", lambda: crypto.generateEncryptedKey(eek))
    opened = client.step("decrypt", lambda: crypto.decryptEncryptedKey(made))
    client.step("warm-up", lambda: crypto.warmUpEncryptedKeys(eek))
    client.step("same-version", lambda: crypto.reencryptEncryptedKey(made))
    provider.rollNewVersion(eek)
    client.step("drain", lambda: crypto.drain(eek))
    moved = client.step("reencrypt", lambda: crypto.reencryptEncryptedKey(made))
    client.note("same-iv", str(bytes(moved.getEncryptedKeyIv()) == bytes(made.getEncryptedKeyIv())))
    again = crypto.decryptEncryptedKey(moved)
    client.note("same-dek", str(bytes(again.getMaterial()) == bytes(opened.getMaterial())))
    batch = java("java.util.ArrayList")()
    for edek in (made, moved, crypto.generateEncryptedKey(eek)):
        batch.add(edek)
    client.step("batch", lambda: crypto.reencryptEncryptedKeys(batch))
    client.note("batch-after", describe(batch))


def edeks_refused(client: JavaClient) -> None:
    one_key, two_key, absent = (client.key("j-one"), client.key("j-two"), client.key("j-absent"))
    provider = client.provider()
    for name in (one_key, two_key):
        provider.createKey(name, client.options())
    crypto = client.crypto(provider)
    made = crypto.generateEncryptedKey(one_key)
    parts = java("crypto.key.KeyProviderCryptoExtension$EncryptedKeyVersion")

    def forged(key: str, version: str, iv: bytes) -> object:
        return parts.createForDecryption(key, version, iv, made.getEncryptedKeyVersion().getMaterial())

    iv = bytes(made.getEncryptedKeyIv())
    client.step("generate-absent", lambda: crypto.generateEncryptedKey(absent))
    client.step("warm-up-absent", lambda: crypto.warmUpEncryptedKeys(absent))
    client.step("other-key", lambda: crypto.decryptEncryptedKey(forged(two_key, f"{one_key}@0", iv)))
    client.step("unknown-version", lambda: crypto.decryptEncryptedKey(forged(one_key, f"{one_key}@5", iv)))
    client.step("absent-key", lambda: crypto.decryptEncryptedKey(forged(absent, f"{absent}@0", iv)))
    client.step("short-iv", lambda: crypto.decryptEncryptedKey(forged(one_key, f"{one_key}@0", iv[:8])))
    client.step("reencrypt-other-key", lambda: crypto.reencryptEncryptedKey(forged(two_key, f"{one_key}@0", iv)))
    client.step("reencrypt-unknown", lambda: crypto.reencryptEncryptedKey(forged(one_key, f"{one_key}@5", iv)))
    batch = java("java.util.ArrayList")()
    batch.add(forged(absent, f"{absent}@0", iv))
    client.step("batch-absent", lambda: crypto.reencryptEncryptedKeys(batch))


def options_refused(client: JavaClient) -> None:
    bad, upper = (client.key("j-bad"), client.key("J-UPPER"))
    provider = client.provider()
    client.step("length-100", lambda: provider.createKey(bad, client.options(bits=100)))
    client.step("cipher", lambda: provider.createKey(bad, client.options(cipher="ROT13")))
    client.step("upper-case", lambda: provider.createKey(upper, client.options()))


def key_shell(client: JavaClient) -> None:
    shell, absent, bad = (client.key("j-shell"), client.key("j-absent"), client.key("j-bad"))
    with client.shell() as run:
        for step, arguments in (
            ("create", ("create", shell, "-size", "256", "-description", "größe", "-attr", "a=1", "-attr", "b=2")),
            ("create-again", ("create", shell)),
            ("roll", ("roll", shell)),
            ("roll-absent", ("roll", absent)),
            ("invalidate", ("invalidateCache", shell)),
            ("bad-size", ("create", bad, "-size", "100")),
            ("bad-cipher", ("create", bad, "-cipher", "ROT13")),
            ("metadata", ("list", "-metadata")),
            ("list", ("list",)),
            ("delete", ("delete", shell, "-f")),
            ("delete-again", ("delete", shell, "-f")),
            ("strict-without-provider", ("list", "-strict")),
        ):
            client.steps[step] = _about("j-shell", run(*arguments)) if arguments[0] == "list" else run(*arguments)


def _about(key: str, record: dict[str, str]) -> dict[str, str]:
    # Other cases' keys, the order of keys and the date are not the case's.
    lines = [line for line in record["output"].splitlines() if line.startswith((key, "Listing"))]
    dated = [re.sub(r"created: \w{3} \w{3} .*? \d{4}", "created: <date>", line) for line in lines]
    return {**record, "output": "\n".join(_ATTRIBUTES.sub(_sorted, line) for line in dated)}


def _sorted(attributes: re.Match[str]) -> str:
    return ", ".join(sorted(attributes[0].split(", ")))


def two_hosts_one_dead(client: JavaClient) -> None:
    """127.0.0.2 refuses connections: reads and creates move on; what is fanned out to every host fails."""
    hosts = client.key("j-hosts")
    provider = client.provider("127.0.0.2;localhost")
    client.step("create", lambda: provider.createKey(hosts, client.options()))
    for turn in range(2):  # The list begins at another host each time.
        client.step(f"metadata-{turn}", lambda: provider.getMetadata(hosts))
        client.step(f"current-{turn}", lambda: provider.getCurrentKey(hosts))
    crypto = client.crypto(provider)
    made = client.step("generate", lambda: crypto.generateEncryptedKey(hosts))
    client.step("decrypt", lambda: crypto.decryptEncryptedKey(made))
    client.step("roll", lambda: provider.rollNewVersion(hosts))
    client.step("versions-after-roll", lambda: client.provider().getMetadata(hosts))
    client.step("delete", lambda: provider.deleteKey(hosts))
    client.step("metadata-after-delete", lambda: client.provider().getMetadata(hosts))


def two_hosts_alive(client: JavaClient) -> None:
    both_key, absent = (client.key("j-both"), client.key("j-absent"))
    provider = client.provider("localhost;127.0.0.1")
    client.step("create", lambda: provider.createKey(both_key, client.options()))
    client.step("roll", lambda: provider.rollNewVersion(both_key))
    client.step("absent-roll", lambda: provider.rollNewVersion(absent))
    client.step("delete", lambda: provider.deleteKey(both_key))


def no_host_alive(client: JavaClient) -> None:
    none_key = client.key("j-none")
    provider = client.provider("127.0.0.2")
    client.step("metadata", lambda: provider.getMetadata(none_key))
    client.step("create", lambda: provider.createKey(none_key, client.options()))
    client.step("delete", lambda: provider.deleteKey(none_key))
