"""A running sandbox as cluster tests use it: Hadoop's own commands in their own JVMs, as the user named.

It reads what `ringfence sandbox up --json` printed and runs the programs below its HADOOP_HOME; nothing here knows
how a sandbox is made. What a file's encryption is, is read from the NameNode's own extended attribute.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import pytest
import requests
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from sandboxes import environment_of

_COMMAND_TIMEOUT_S = 120
_QUICK_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto"
_FILE_ENCRYPTION_XATTR = "raw.hdfs.crypto.file.encryption.info"


@dataclass(frozen=True, slots=True)
class Finished:
    """What a command printed: standard output as bytes, both streams together as text."""

    stdout: bytes
    output: str


@dataclass(frozen=True, slots=True)
class FileEncryption:
    """A file's encryption as HDFS stores it (`PerFileEncryptionInfoProto`)."""

    edek: bytes
    iv: bytes
    version_name: str


class Cluster:
    """One running sandbox."""

    def __init__(self, described: Mapping[str, Any]) -> None:
        """`described` is the JSON object of `ringfence sandbox up --json`."""
        self._described = described
        self.directory = Path(described["directory"])
        self.ports: Mapping[str, int] = described["ports"]
        self.pids: Mapping[str, int | None] = described["pids"]
        self.environment: Mapping[str, str] = described["environment"]

    @property
    def kms_url(self) -> str:
        """`http://localhost:PORT/kms`."""
        return f"http://localhost:{self.ports['kms']}/kms"

    @property
    def hadoop_conf(self) -> Path:
        """HADOOP_CONF_DIR of the clients, the NameNode and the DataNode."""
        return Path(self.environment["HADOOP_CONF_DIR"])

    @property
    def kms_conf(self) -> Path:
        """Where the KMS finds its kms-acls.xml."""
        return self.directory / "kms-conf"

    def environ(self, user: str) -> dict[str, str]:
        """The environment for a program of this cluster that runs as `user`."""
        # Short-lived JVMs start half a second sooner without the optimising compiler.
        return {**environment_of(self._described, user), "HADOOP_CLIENT_OPTS": _QUICK_JVM}

    def run(
        self,
        program: str,
        *arguments: str,
        user: str = "hdfs",
        expect: int = 0,
        timeout_s: float = _COMMAND_TIMEOUT_S,
    ) -> Finished:
        """One of Hadoop's own commands; fails the test when it ends with another code than `expect`."""
        argv = [str(self.directory / "hadoop" / "bin" / program), *arguments]
        finished = subprocess.run(argv, env=self.environ(user), capture_output=True, timeout=timeout_s, check=False)
        output = (finished.stdout + finished.stderr).decode(errors="replace")
        if finished.returncode != expect:
            pytest.fail(f"{program} {' '.join(arguments)} ended with {finished.returncode}, not {expect}:\n{output}")
        return Finished(finished.stdout, output)

    def list_zones(self) -> dict[str, str]:
        """Path -> key of every encryption zone, as CryptoAdmin prints them."""
        lines = self.run("hdfs", "crypto", "-listZones").output.splitlines()
        columns = [line.split() for line in lines if line.startswith("/")]
        return {path: key for path, key in columns}  # noqa: C416 - says what the two columns are

    def webhdfs(self, method: str, operation: str, path: str, **parameters: str) -> requests.Response:
        """One WebHDFS call as the superuser: for what a test prepares or looks at, not for what it tries.

        It starts no JVM. Fails the test unless HDFS says 200 or 201.
        """
        answer = self.ask_webhdfs(method, operation, path, **parameters)
        assert answer.status_code in (200, 201), answer.text
        return answer

    def ask_webhdfs(self, method: str, operation: str, path: str, **parameters: str) -> requests.Response:
        """As `webhdfs`, whatever HDFS says. Of two NameNodes the active one is asked; fails the test when none is."""
        for namenode in self._described["namenodes"].values():
            try:
                answer = requests.request(
                    method,
                    f"{namenode['web']}/webhdfs/v1{quote(path)}",
                    params={"op": operation, "user.name": "hdfs", **parameters},
                    timeout=60,
                )
            except requests.ConnectionError:
                continue
            if answer.status_code != 403 or "StandbyException" not in answer.text:
                return answer
        pytest.fail("no NameNode is active")

    def make_directory(self, path: str, *, owner: str = "hdfs") -> None:
        """A directory (0755) and its missing parents; the owner is that of the last one."""
        self.webhdfs("PUT", "MKDIRS", path, permission="755")
        self.webhdfs("PUT", "SETOWNER", path, owner=owner)

    def read_raw(self, path: str) -> bytes:
        """The bytes on the DataNode."""
        return self.webhdfs("GET", "OPEN", f"/.reserved/raw{path}").content

    def status_of(self, path: str) -> dict[str, Any]:
        """FileStatus as WebHDFS shows it."""
        status: dict[str, Any] = self.webhdfs("GET", "GETFILESTATUS", path).json()["FileStatus"]
        return status

    def encryption_of(self, path: str) -> FileEncryption:
        """How a file is encrypted, from its extended attribute."""
        name = _FILE_ENCRYPTION_XATTR
        answer = self.webhdfs("GET", "GETXATTRS", f"/.reserved/raw{path}", **{"xattr.name": name, "encoding": "hex"})
        [attribute] = answer.json()["XAttrs"]
        fields = dict(_protobuf_fields(bytes.fromhex(attribute["value"].removeprefix("0x"))))
        return FileEncryption(edek=fields[1], iv=fields[2], version_name=fields[3].decode())


