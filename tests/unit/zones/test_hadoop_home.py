"""Finding Hadoop and Java: each thing missing is named with its fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence_zones.errors import HadoopNotFoundError
from ringfence_zones.hadoop_home import find_hadoop_home, find_launcher, find_libjvm


def make_launcher(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def java_home(tmp_path: Path) -> Path:
    libjvm = tmp_path / "jdk" / "lib" / "server" / "libjvm.so"
    libjvm.parent.mkdir(parents=True)
    libjvm.touch()
    return tmp_path / "jdk"


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    (tmp_path / "conf").mkdir()
    return tmp_path / "conf"


def test_the_class_path_is_the_launchers_with_wildcards_expanded_and_the_configuration_first(
    tmp_path: Path, java_home: Path, conf: Path
) -> None:
    lib = tmp_path / "hadoop" / "lib"
    lib.mkdir(parents=True)
    for name in ("hadoop-hdfs-client-3.4.2.jar", "hadoop-common-3.4.2.jar", "notes.txt"):
        (lib / name).touch()
    make_launcher(
        tmp_path / "hadoop" / "bin" / "hadoop", f'[ "$1" = classpath ] && echo "$HADOOP_CONF_DIR:{lib}/*:/x/y.jar"'
    )
    home = find_hadoop_home(conf, {"HADOOP_HOME": str(tmp_path / "hadoop"), "JAVA_HOME": str(java_home)})
    jars = [f"{lib}/hadoop-common-3.4.2.jar", f"{lib}/hadoop-hdfs-client-3.4.2.jar", "/x/y.jar"]
    assert home.class_path == (str(conf), *jars)
    assert home.libjvm == java_home / "lib" / "server" / "libjvm.so"


def test_hadoop_is_found_on_path_when_hadoop_home_is_not_set(tmp_path: Path) -> None:
    launcher = make_launcher(tmp_path / "bin" / "hadoop", "true")
    assert find_launcher({"PATH": str(tmp_path / "bin")}) == launcher


def test_java_on_path_is_followed_through_links(tmp_path: Path, java_home: Path) -> None:
    make_launcher(java_home / "bin" / "java", "true")
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr" / "java").symlink_to(java_home / "bin" / "java")
    assert find_libjvm({"PATH": str(tmp_path / "usr")}) == java_home / "lib" / "server" / "libjvm.so"


def test_no_hadoop_at_all_names_both_ways_to_have_one(tmp_path: Path) -> None:
    with pytest.raises(HadoopNotFoundError, match="HADOOP_HOME is not set") as caught:
        find_launcher({"PATH": str(tmp_path)})
    assert caught.value.command == "ringfence sandbox up"


def test_a_wrong_hadoop_home_is_named(tmp_path: Path) -> None:
    with pytest.raises(HadoopNotFoundError, match=f"HADOOP_HOME is {tmp_path}"):
        find_launcher({"HADOOP_HOME": str(tmp_path)})


def test_no_java_and_a_wrong_java_home_are_named(tmp_path: Path) -> None:
    with pytest.raises(HadoopNotFoundError, match="JAVA_HOME is not set"):
        find_libjvm({"PATH": str(tmp_path)})
    with pytest.raises(HadoopNotFoundError, match=f"JAVA_HOME is {tmp_path}"):
        find_libjvm({"JAVA_HOME": str(tmp_path)})


@pytest.mark.parametrize(
    ("script", "words"), [("exit 3", "exit code 3"), ("echo /x/other.jar", r"names no hadoop-common-\*\.jar")]
)
def test_a_launcher_that_fails_or_knows_no_hadoop_is_an_error(
    tmp_path: Path, java_home: Path, conf: Path, script: str, words: str
) -> None:
    make_launcher(tmp_path / "hadoop" / "bin" / "hadoop", script)
    with pytest.raises(HadoopNotFoundError, match=words):
        find_hadoop_home(conf, {"HADOOP_HOME": str(tmp_path / "hadoop"), "JAVA_HOME": str(java_home)})


def test_a_missing_configuration_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(HadoopNotFoundError, match="does not exist") as caught:
        find_hadoop_home(tmp_path / "nope", {})
    assert "--hadoop-conf" in (caught.value.hint or "")
