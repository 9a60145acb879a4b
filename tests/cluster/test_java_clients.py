"""Hadoop's own commands, unmodified, against a real NameNode and DataNode with our KMS behind them.

KeyShell, CryptoAdmin and FsShell run as the users an administrator would run them as, one JVM per command. Only
Hadoop's own means are used: keys are opened to `etl` by `key.acl` entries in kms-acls.xml, not by a policy.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from cluster_commands import Cluster, FileEncryption, decrypt_file, grant_key, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

PLAIN_TEXT = ("The quick brown fox jumps over the lazy dog.\n" * 700).encode()


@dataclass(frozen=True)
class Zones:
    """Two zones made with Hadoop's own commands, `etl` owning both, and a clear directory beside them."""

    one: str
    two: str
    clear: str
    key_one: str
    key_two: str


@pytest.fixture(scope="module")
def plain_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "plain.txt"
    path.write_bytes(PLAIN_TEXT)
    return path


@pytest.fixture(scope="module")
def zones(ringfence_cluster: Cluster, plain_file: Path) -> Zones:
    cluster, made = ringfence_cluster, Zones("/java/one", "/java/two", "/java/clear", "java-one", "java-two")
    for path in (made.one, made.two, made.clear):
        cluster.make_directory(path, owner="etl")
    for zone, key, length in ((made.one, made.key_one, "256"), (made.two, made.key_two, "128")):
        cluster.run("hadoop", "key", "create", key, "-size", length)
        grant_key(cluster, key, decrypt="etl")
        cluster.run("hdfs", "crypto", "-createZone", "-keyName", key, "-path", zone)
    copies = [plain_file.with_name(name) for name in ("first", "second", "moving", "growing")]
    for copy in copies:
        copy.write_bytes(PLAIN_TEXT)
    for zone in (made.one, made.two):
        cluster.run("hdfs", "dfs", "-put", *map(str, copies), zone, user="etl")
    return made


# KeyShell


def test_key_shell_creates_describes_rolls_and_deletes_a_key(ringfence_cluster: Cluster) -> None:
    cluster, key = ringfence_cluster, "java-shell.key_1"
    created = cluster.run(
        "hadoop", "key", "create", key, "-size", "128", "-description", "for größe & co", "-attr", "team=data"
    )
    assert f"{key} has been successfully created" in created.output
    assert metadata(cluster, key) == {
        "cipher": "AES/CTR/NoPadding",
        "length": "128",
        "description": "for größe & co",
        "version": "1",
    }
    rolled = cluster.run("hadoop", "key", "roll", key)
    assert f"{key} has been successfully rolled" in rolled.output
    assert metadata(cluster, key)["version"] == "2"
    deleted = cluster.run("hadoop", "key", "delete", key, "-f")
    assert f"{key} has been successfully deleted" in deleted.output
    assert key not in cluster.run("hadoop", "key", "list").output


def test_key_shell_is_told_that_a_key_already_exists(ringfence_cluster: Cluster, zones: Zones) -> None:
    refused = ringfence_cluster.run("hadoop", "key", "create", zones.key_one, expect=1)
    assert f"{zones.key_one} already exists" in refused.output


def test_key_shell_is_told_that_there_is_no_such_key_to_roll(ringfence_cluster: Cluster) -> None:
    refused = ringfence_cluster.run("hadoop", "key", "roll", "java-absent", expect=1)
    assert "java-absent" in refused.output
    assert "NullPointerException" not in refused.output


def test_key_shell_is_refused_for_a_user_who_does_not_manage_keys(ringfence_cluster: Cluster) -> None:
    refused = ringfence_cluster.run("hadoop", "key", "create", "java-mine", user="analyst", expect=1)
    assert "User:analyst not allowed to do 'CREATE_KEY' on 'java-mine'" in refused.output


def test_a_key_created_again_continues_its_versions_and_makes_a_working_zone(
    ringfence_cluster: Cluster, plain_file: Path
) -> None:
    cluster, key, path = ringfence_cluster, "java-again", "/java/again"
    cluster.run("hadoop", "key", "create", key)
    cluster.run("hadoop", "key", "delete", key, "-f")
    cluster.run("hadoop", "key", "create", key)
    grant_key(cluster, key, decrypt="etl")
    assert metadata(cluster, key)["version"] == "2"
    cluster.make_directory(path, owner="etl")
    cluster.run("hdfs", "crypto", "-createZone", "-keyName", key, "-path", path)
    cluster.run("hdfs", "dfs", "-put", str(plain_file), f"{path}/file", user="etl")
    assert cluster.run("hdfs", "dfs", "-cat", f"{path}/file", user="etl").stdout == PLAIN_TEXT
    assert cluster.encryption_of(f"{path}/file").version_name == f"{key}@1"


# CryptoAdmin


