"""The sandbox's `hadoop` and `hdfs`: each word becomes Hadoop's own main class, shown by a stand-in for java."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ringfence_bootstrap.sandbox.configuration import install_launchers
from ringfence_bootstrap.sandbox.state import Layout


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """HADOOP_HOME with two empty jars, one for YARN, and a java that prints one argument a line and ends with 7."""
    layout = Layout(tmp_path / "s")
    layout.conf.mkdir(parents=True)
    jars = tmp_path / "jars"
    jars.mkdir()
    for name in ("a.jar", "b.jar"):
        (jars / name).touch()
    more = tmp_path / "more"
    more.mkdir()
    (more / "y.jar").touch()
    install_launchers(layout, jars, more)
    java = tmp_path / "java/bin/java"
    java.parent.mkdir(parents=True)
    java.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\nexit 7\n")
    java.chmod(0o755)
    return layout.hadoop_home


def run(home: Path, program: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    base = {"PATH": os.environ["PATH"], "JAVA_HOME": str(home.parents[1] / "java")}
    return subprocess.run(
        [home / "bin" / program, *arguments],
        env=base | environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("program", "word", "main_class"),
    [
        ("hadoop", "key", "org.apache.hadoop.crypto.key.KeyShell"),
        ("hadoop", "fs", "org.apache.hadoop.fs.FsShell"),
        ("hadoop", "org.example.Main", "org.example.Main"),
        ("hadoop", "distcp", "org.apache.hadoop.tools.DistCp"),
        ("hadoop", "jar", "org.apache.hadoop.util.RunJar"),
        ("hdfs", "haadmin", "org.apache.hadoop.hdfs.tools.DFSHAAdmin"),
        ("hdfs", "journalnode", "org.apache.hadoop.hdfs.qjournal.server.JournalNode"),
        ("yarn", "logs", "org.apache.hadoop.yarn.client.cli.LogsCLI"),
        ("yarn", "nodemanager", "org.apache.hadoop.yarn.server.nodemanager.NodeManager"),
        ("mapred", "streaming", "org.apache.hadoop.streaming.HadoopStreaming"),
        ("hdfs", "dfs", "org.apache.hadoop.fs.FsShell"),
        ("hdfs", "crypto", "org.apache.hadoop.hdfs.tools.CryptoAdmin"),
        ("hdfs", "dfsadmin", "org.apache.hadoop.hdfs.tools.DFSAdmin"),
        ("hdfs", "oiv", "org.apache.hadoop.hdfs.tools.offlineImageViewer.OfflineImageViewerPB"),
    ],
)
def test_a_word_becomes_its_class_and_arguments_and_exit_code_pass_through(
    home: Path, program: str, word: str, main_class: str
) -> None:
    finished = run(home, program, word, "-put", "a file", "*")
    assert finished.stdout.splitlines()[-4:] == [main_class, "-put", "a file", "*"]
    assert finished.returncode == 7


def test_the_class_path_names_each_jar_with_glob_and_the_directory_without(home: Path) -> None:
    conf = home / "etc/hadoop"
    jars = f"{home}/share/hadoop/a.jar:{home}/share/hadoop/b.jar:{home}/share/hadoop-yarn/y.jar"
    assert run(home, "hadoop", "classpath", "--glob").stdout == f"{conf}:{jars}\n"
    assert run(home, "hdfs", "classpath").stdout == f"{conf}:{home}/share/hadoop/*:{home}/share/hadoop-yarn/*\n"


def test_a_sandbox_without_yarn_has_no_trace_of_it(tmp_path: Path) -> None:
    layout, jars = Layout(tmp_path / "s"), tmp_path / "jars"
    layout.conf.mkdir(parents=True)
    jars.mkdir()
    (jars / "a.jar").touch()
    install_launchers(layout, jars)
    home = layout.hadoop_home
    conf = home / "etc/hadoop"
    assert sorted(path.name for path in (home / "bin").iterdir()) == ["hadoop", "hdfs"]
    assert run(home, "hadoop", "classpath", "--glob").stdout == f"{conf}:{home}/share/hadoop/a.jar\n"
    assert run(home, "hdfs", "classpath").stdout == f"{conf}:{home}/share/hadoop/*\n"


def test_one_class_serves_several_words_of_yarn_and_is_told_which(home: Path) -> None:
    shown = run(home, "yarn", "app", "-list").stdout.splitlines()
    assert shown[-3:] == ["org.apache.hadoop.yarn.client.cli.ApplicationCLI", "app", "-list"]


def test_the_configuration_directory_of_the_environment_wins(home: Path) -> None:
    assert run(home, "hadoop", "classpath", HADOOP_CONF_DIR="/other").stdout.startswith("/other:")


def test_client_options_reach_java_as_words(home: Path) -> None:
    shown = run(home, "hdfs", "dfs", HADOOP_CLIENT_OPTS="-Xmx64m -Da=b").stdout.splitlines()
    assert shown[shown.index("-Xmx64m") : shown.index("-Xmx64m") + 2] == ["-Xmx64m", "-Da=b"]


def test_a_launcher_works_through_a_link(home: Path, tmp_path: Path) -> None:
    link = tmp_path / "hadoop"
    link.symlink_to(home / "bin/hadoop")
    shown = subprocess.run([link, "classpath"], capture_output=True, text=True, timeout=30, check=True)
    assert str(home) in shown.stdout


@pytest.mark.parametrize("program", ["hadoop", "hdfs", "yarn", "mapred"])
def test_an_unknown_word_is_refused_with_the_usage(home: Path, program: str) -> None:
    finished = run(home, program, "nosuchword")
    assert finished.returncode == 1
    assert f"{program}: 'nosuchword' is not a command of the sandbox" in finished.stderr
    assert "Usage:" in finished.stderr


@pytest.mark.parametrize("program", ["hadoop", "hdfs", "yarn", "mapred"])
def test_no_word_prints_the_usage(home: Path, program: str) -> None:
    assert "Usage:" in run(home, program).stdout


def test_java_is_told_where_the_realm_s_configuration_is(home: Path) -> None:
    assert "-Djava.security.krb5.conf=/k/krb5.conf" in run(home, "hadoop", "key", KRB5_CONFIG="/k/krb5.conf").stdout
    assert "krb5.conf" not in run(home, "hadoop", "key").stdout