def decrypt_file(raw: bytes, dek: bytes, iv: bytes) -> bytes:
    """A file's plain text from the bytes on the DataNode: AES-CTR, the IV as the first counter block."""
    return Cipher(algorithms.AES(dek), modes.CTR(iv)).decryptor().update(raw)


def grant_key(cluster: Cluster, key: str, *, decrypt: str) -> None:
    """Opens an existing key to `decrypt` (users, comma-separated) in kms-acls.xml, and waits until it is in force.

    One `key.acl` line switches the defaults off for that key, so the others are repeated for `hdfs`.
    """
    path = cluster.kms_conf / "kms-acls.xml"
    tree = ElementTree.parse(path)
    granted = {"MANAGEMENT": "hdfs", "GENERATE_EEK": "hdfs", "READ": "hdfs", "DECRYPT_EEK": decrypt}
    for operation, users in granted.items():
        add_property(tree, f"key.acl.{key}.{operation}", users)
    write_in_one_step(path, tree)
    # Each worker looks at the file once a second: the first to grant it is not yet all of them.
    wait_until(lambda: may_decrypt(cluster, key, decrypt.partition(",")[0]), timeout_s=15, holds_for_s=1.5)


def add_property(tree: ElementTree.ElementTree[ElementTree.Element], name: str, value: str) -> None:
    """Appends a property to a Hadoop configuration."""
    element = ElementTree.SubElement(tree.getroot(), "property")
    ElementTree.SubElement(element, "name").text = name
    ElementTree.SubElement(element, "value").text = value


def write_in_one_step(path: Path, tree: ElementTree.ElementTree[ElementTree.Element]) -> None:
    """Replaces a configuration file, so that no reader sees half of it."""
    temporary = path.with_suffix(".new")
    tree.write(temporary, encoding="unicode")
    temporary.replace(path)


def wait_until(condition: Callable[[], bool], *, timeout_s: float, holds_for_s: float = 0) -> None:
    """Asks again until it holds, and went on holding for `holds_for_s`; fails the test when the time is up."""
    deadline = time.monotonic() + timeout_s
    held_since = None
    while True:
        now = time.monotonic()
        if condition():
            held_since = now if held_since is None else held_since
            if time.monotonic() - held_since >= holds_for_s:
                return
        else:
            held_since = None
        if now > deadline:
            pytest.fail(f"not so within {timeout_s:g} s")
        time.sleep(0.1)


def may_decrypt(cluster: Cluster, key: str, user: str) -> bool:
    """Whether the KMS opens an EDEK of `key` for `user`, tried with one made for this question."""
    made = requests.get(
        f"{cluster.kms_url}/v1/key/{key}/_eek",
        params={"eek_op": "generate", "num_keys": "1", "user.name": "hdfs"},
        timeout=30,
    )
    assert made.status_code == 200, made.text
    eek = made.json()[0]
    answer = requests.post(
        f"{cluster.kms_url}/v1/keyversion/{eek['versionName']}/_eek",
        params={"eek_op": "decrypt", "user.name": user},
        json={"name": key, "iv": eek["iv"], "material": eek["encryptedKeyVersion"]["material"]},
        timeout=30,
    )
    assert answer.status_code in (200, 403), answer.text
    return answer.status_code == 200


def _protobuf_fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each length-delimited field; the message at hand has no other kind."""
    at = 0
    while at < len(message):
        number, wire_type, length = message[at] >> 3, message[at] & 7, message[at + 1]
        assert wire_type == 2, "a field that is not length-delimited"
        assert length < 128, "a length of more than one byte"
        yield number, message[at + 2 : at + 2 + length]
        at += 2 + length