def test_crypto_admin_lists_each_zone_with_its_key(ringfence_cluster: Cluster, zones: Zones) -> None:
    listed = ringfence_cluster.list_zones()
    assert (listed[zones.one], listed[zones.two]) == (zones.key_one, zones.key_two)


def test_crypto_admin_shows_the_key_version_of_a_file(ringfence_cluster: Cluster, zones: Zones) -> None:
    path = f"{zones.one}/first"
    shown = ringfence_cluster.run("hdfs", "crypto", "-getFileEncryptionInfo", "-path", path).output
    assert f"keyName: {zones.key_one}" in shown
    assert f"ezKeyVersionName: {zones.key_one}@0" in shown
    assert "AES/CTR/NoPadding" in shown


def test_crypto_admin_refuses_a_zone_with_a_key_that_does_not_exist(ringfence_cluster: Cluster) -> None:
    ringfence_cluster.make_directory("/java/keyless")
    refused = ringfence_cluster.run(
        "hdfs", "crypto", "-createZone", "-keyName", "java-absent", "-path", "/java/keyless", expect=2
    )
    assert "Key java-absent doesn't exist" in refused.output


def test_crypto_admin_provisions_trash_with_the_sticky_mode(ringfence_cluster: Cluster, zones: Zones) -> None:
    cluster, trash = ringfence_cluster, f"{zones.two}/.Trash"
    assert cluster.status_of(trash)["permission"] == "1777"
    cluster.run("hdfs", "dfs", "-rm", "-r", "-skipTrash", trash)
    cluster.run("hdfs", "crypto", "-provisionTrash", "-path", zones.two)
    assert cluster.status_of(trash)["permission"] == "1777"


# FsShell


def test_a_file_is_written_appended_to_and_read_back(
    ringfence_cluster: Cluster, zones: Zones, plain_file: Path, tmp_path: Path
) -> None:
    cluster, path = ringfence_cluster, f"{zones.one}/growing"
    cluster.run("hdfs", "dfs", "-appendToFile", str(plain_file), path, user="etl")
    assert cluster.run("hdfs", "dfs", "-cat", path, user="etl").stdout == PLAIN_TEXT * 2
    cluster.run("hdfs", "dfs", "-get", path, str(tmp_path / "copy"), user="etl")
    assert (tmp_path / "copy").read_bytes() == PLAIN_TEXT * 2


def test_a_name_with_blanks_and_letters_beyond_ascii_is_as_good_as_any(
    ringfence_cluster: Cluster, zones: Zones, plain_file: Path
) -> None:
    path = f"{zones.one}/größe Ω file"
    ringfence_cluster.run("hdfs", "dfs", "-put", str(plain_file), path, user="etl")
    assert ringfence_cluster.run("hdfs", "dfs", "-cat", path, user="etl").stdout == PLAIN_TEXT


@pytest.mark.parametrize(
    ("user", "refusal"),
    [
        ("hdfs", "User:hdfs not allowed to do 'DECRYPT_EEK' on 'java-one'"),
        ("analyst", "User [analyst] is not authorized to perform [DECRYPT_EEK] on key with ACL name [java-one]!!"),
    ],
)
def test_whom_hdfs_lets_in_but_the_kms_does_not_reads_no_plain_text(
    ringfence_cluster: Cluster, zones: Zones, user: str, refusal: str
) -> None:
    refused = ringfence_cluster.run("hdfs", "dfs", "-cat", f"{zones.one}/first", user=user, expect=1)
    assert refused.stdout == b""
    assert refusal in refused.output


def test_raw_bytes_are_ciphertext_that_the_dek_turns_into_the_plain_text(
    ringfence_cluster: Cluster, zones: Zones
) -> None:
    cluster, path = ringfence_cluster, f"{zones.two}/first"
    raw = cluster.run("hdfs", "dfs", "-cat", f"/.reserved/raw{path}").stdout
    encryption = cluster.encryption_of(path)
    dek = open_edek(cluster, zones.key_two, encryption)
    assert raw == cluster.read_raw(path) != PLAIN_TEXT
    assert len(raw) == len(PLAIN_TEXT)
    assert len(dek) == 128 // 8
    assert decrypt_file(raw, dek, encryption.iv) == PLAIN_TEXT


def test_two_files_of_one_zone_have_two_edeks(ringfence_cluster: Cluster, zones: Zones) -> None:
    cluster, paths = ringfence_cluster, (f"{zones.one}/first", f"{zones.one}/second")
    first, second = (cluster.encryption_of(path) for path in paths)
    assert first.version_name == second.version_name == f"{zones.key_one}@0"
    assert first.edek != second.edek
    assert first.iv != second.iv
    assert open_edek(cluster, zones.key_one, first) != open_edek(cluster, zones.key_one, second)
    # Equal plain text, so nothing on the disk tells that the files are equal.
    assert cluster.read_raw(paths[0]) != cluster.read_raw(paths[1])


