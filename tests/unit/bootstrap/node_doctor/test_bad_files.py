"""Files that somebody broke, or made to harm: a check says that it could not look, and the others go on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from node_trees import NodeTree

from ringfence_bootstrap.cli.doctor_node import CHECKS
from ringfence_zones.named_checks import Outcome, run_checks

PROVIDER = "hadoop.security.key.provider.path"
KMS_YAML = "/etc/ringfence/kms.yaml"
_MERGES = "a: &a {x: 1}\n" + "".join(
    f"k{at}: &k{at} {{<<: [{','.join(['*' + ('a' if at == 0 else f'k{at - 1}')] * 9)}]}}\n" for at in range(9)
)


def outcomes(tree: NodeTree) -> dict[str, Outcome]:
    return {each.name: each for each in run_checks(CHECKS, tree.node())}


def tree_of(tmp_path: Path, uri: str = "kms://http@localhost:1/kms", **hdfs: str) -> NodeTree:
    return NodeTree(tmp_path).hadoop(core={PROVIDER: uri}, hdfs=hdfs)


@pytest.mark.parametrize(
    "text", ["[" * 20_000, _MERGES, "a: 2020-99-99\n- x", "a: \xff", "keystore: !!python/name:os.system x"]
)
def test_a_configuration_that_is_none_is_not_looked_at(tmp_path: Path, text: str) -> None:
    began = time.monotonic()
    tree = tree_of(tmp_path)
    tree.write(KMS_YAML, text)
    (found,) = run_checks([each for each in CHECKS if each.name == "key_store"], tree.node())
    why = found.not_checked
    assert why is not None and ("is not what the key server" in why or "names no key store" in why)
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("store", ["http://[hush", "sqlite:///" + "a" * 5000, '"jceks://file/a\\0b"'])
def test_a_key_store_of_no_address_is_not_looked_at(tmp_path: Path, store: str) -> None:
    tree = tree_of(tmp_path)
    tree.write(KMS_YAML, f"keystore: {store}\n")
    found = outcomes(tree)["key_store"]
    assert found.not_checked is not None or found.findings == ()
    assert "hush" not in str(found)


@pytest.mark.parametrize("host", ["a" * 300, "h..x"])
def test_a_host_that_none_can_be_called_is_said_so(tmp_path: Path, host: str) -> None:
    found = outcomes(tree_of(tmp_path, f"kms://https@{host}:9600/kms"))
    assert "no host can be called so" in str(found["kms_port"])
    assert "no host can be called so" in str(found["kms_address"].not_checked)


def test_addresses_that_are_none_are_passed_over(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, **{"dfs.datanode.data.dir": "[SSD]file://[x,/a%00b", "fs.defaultFS": "hdfs://["})
    found = outcomes(tree)
    assert found["data_disks"].not_checked is not None
    assert "is no HDFS" in str(found["namenode"].not_checked)


def test_no_password_of_an_address_is_shown(tmp_path: Path) -> None:
    found = outcomes(tree_of(tmp_path, "kms://https@who:hush@h:9600/kms"))
    assert "is not a KMS address" in str(found["kms_address"])
    assert "hush" not in str(found)
