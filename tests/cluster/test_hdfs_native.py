"""`hdfs-native`, a client written in Rust, as the second and independent one: nothing of Hadoop's Java in it.

It speaks to the KMS with `user.name` on each call, no OPTIONS before and no cookie ever, with lower-case header
names and compact JSON, so it finds what a server only built for the Java client gets wrong.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import cast

import hdfs_native
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
from cluster_commands import Cluster, grant_key
from hdfs_native.fsspec import HdfsFileSystem

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ZONE, OTHER_ZONE, KEY, OTHER_KEY = "/native/zone", "/native/other", "native-zone", "native-other"
# More than one block of AES and more than one packet, ending inside both.
CONTENT = bytes(range(256)) * 1024 + b"the end"


@pytest.fixture(scope="module")
def cluster(ringfence_cluster: Cluster) -> Cluster:
    """The session's cluster with two zones that `etl` reads and writes, one key of each length."""
    cluster = ringfence_cluster
    for zone, key, length in ((ZONE, KEY, "256"), (OTHER_ZONE, OTHER_KEY, "128")):
        cluster.make_directory(zone, owner="etl")
        cluster.run("hadoop", "key", "create", key, "-size", length)
        grant_key(cluster, key, decrypt="etl")
        cluster.run("hdfs", "crypto", "-createZone", "-keyName", key, "-path", zone)
    return cluster


@pytest.fixture
def environment(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a Python program of user `etl` has: the client reads its configuration from HADOOP_CONF_DIR."""
    for name in list(os.environ):
        if name.startswith("HADOOP_"):
            monkeypatch.delenv(name)
    for name in ("HADOOP_CONF_DIR", "HADOOP_HOME"):
        monkeypatch.setenv(name, cluster.environment[name])
    monkeypatch.setenv("HADOOP_USER_NAME", "etl")
    # fsspec keeps one instance per host and port: it would outlive the user it was made for.
    HdfsFileSystem.clear_instance_cache()
    yield
    HdfsFileSystem.clear_instance_cache()


@pytest.fixture
def client(cluster: Cluster, environment: None) -> hdfs_native.Client:
    return hdfs_native.Client(f"hdfs://localhost:{cluster.ports['namenode']}")


@pytest.fixture
def file_system(cluster: Cluster, environment: None) -> pyarrow.fs.FileSystem:
    """HDFS as pyarrow sees it through fsspec."""
    native = HdfsFileSystem(host="localhost", port=cluster.ports["namenode"])
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(native))


def write(client: hdfs_native.Client, path: str, content: bytes) -> None:
    with client.create(path, write_options=hdfs_native.WriteOptions(overwrite=True)) as stream:
        stream.write(content)


def read(client: hdfs_native.Client, path: str) -> bytes:
    with client.read(path) as stream:
        return cast("bytes", stream.read())


def test_this_is_a_version_that_speaks_kms() -> None:
    assert tuple(int(part) for part in version("hdfs-native").split(".")[:3]) >= (0, 14, 7)


@pytest.mark.parametrize("zone", [ZONE, OTHER_ZONE])
def test_a_file_written_in_a_zone_reads_back_and_rests_as_ciphertext(
    cluster: Cluster, client: hdfs_native.Client, zone: str
) -> None:
    path = f"{zone}/native.bin"
    write(client, path, CONTENT)
    assert read(client, path) == CONTENT
    raw = cluster.read_raw(path)
    assert len(raw) == len(CONTENT)
    assert CONTENT[:64] not in raw


def test_java_reads_what_the_native_client_wrote(cluster: Cluster, client: hdfs_native.Client) -> None:
    path = f"{ZONE}/from-native"
    write(client, path, CONTENT)
    assert cluster.run("hdfs", "dfs", "-cat", path, user="etl").stdout == CONTENT


def test_the_native_client_reads_what_java_wrote(cluster: Cluster, client: hdfs_native.Client, tmp_path: Path) -> None:
    path, local = f"{OTHER_ZONE}/from-java", tmp_path / "content"
    local.write_bytes(CONTENT)
    cluster.run("hdfs", "dfs", "-put", str(local), path, user="etl")
    assert read(client, path) == CONTENT


def test_the_native_client_reads_a_file_of_an_older_key_version(cluster: Cluster, client: hdfs_native.Client) -> None:
    old, new = f"{ZONE}/before-roll", f"{ZONE}/after-roll"
    write(client, old, CONTENT)
    cluster.run("hadoop", "key", "roll", KEY)
    write(client, new, CONTENT)
    assert read(client, old) == read(client, new) == CONTENT


def test_the_native_client_is_refused_by_the_kms_for_the_superuser(
    cluster: Cluster, client: hdfs_native.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{ZONE}/not-for-hdfs"
    write(client, path, CONTENT)
    monkeypatch.setenv("HADOOP_USER_NAME", "hdfs")
    superuser = hdfs_native.Client(f"hdfs://localhost:{cluster.ports['namenode']}")
    with pytest.raises(Exception, match="DECRYPT_EEK") as refused:
        read(superuser, path)
    assert "hdfs" in str(refused.value)


def test_a_rename_out_of_the_zone_is_refused_for_the_native_client_too(client: hdfs_native.Client) -> None:
    path = f"{ZONE}/stays"
    write(client, path, b"")
    with pytest.raises(Exception, match="can't be moved from encryption zone /native/zone"):
        client.rename(path, f"{OTHER_ZONE}/stays")


def test_parquet_through_pyarrow_is_written_and_read_back_in_a_zone(
    cluster: Cluster, file_system: pyarrow.fs.FileSystem
) -> None:
    path = f"{ZONE}/table.parquet"
    table = pa.table({"number": pa.array(range(100_000)), "word": pa.array(["ringfence"] * 100_000)})
    pq.write_table(table, path, filesystem=file_system)
    assert pq.read_table(path, filesystem=file_system).equals(table)
    seen_by_java = cluster.run("hdfs", "dfs", "-cat", path, user="etl").stdout
    raw = cluster.read_raw(path)
    assert (seen_by_java[:4], seen_by_java[-4:]) == (b"PAR1", b"PAR1")
    assert len(raw) == len(seen_by_java)
    assert b"PAR1" not in (raw[:4], raw[-4:])


def test_a_partitioned_dataset_reads_back_with_a_filter(file_system: pyarrow.fs.FileSystem) -> None:
    base = f"{ZONE}/dataset"
    table = pa.table({"day": pa.array(["mon", "tue"] * 500), "value": pa.array(range(1000))})
    pq.write_to_dataset(table, base, partition_cols=["day"], filesystem=file_system)
    tuesday = pq.read_table(base, filesystem=file_system, filters=[("day", "=", "tue")])
    assert sorted(tuesday["value"].to_pylist()) == list(range(1, 1000, 2))
