"""Release, Java and Python of a node."""

from __future__ import annotations

from pathlib import Path

import pytest
from node_trees import NodeTree

from ringfence_bootstrap.node_doctor import platform
from ringfence_zones.findings import Rule, Severity
from ringfence_zones.named_checks import NotChecked


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("emr-7.12.0", []),
        ("emr-spark-8.0.0", []),
        ("emr-7.0.0", [Severity.ERROR]),
        ("emr-5.36.2", [Severity.ERROR]),
        ("emr-7.99.0", [Severity.INFO]),
    ],
)
def test_a_release_without_our_python_or_newer_than_we_know_is_found(
    tmp_path: Path, release: str, expected: list[Severity]
) -> None:
    found = list(platform.check_release(NodeTree(tmp_path).emr(release).node()))
    assert [each.severity for each in found] == expected
    assert {each.rule for each in found} <= {Rule.NODE_RELEASE}


def test_elsewhere_no_release_is_judged(tmp_path: Path) -> None:
    with pytest.raises(NotChecked, match="no node of an EMR cluster"):
        list(platform.check_release(NodeTree(tmp_path).node()))
    with pytest.raises(NotChecked, match="do not name the release"):
        list(platform.check_release(NodeTree(tmp_path).emr("").node()))
    with pytest.raises(NotChecked, match="no release label"):
        list(platform.check_release(NodeTree(tmp_path).emr("7.12").node()))


def test_java_for_the_commands_and_for_the_daemons(tmp_path: Path) -> None:
    tree = NodeTree(tmp_path).emr("emr-7.12.0")
    (missing,) = platform.check_java(tree.node())
    assert missing.message.startswith("there is no Java:")
    tree.java("/usr/lib/jvm/java-1.8.0-amazon-corretto", "1.8.0_472")
    (old,) = platform.check_java(tree.node())
    assert old.message.startswith("there is only Java 8:") and old.rule is Rule.NODE_JAVA
    tree.java("/usr/lib/jvm/java-17-amazon-corretto", "17.0.17").java("/etc/alternatives/jre", "17.0.17")
    assert list(platform.check_java(tree.node())) == []
    tree.java("/etc/alternatives/jre", "21.0.1")
    (untested,) = platform.check_java(tree.node())
    assert "run with Java 21, and emr-7.12.0 is made for 8 or 11 or 17" in untested.message


def test_a_java_named_by_the_environment_counts(tmp_path: Path) -> None:
    tree = NodeTree(tmp_path).java("/elsewhere/jdk", "21.0.1")
    assert list(platform.check_java(tree.node(JAVA_HOME=str(tmp_path / "elsewhere/jdk")))) == []


def test_the_python_of_the_installation(tmp_path: Path) -> None:
    tree = NodeTree(tmp_path).write("/opt/ringfence/pyvenv.cfg", "home = /usr/bin\nversion = 3.11.9\n")
    (gone,) = platform.check_python(tree.node())
    assert "made with a Python that is gone" in gone.message and gone.command == "ringfence uninstall --yes"
    tree.write("/opt/ringfence/bin/python", "")
    assert list(platform.check_python(tree.node())) == []
    tree.write("/opt/ringfence/pyvenv.cfg", "home = /usr/bin\nversion = 3.9.16\n")
    (old,) = platform.check_python(tree.node())
    assert "made with Python 3.9, and at least 3.11" in old.message


def test_before_the_bootstrap_action_a_python_for_it(tmp_path: Path) -> None:
    tree = NodeTree(tmp_path)
    with pytest.raises(NotChecked, match="nothing of a bootstrap action"):
        list(platform.check_python(tree.node()))
    tree.emr().write("/usr/bin/python3.9", "").write("/usr/bin/python3.11-config", "")
    (missing,) = platform.check_python(tree.node())
    assert missing.rule is Rule.NODE_PYTHON
    tree.write("/usr/bin/python3.11", "")
    assert list(platform.check_python(tree.node())) == []
