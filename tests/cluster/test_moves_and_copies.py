"""Every way data moves, between every pair of places, with flow rules in shadow mode and enforced, on a real cluster.

`tests/vectors/moves_and_copies.yaml` says what becomes of it. All of it under Kerberos in one JVM, where each cell is
a session of its own by its delegation tokens; some of it, and hdfs-native, under simple authentication, where each cell
is a user and a process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from cluster_commands import Cluster
from move_cells import Cell, cells
from moving_sites import SUPERUSER, Site, open_site
from sandboxes import new_sandbox
from secure_clusters import SecureCluster

from ringfence_bootstrap.sandbox.artifacts import ensure_jars, parse_jar_list

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

_JARS = Path(__file__).parents[1] / "support" / "distcp_jars.txt"
_ALL = list(cells())
# hdfs-native is tried where it gets by without a Java client's way to log in.
_NATIVE = [cell for cell in _ALL if cell.way == "hdfs_native_copy"]
_KERBEROS = [cell for cell in _ALL if cell.way != "hdfs_native_copy"]
_BOTH_ORDERS = [
    cell
    for cell in _ALL
    if cell.way in ("fs_shell_cp", "distcp") and cell.relation in ("allowed_flow", "forbidden_flow")
]
_SIMPLE = {cell: f"mover{number}" for number, cell in enumerate([*_BOTH_ORDERS, *_NATIVE])}


def _class_path() -> list[str]:
    jars = parse_jar_list("hadoop-distcp", _JARS.read_text())
    directory = ensure_jars(jars, os.environ, print, lambda _done, _all: None)
    return [str(directory / jar.file_name) for jar in jars.artifacts]


def _of_nobody(environ: Mapping[str, str]) -> dict[str, str]:
    # DistCp's staging directory belongs to whoever runs the JVM, and has to be that of the JVM's own user.
    return {name: value for name, value in environ.items() if name != "HADOOP_USER_NAME"}


@pytest.fixture(scope="module")
def kerberos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("kerberos")
    with new_sandbox("--kerberos", "--tls") as described:
        cluster = SecureCluster(described)
        settings: dict[str, object] = {
            "class_path": _class_path(),
            "keytabs": {user: str(path) for user, path in cluster.keytabs.items()},
            "web": f"swebhdfs://localhost:{cluster.ports['namenode_http']}",
            "scratch": str(directory),
        }
        environ = _of_nobody(cluster.environ_without_ticket())
        with open_site(Site(cluster, directory, ["etl"], {"mode": "enforce"}, environ, settings)) as site:
            yield site


@pytest.fixture(scope="module")
def simple(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("simple")
    with new_sandbox("--kms", "ringfence") as described:
        cluster = Cluster(described)
        settings: dict[str, object] = {
            "class_path": _class_path(),
            "keytabs": {},
            "web": f"webhdfs://localhost:{cluster.ports['namenode_http']}",
            "scratch": str(directory),
        }
        environ = _of_nobody(cluster.environ(SUPERUSER))
        enforcing = {"mode": "enforce", "enforce_on_claimed_identity": True}
        with open_site(Site(cluster, directory, list(_SIMPLE.values()), enforcing, environ, settings)) as site:
            yield site


@pytest.mark.long
@pytest.mark.parametrize("cell", _KERBEROS, ids=str)
def test_each_cell_under_kerberos(kerberos: Site, cell: Cell) -> None:
    mover = "hdfs" if cell.way == "raw_distcp" else "etl"
    assert kerberos.try_cell(cell, mover) == cell.outcome


@pytest.mark.parametrize("cell", _SIMPLE, ids=str)
def test_cells_with_a_process_for_each_user(simple: Site, cell: Cell) -> None:
    try:
        assert simple.try_cell(cell, _SIMPLE[cell]) == cell.outcome
    finally:
        simple.end(_SIMPLE[cell])
