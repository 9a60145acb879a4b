"""The Java client: keys through `KeyProvider`, EDEKs through its extension, `hadoop key`."""

from __future__ import annotations

import re

from java_client import JavaClient, describe, java
from raw_key_cases import SPECIAL_NAME

# `[a=1], [b=2]`, in the order of a Java HashMap.
_ATTRIBUTES = re.compile(r"\[[^\]]*\](, \[[^\]]*\])+")


def life_of_a_key(client: JavaClient) -> None:
    provider = client.provider()
    options = client.options(bits=256, description="a key", attributes={"team": "data"})
    client.step("create", lambda: provider.createKey("j-life", options))
    client.step("create-again", lambda: provider.createKey("j-life", client.options()))
    client.step("metadata", lambda: provider.getMetadata("j-life"))
    client.step("current", lambda: provider.getCurrentKey("j-life"))
    client.step("version", lambda: provider.getKeyVersion("j-life@0"))
    client.step("roll", lambda: provider.rollNewVersion("j-life"))
    client.step("versions", lambda: provider.getKeyVersions("j-life"))
    client.step("current-after-roll", lambda: provider.getCurrentKey("j-life"))
    client.step("listed", lambda: "j-life" in [str(name) for name in provider.getKeys()])
    client.step("metadata-of-many", lambda: provider.getKeysMetadata("j-life", "j-absent"))
    client.step("invalidate", lambda: provider.invalidateCache("j-life"))
    client.step("delete", lambda: provider.deleteKey("j-life"))
    client.step("metadata-after-delete", lambda: provider.getMetadata("j-life"))


def what_is_not_there(client: JavaClient) -> None:
    provider = client.provider()
    client.step("metadata", lambda: provider.getMetadata("j-absent"))
    client.step("current", lambda: provider.getCurrentKey("j-absent"))
    client.step("version", lambda: provider.getKeyVersion("j-absent@0"))
    client.step("versions", lambda: provider.getKeyVersions("j-absent"))
    client.step("roll", lambda: provider.rollNewVersion("j-absent"))
    client.step("delete", lambda: provider.deleteKey("j-absent"))
    client.step("invalidate", lambda: provider.invalidateCache("j-absent"))
    client.step("metadata-of-none", lambda: provider.getKeysMetadata())


def material_from_the_client(client: JavaClient) -> None:
    provider = client.provider()
    material = bytes(range(16))
    client.step("create", lambda: provider.createKey("j-given", material, client.options(bits=128)))
    client.note("same", str(bytes(provider.getCurrentKey("j-given").getMaterial()) == material))
    client.step("roll", lambda: provider.rollNewVersion("j-given", material[::-1]))
    client.note("same-after-roll", str(bytes(provider.getCurrentKey("j-given").getMaterial()) == material[::-1]))
    client.step("too-short", lambda: provider.rollNewVersion("j-given", b"short"))
    client.step("other-length", lambda: provider.createKey("j-bad", material, client.options(bits=256)))


def names(client: JavaClient) -> None:
    """TestKMS.testSpecialKeyNames and more."""
    provider = client.provider()
    odd = (SPECIAL_NAME, "j@at", "j/slash", "j percent%25", "j+plus", "j;semicolon", "größe-鍵", "j.do.ts")
    for number, name in enumerate(odd):
        client.step(f"create-{number}", lambda name=name: provider.createKey(name, client.options()))
        client.step(f"metadata-{number}", lambda name=name: provider.getMetadata(name))
        client.step(f"version-{number}", lambda name=name: provider.getKeyVersion(f"{name}@0"))
        client.step(f"many-{number}", lambda name=name: provider.getKeysMetadata(name))
        client.step(f"roll-{number}", lambda name=name: provider.rollNewVersion(name))
        client.step(f"delete-{number}", lambda name=name: provider.deleteKey(name))


def edeks(client: JavaClient) -> None:
    provider = client.provider()
    provider.createKey("j-eek", client.options(bits=256))
    crypto = client.crypto(provider)
    made = client.step("generate", lambda: crypto.generateEncryptedKey("j-eek"))
    opened = client.step("decrypt", lambda: crypto.decryptEncryptedKey(made))
    client.step("warm-up", lambda: crypto.warmUpEncryptedKeys("j-eek"))
    client.step("same-version", lambda: crypto.reencryptEncryptedKey(made))
    provider.rollNewVersion("j-eek")
    client.step("drain", lambda: crypto.drain("j-eek"))
    moved = client.step("reencrypt", lambda: crypto.reencryptEncryptedKey(made))
    client.note("same-iv", str(bytes(moved.getEncryptedKeyIv()) == bytes(made.getEncryptedKeyIv())))
    again = crypto.decryptEncryptedKey(moved)
    client.note("same-dek", str(bytes(again.getMaterial()) == bytes(opened.getMaterial())))
    batch = java("java.util.ArrayList")()
    for edek in (made, moved, crypto.generateEncryptedKey("j-eek")):
        batch.add(edek)
    client.step("batch", lambda: crypto.reencryptEncryptedKeys(batch))
    client.note("batch-after", describe(batch))