@pytest.mark.parametrize(
    ("source", "target", "refusal"),
    [
        ("one", "two", "can't be moved from encryption zone /java/one to encryption zone /java/two."),
        ("one", "clear", "can't be moved from an encryption zone."),
        ("clear", "one", "can't be moved into an encryption zone."),
    ],
)
def test_the_name_node_refuses_a_move_across_the_edge_of_a_zone(
    ringfence_cluster: Cluster, zones: Zones, source: str, target: str, refusal: str
) -> None:
    cluster, path = ringfence_cluster, f"{getattr(zones, source)}/stays"
    cluster.run("hdfs", "dfs", "-touchz", path, user="etl")
    refused = cluster.run("hdfs", "dfs", "-mv", path, f"{getattr(zones, target)}/moved", user="etl", expect=1)
    assert f"mv: {path} {refusal}" in refused.output
    assert cluster.status_of(path)["type"] == "FILE"


def test_a_move_inside_a_zone_keeps_the_file_readable(ringfence_cluster: Cluster, zones: Zones) -> None:
    cluster, source, target = ringfence_cluster, f"{zones.one}/moving", f"{zones.one}/moved"
    cluster.run("hdfs", "dfs", "-mv", source, target, user="etl")
    assert cluster.run("hdfs", "dfs", "-cat", target, user="etl").stdout == PLAIN_TEXT


# Roll and re-encrypt


def test_re_encryption_after_a_roll_moves_every_file_to_the_new_version(
    ringfence_cluster: Cluster, plain_file: Path
) -> None:
    cluster, key, zone = ringfence_cluster, "java-rolled", "/java/rolled"
    cluster.run("hadoop", "key", "create", key)
    grant_key(cluster, key, decrypt="etl")
    cluster.make_directory(zone, owner="etl")
    cluster.run("hdfs", "crypto", "-createZone", "-keyName", key, "-path", zone)
    cluster.run("hdfs", "dfs", "-put", str(plain_file), f"{zone}/old", user="etl")
    before = cluster.encryption_of(f"{zone}/old")
    dek = open_edek(cluster, key, before)

    cluster.run("hadoop", "key", "roll", key)
    cluster.run("hdfs", "crypto", "-reencryptZone", "-start", "-path", zone)
    wait_until(lambda: cluster.encryption_of(f"{zone}/old").version_name == f"{key}@1", timeout_s=120)
    wait_until(lambda: re_encryption_status(cluster, zone) == "Completed", timeout_s=120)

    after = cluster.encryption_of(f"{zone}/old")
    assert (before.version_name, after.version_name) == (f"{key}@0", f"{key}@1")
    assert after.edek != before.edek
    assert after.iv == before.iv
    assert open_edek(cluster, key, after) == dek
    assert cluster.run("hdfs", "dfs", "-cat", f"{zone}/old", user="etl").stdout == PLAIN_TEXT
    cluster.run("hdfs", "dfs", "-put", str(plain_file), f"{zone}/new", user="etl")
    assert cluster.encryption_of(f"{zone}/new").version_name == f"{key}@1"


def test_a_file_of_an_old_version_stays_readable_after_a_roll_alone(ringfence_cluster: Cluster, zones: Zones) -> None:
    cluster, path = ringfence_cluster, f"{zones.two}/second"
    cluster.run("hadoop", "key", "roll", zones.key_two)
    assert cluster.encryption_of(path).version_name == f"{zones.key_two}@0"
    assert cluster.run("hdfs", "dfs", "-cat", path, user="etl").stdout == PLAIN_TEXT


def metadata(cluster: Cluster, key: str) -> dict[str, str]:
    """What `hadoop key list -metadata` says about one key, without the date."""
    output = cluster.run("hadoop", "key", "list", "-metadata").output
    line = next(line for line in output.splitlines() if line.startswith(f"{key} : "))
    fields = dict(re.findall(r"(\w+): ([^,]*)(?:, |$)", line.partition(" : ")[2]))
    return {name: fields[name] for name in ("cipher", "length", "description", "version")}


def re_encryption_status(cluster: Cluster, zone: str) -> str:
    """The Status column of `hdfs crypto -listReencryptionStatus`."""
    output = cluster.run("hdfs", "crypto", "-listReencryptionStatus").output
    return next((line.split()[1] for line in output.splitlines() if line.startswith(f"{zone} ")), "absent")


def open_edek(cluster: Cluster, key: str, encryption: FileEncryption) -> bytes:
    """The DEK, asked of the KMS over plain REST as `etl`."""
    answer = requests.post(
        f"{cluster.kms_url}/v1/keyversion/{encryption.version_name}/_eek",
        params={"eek_op": "decrypt", "user.name": "etl"},
        json={
            "name": key,
            "iv": base64.b64encode(encryption.iv).decode(),
            "material": base64.b64encode(encryption.edek).decode(),
        },
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    material = answer.json()["material"]
    return base64.urlsafe_b64decode(material + "=" * (-len(material) % 4))
