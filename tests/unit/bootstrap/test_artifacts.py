"""Hadoop's jars: the list, the cache, and every way in which fetching can go wrong, with a stand-in for `mvn`."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ringfence_bootstrap.sandbox.artifacts import Artifact, JarList, ensure_jars, sandbox_jars, yarn_jars
from ringfence_zones.errors import SandboxError

CONTENT = {"one-1.0.jar": "first jar", "two-2.0-tests.jar": "second jar"}
LISTED = JarList(
    "example-1",
    (
        Artifact("org.example", "one", "1.0", None, hashlib.sha256(b"first jar").hexdigest()),
        Artifact("org.example", "two", "2.0", "tests", hashlib.sha256(b"second jar").hexdigest()),
    ),
)
DELIVERS = """#!/bin/sh
for word; do case $word in -DoutputDirectory=*) out=${word#*=};; --file=*) pom=${word#*=};; esac; done
cp "$pom" "$(dirname "$0")/pom.xml"
echo "$0 $*" >>"$(dirname "$0")/calls"
echo "Downloaded from central: http://host/one-1.0.pom (1 kB at 1 kB/s)"
echo "Downloaded from central: http://host/one-1.0.jar (1 kB at 1 kB/s)"
printf 'first jar' >"$out/one-1.0.jar"
printf 'second jar' >"$out/two-2.0-tests.jar"
"""


@pytest.fixture
def environ(tmp_path: Path) -> Mapping[str, str]:
    """An empty cache, and a PATH on which `mvn` is a stand-in that delivers the list."""
    (tmp_path / "bin").mkdir()
    install_maven(tmp_path, DELIVERS)
    return {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def install_maven(directory: Path, script: str) -> None:
    program = directory / "bin/mvn"
    program.write_text(script)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def calls(directory: Path) -> int:
    log = directory / "bin/calls"
    return len(log.read_text().splitlines()) if log.exists() else 0


def fetch(environ: Mapping[str, str]) -> tuple[Path, list[str], list[tuple[int, int]]]:
    said: list[str] = []
    progress: list[tuple[int, int]] = []
    directory = ensure_jars(LISTED, environ, said.append, lambda done, total: progress.append((done, total)))
    return directory, said, progress


def test_every_listed_jar_is_pinned_once() -> None:
    listed = sandbox_jars().artifacts
    names = [artifact.file_name for artifact in listed]
    assert len(set(names)) == len(names) > 100
    assert all(re.fullmatch(r"[0-9a-f]{64}", artifact.sha256) for artifact in listed)
    assert {"hadoop-hdfs-3.4.2.jar", "hadoop-hdfs-3.4.2-tests.jar", "hadoop-kms-3.4.2.jar"} <= set(names)


def test_yarn_adds_jars_to_the_same_class_path_and_brings_none_a_second_time() -> None:
    base, more = sandbox_jars(), yarn_jars()
    names = {artifact.file_name for artifact in more.artifacts}
    assert len(names) == len(more.artifacts)
    assert all(re.fullmatch(r"[0-9a-f]{64}", artifact.sha256) for artifact in more.artifacts)
    assert {"hadoop-yarn-server-resourcemanager-3.4.2.jar", "hadoop-streaming-3.4.2.jar"} <= names
    assert not {(each.group, each.name) for each in base.artifacts} & {
        (each.group, each.name) for each in more.artifacts
    }
    assert base.name != more.name, "each list has a place of its own in the cache"


def test_jars_are_fetched_once_with_progress(environ: Mapping[str, str], tmp_path: Path) -> None:
    directory, said, progress = fetch(environ)
    assert {path.name: path.read_text() for path in directory.glob("*.jar")} == CONTENT
    assert directory == LISTED.directory(environ)
    assert (said, progress) == ([], [(0, 2), (1, 2), (2, 2)])
    assert fetch(environ) == (directory, [], [])
    assert calls(tmp_path) == 1


def test_maven_is_asked_for_the_listed_jars_and_nothing_they_drag_along(
    environ: Mapping[str, str], tmp_path: Path
) -> None:
    fetch(environ)
    space = {"m": "http://maven.apache.org/POM/4.0.0"}
    dependencies = ElementTree.parse(tmp_path / "bin/pom.xml").findall(".//m:dependency", space)
    assert [d.findtext("m:artifactId", namespaces=space) for d in dependencies] == ["one", "two"]
    assert [d.findtext("m:classifier", namespaces=space) for d in dependencies] == [None, "tests"]
    assert [d.findtext(".//m:exclusion/m:groupId", namespaces=space) for d in dependencies] == ["*", "*"]
    assert "--strict-checksums" in (tmp_path / "bin/calls").read_text()


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("short")])
def test_a_cache_with_a_missing_or_cut_jar_is_fetched_again(environ: Mapping[str, str], damage: object) -> None:
    directory, _, _ = fetch(environ)
    damage(directory / "one-1.0.jar")  # type: ignore[operator]
    assert LISTED.missing_in(directory) == ["one-1.0.jar"]
    _, said, _ = fetch(environ)
    assert said == [f"the cache {directory} is incomplete (1 jars missing or damaged): fetching it again"]
    assert LISTED.missing_in(directory) == []


def test_a_directory_without_its_record_counts_as_incomplete(environ: Mapping[str, str]) -> None:
    directory = LISTED.directory(environ)
    directory.mkdir(parents=True)
    for name, text in CONTENT.items():
        (directory / name).write_text(text)
    assert LISTED.missing_in(directory) == list(CONTENT)


def test_other_bytes_than_listed_are_refused_and_leave_no_cache(environ: Mapping[str, str], tmp_path: Path) -> None:
    install_maven(tmp_path, DELIVERS.replace("'second jar'", "'evil jar!!'"))
    with pytest.raises(SandboxError, match=r"two-2\.0-tests\.jar is not the listed file") as caught:
        fetch(environ)
    assert "org/example/two" in (caught.value.hint or "")
    assert_nothing_left(environ)


def test_a_jar_that_maven_did_not_deliver_is_named(environ: Mapping[str, str], tmp_path: Path) -> None:
    install_maven(tmp_path, DELIVERS.replace("printf 'second jar'", "true"))
    install_maven(tmp_path, "\n".join(line for line in DELIVERS.splitlines() if "second" not in line))
    with pytest.raises(SandboxError, match=r"did not deliver two-2\.0-tests\.jar"):
        fetch(environ)
    assert_nothing_left(environ)


def test_a_failing_maven_is_quoted(environ: Mapping[str, str], tmp_path: Path) -> None:
    install_maven(tmp_path, "#!/bin/sh\necho '[ERROR] Could not resolve org.example:one'\nexit 1\n")
    with pytest.raises(SandboxError, match=r"could not fetch Hadoop's jars: Could not resolve org\.example:one"):
        fetch(environ)
    assert_nothing_left(environ)


def test_a_missing_maven_is_named_with_the_line_that_installs_it(environ: Mapping[str, str], tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match=r"Maven \(mvn\) is not on the PATH") as caught:
        fetch({**environ, "PATH": str(tmp_path)})
    assert caught.value.hint


def test_a_full_cache_needs_no_maven(environ: Mapping[str, str], tmp_path: Path) -> None:
    directory, _, _ = fetch(environ)
    assert fetch({**environ, "PATH": str(tmp_path)}) == (directory, [], [])


def assert_nothing_left(environ: Mapping[str, str]) -> None:
    directory = LISTED.directory(environ)
    assert [path.name for path in directory.parent.iterdir()] == [directory.with_suffix(".lock").name]