def edeks_refused(client: JavaClient) -> None:
    provider = client.provider()
    for name in ("j-one", "j-two"):
        provider.createKey(name, client.options())
    crypto = client.crypto(provider)
    made = crypto.generateEncryptedKey("j-one")
    parts = java("crypto.key.KeyProviderCryptoExtension$EncryptedKeyVersion")

    def forged(key: str, version: str, iv: bytes) -> object:
        return parts.createForDecryption(key, version, iv, made.getEncryptedKeyVersion().getMaterial())

    iv = bytes(made.getEncryptedKeyIv())
    client.step("generate-absent", lambda: crypto.generateEncryptedKey("j-absent"))
    client.step("warm-up-absent", lambda: crypto.warmUpEncryptedKeys("j-absent"))
    client.step("other-key", lambda: crypto.decryptEncryptedKey(forged("j-two", "j-one@0", iv)))
    client.step("unknown-version", lambda: crypto.decryptEncryptedKey(forged("j-one", "j-one@5", iv)))
    client.step("absent-key", lambda: crypto.decryptEncryptedKey(forged("j-absent", "j-absent@0", iv)))
    client.step("short-iv", lambda: crypto.decryptEncryptedKey(forged("j-one", "j-one@0", iv[:8])))
    client.step("reencrypt-other-key", lambda: crypto.reencryptEncryptedKey(forged("j-two", "j-one@0", iv)))
    client.step("reencrypt-unknown", lambda: crypto.reencryptEncryptedKey(forged("j-one", "j-one@5", iv)))
    batch = java("java.util.ArrayList")()
    batch.add(forged("j-absent", "j-absent@0", iv))
    client.step("batch-absent", lambda: crypto.reencryptEncryptedKeys(batch))


def options_refused(client: JavaClient) -> None:
    provider = client.provider()
    client.step("length-100", lambda: provider.createKey("j-bad", client.options(bits=100)))
    client.step("cipher", lambda: provider.createKey("j-bad", client.options(cipher="ROT13")))
    client.step("upper-case", lambda: provider.createKey("J-UPPER", client.options()))


def key_shell(client: JavaClient) -> None:
    with client.shell() as run:
        for step, arguments in (
            ("create", ("create", "j-shell", "-size", "256", "-description", "größe", "-attr", "a=1", "-attr", "b=2")),
            ("create-again", ("create", "j-shell")),
            ("roll", ("roll", "j-shell")),
            ("roll-absent", ("roll", "j-absent")),
            ("invalidate", ("invalidateCache", "j-shell")),
            ("bad-size", ("create", "j-bad", "-size", "100")),
            ("bad-cipher", ("create", "j-bad", "-cipher", "ROT13")),
            ("metadata", ("list", "-metadata")),
            ("list", ("list",)),
            ("delete", ("delete", "j-shell", "-f")),
            ("delete-again", ("delete", "j-shell", "-f")),
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
    provider = client.provider("127.0.0.2;localhost")
    client.step("create", lambda: provider.createKey("j-hosts", client.options()))
    for turn in range(2):  # The list begins at another host each time.
        client.step(f"metadata-{turn}", lambda: provider.getMetadata("j-hosts"))
        client.step(f"current-{turn}", lambda: provider.getCurrentKey("j-hosts"))
    crypto = client.crypto(provider)
    made = client.step("generate", lambda: crypto.generateEncryptedKey("j-hosts"))
    client.step("decrypt", lambda: crypto.decryptEncryptedKey(made))
    client.step("roll", lambda: provider.rollNewVersion("j-hosts"))
    client.step("versions-after-roll", lambda: client.provider().getMetadata("j-hosts"))
    client.step("delete", lambda: provider.deleteKey("j-hosts"))
    client.step("metadata-after-delete", lambda: client.provider().getMetadata("j-hosts"))


def two_hosts_alive(client: JavaClient) -> None:
    provider = client.provider("localhost;127.0.0.1")
    client.step("create", lambda: provider.createKey("j-both", client.options()))
    client.step("roll", lambda: provider.rollNewVersion("j-both"))
    client.step("absent-roll", lambda: provider.rollNewVersion("j-absent"))
    client.step("delete", lambda: provider.deleteKey("j-both"))


def no_host_alive(client: JavaClient) -> None:
    provider = client.provider("127.0.0.2")
    client.step("metadata", lambda: provider.getMetadata("j-none"))
    client.step("create", lambda: provider.createKey("j-none", client.options()))
    client.step("delete", lambda: provider.deleteKey("j-none"))
