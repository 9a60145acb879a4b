"""Keys and EDEKs change places between Hadoop's own KMS and ours: same bytes in, same bytes out.

Both are asked over plain REST, the way their clients do. A key is exported by the GET operation of the one (its
access lists are open) and imported by a create with material into the other; then either opens what the other made.
This is what makes taking over a stock KMS, and going back, possible at all.
"""

from __future__ import annotations

import base64
import re
import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from cluster_commands import Cluster
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from sandboxes import RINGFENCE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

OPEN_ACLS = "".join(
    f"<property><name>default.key.acl.{operation}</name><value>*</value></property>"
    for operation in ("MANAGEMENT", "GENERATE_EEK", "DECRYPT_EEK", "READ")
)


@dataclass(frozen=True)
class Kms:
    """A KMS over REST, as user `hdfs`."""

    url: str

    def call(self, method: str, path: str, body: object = None, *, expect: int = 200, **query: str) -> Any:
        answer = requests.request(
            method, f"{self.url}/v1/{path}", params={**query, "user.name": "hdfs"}, json=body, timeout=60
        )
        assert answer.status_code == expect, answer.text
        return answer.json() if answer.content else None

    def create(self, name: str, length_bits: int, material: str | None = None) -> None:
        body = {"name": name, "cipher": "AES/CTR/NoPadding", "length": length_bits}
        self.call("POST", "keys", body | ({"material": material} if material else {}), expect=201)

    def roll(self, name: str, material: str | None = None) -> None:
        self.call("POST", f"key/{name}", {"material": material} if material else {})

    def generate(self, name: str, count: int) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = self.call("GET", f"key/{name}/_eek", eek_op="generate", num_keys=str(count))
        assert len(made) == count
        return made

    def export(self, name: str) -> list[str]:
        """Material of every version in standard base64, oldest first."""
        versions = self.call("GET", f"key/{name}/_versions")
        assert [version["versionName"] for version in versions] == [f"{name}@{n}" for n in range(len(versions))]
        return [standard(version["material"]) for version in versions]

    def decrypt(self, name: str, eek: Mapping[str, Any]) -> bytes:
        opened = self.call("POST", f"keyversion/{eek['versionName']}/_eek", inner(name, eek), eek_op="decrypt")
        assert opened["versionName"] == "EK"
        return decode(opened["material"])

    def reencrypt(self, name: str, eek: Mapping[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = self.call(
            "POST", f"keyversion/{eek['versionName']}/_eek", inner(name, eek), eek_op="reencrypt"
        )
        return made

    def reencrypt_batch(self, name: str, eeks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = self.call("POST", f"key/{name}/_reencryptbatch", eeks)
        return made


def inner(name: str, eek: Mapping[str, Any]) -> dict[str, str]:
    """The body of decrypt and reencrypt for an EEK as generate answered it, as the Java client encodes it."""
    return {"name": name, "iv": standard(eek["iv"]), "material": standard(eek["encryptedKeyVersion"]["material"])}


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def standard(text: str) -> str:
    return base64.b64encode(decode(text)).decode()


@pytest.fixture(scope="module")
def java(stock_cluster: Cluster) -> Kms:
    return Kms(stock_cluster.kms_url)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kms]:
    """Our KMS on the same open access lists, started on a directory with just Hadoop's three files."""
    directory = tmp_path_factory.mktemp("kms")
    for file_name, properties in (("core-site.xml", ""), ("kms-site.xml", ""), ("kms-acls.xml", OPEN_ACLS)):
        (directory / file_name).write_text(f"<configuration>{properties}</configuration>")
    argv = [RINGFENCE, "kms", "serve", "--hadoop-conf", directory, "--listen", "localhost:0"]
    with (directory / "output.log").open("wb") as log:
        server = subprocess.Popen(
            [*argv, "--keystore", f"sqlite:///{directory}/keys.db"], stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        ready = re.fullmatch(r"ready kms://http@(\S+)\n", line)
        assert ready, f"{line!r}\n{Path(log.name).read_text()}"
        yield Kms(f"http://{ready[1]}")
    finally:
        server.terminate()
        server.wait(timeout=40)
        server.stdout.close()


@pytest.fixture(params=["java to ours", "ours to java"])
def pair(request: pytest.FixtureRequest, java: Kms, ours: Kms) -> tuple[Kms, Kms]:
    """Who makes and exports, who imports and opens."""
    return (java, ours) if request.param == "java to ours" else (ours, java)


@pytest.fixture(params=[128, 256])
def key(request: pytest.FixtureRequest, pair: tuple[Kms, Kms]) -> tuple[str, int]:
    """A key of this length with two versions, made by the first and imported into the second."""
    maker, opener = pair
    length_bits: int = request.param
    name = f"interop-{length_bits}-{secrets.token_hex(4)}"
    maker.create(name, length_bits)
    maker.roll(name)
    first, second = maker.export(name)
    opener.create(name, length_bits, first)
    opener.roll(name, second)
    return name, length_bits


def test_what_is_exported_is_what_was_imported(pair: tuple[Kms, Kms], key: tuple[str, int]) -> None:
    maker, opener = pair
    name, length_bits = key
    assert opener.export(name) == maker.export(name)
    assert {len(decode(material)) * 8 for material in maker.export(name)} == {length_bits}


def test_one_opens_the_edeks_that_the_other_made(pair: tuple[Kms, Kms], key: tuple[str, int]) -> None:
    maker, opener = pair
    name, length_bits = key
    current = base64.b64decode(maker.export(name)[1])
    deks = set()
    for eek in maker.generate(name, 20):
        dek = opener.decrypt(name, eek)
        assert dek == maker.decrypt(name, eek) == independently_opened(current, eek)
        assert len(dek) * 8 == length_bits
        deks.add(dek)
    assert len(deks) == 20


def test_both_re_encrypt_an_old_edek_to_the_same_bytes(pair: tuple[Kms, Kms], key: tuple[str, int]) -> None:
    maker, opener = pair
    name, _ = key
    new_material = base64.b64encode(bytes(range(key[1] // 8))).decode()
    old = maker.generate(name, 3)
    for kms in pair:
        kms.roll(name, new_material)
    for eek in old:
        ours_or_java, other = maker.reencrypt(name, eek), opener.reencrypt(name, eek)
        assert ours_or_java == other
        assert other["versionName"] == f"{name}@2"
        assert other["iv"] == eek["iv"]
        assert other["encryptedKeyVersion"]["material"] != eek["encryptedKeyVersion"]["material"]
        assert opener.decrypt(name, other) == maker.decrypt(name, eek)
    assert maker.reencrypt_batch(name, old) == opener.reencrypt_batch(name, old)
    assert opener.reencrypt_batch(name, old) == [opener.reencrypt(name, eek) for eek in old]


def independently_opened(material: bytes, eek: Mapping[str, Any]) -> bytes:
    """By the published rule: AES-CTR under the key version, the IV with every bit flipped as the counter block."""
    counter = bytes(byte ^ 0xFF for byte in decode(eek["iv"]))
    cipher = Cipher(algorithms.AES(material), modes.CTR(counter))
    return cipher.decryptor().update(decode(eek["encryptedKeyVersion"]["material"]))
