"""Java key stores both ways with the real thing: Hadoop's `JavaKeyStoreProvider` and KeyShell."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import cluster_commands
import pytest

from ringfence_agent.keystore.interface import ImportedKey, StoredKey
from ringfence_agent.keystore.jceks.container import read_jceks, write_new
from ringfence_agent.keystore.jceks.keys import make_entries, read_keys
from ringfence_agent.keystore.jceks.provider import format_jceks
from ringfence_bootstrap.sandbox.artifacts import ensure_jars, sandbox_jars
from ringfence_zones.keys import KeyVersion
from ringfence_zones.secret import Secret

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

PASSWORD = "a pass word!"
FIRST, SECOND, THIRD = "11" * 16, "22" * 16, "33" * 32


@pytest.fixture(scope="module")
def jars() -> Path:
    return ensure_jars(sandbox_jars(), os.environ, print, lambda *_: None)


def java(jars: Path, program: Sequence[str]) -> list[str]:
    command = ["java", "-Dfile.encoding=UTF-8", "-cp", f"{jars}/*", *program]
    environ = {**os.environ, "HADOOP_KEYSTORE_PASSWORD": PASSWORD, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def provider(jars: Path, path: Path, *changes: str) -> list[str]:
    """Makes the changes with Hadoop's own provider; every key and version, sorted."""
    source = Path(cluster_commands.__file__).with_name("JceksKeys.java")
    return sorted(java(jars, [str(source), f"jceks://file@{path}", *changes]))


def keys_of(path: Path) -> tuple[ImportedKey, ...]:
    password = Secret(PASSWORD.encode())
    return read_keys(read_jceks(path, password), password, {}, lambda *_: None)


def stored(keys: Sequence[ImportedKey]) -> list[StoredKey]:
    return [
        StoredKey(
            key.metadata, tuple(KeyVersion(key.metadata.name, each.number, each.material) for each in key.versions)
        )
        for key in keys
    ]


def test_what_java_writes_we_read_what_we_write_java_reads_and_rolls(jars: Path, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    printed = provider(
        jars,
        theirs,
        f"create|k.one-ü|128|{FIRST}|Straße \U0001d11e|owner=étl",
        f"roll|k.one-ü|{SECOND}",
        f"create|k2|256|{THIRD}",
    )
    one, two = keys_of(theirs)
    assert (one.metadata.name, one.metadata.description) == ("k.one-ü", "Straße \U0001d11e")
    assert dict(one.metadata.attributes) == {"owner": "étl"}
    assert [version.material.reveal().hex() for version in (*one.versions, *two.versions)] == [FIRST, SECOND, THIRD]

    password = Secret(PASSWORD.encode())
    write_new(ours, format_jceks(make_entries(stored([one, two]), password, {}, {}, lambda *_: None), password))
    assert provider(jars, ours) == printed
    assert f"k2@1|{'44' * 32}" in provider(jars, ours, f"roll|k2|{'44' * 32}")
    assert [version.number for version in keys_of(ours)[1].versions] == [0, 1]


def test_key_shell_lists_what_we_wrote(jars: Path, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    provider(jars, theirs, f"create|shown|128|{FIRST}|for the shell")
    password = Secret(PASSWORD.encode())
    entries = make_entries(stored(keys_of(theirs)), password, {}, {}, lambda *_: None)
    write_new(ours, format_jceks(entries, password))
    shell = ["org.apache.hadoop.crypto.key.KeyShell", "list", "-metadata", "-provider", f"jceks://file@{ours}"]
    listed = [line for line in java(jars, shell) if line.startswith("shown")]
    assert len(listed) == 1 and "length: 128, description: for the shell" in listed[0]
