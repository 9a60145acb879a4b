"""Java is found where it is, judged by its version, and a missing one is named with the fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence_bootstrap.sandbox import requirements
from ringfence_bootstrap.sandbox.requirements import find_java_home
from ringfence_zones.errors import SandboxError


@pytest.fixture(autouse=True)
def no_other_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "jvm").mkdir()
    monkeypatch.setattr(requirements, "_DEBIAN_JVMS", str(tmp_path / "jvm"))


def make_java(home: Path, version: str | None) -> Path:
    (home / "bin").mkdir(parents=True)
    (home / "bin/java").write_text("#!/bin/sh\n")
    (home / "bin/java").chmod(0o755)
    if version:
        (home / "release").write_text(f'IMPLEMENTOR="X"\nJAVA_VERSION="{version}"\n')
    return home


@pytest.mark.parametrize("version", ["17.0.15", "21", "21.0.2"])
def test_java_home_is_taken_when_its_version_suits(tmp_path: Path, version: str) -> None:
    home = make_java(tmp_path / "j", version)
    assert find_java_home({"JAVA_HOME": str(home)}) == home


@pytest.mark.parametrize(("version", "named"), [("1.8.0_402", "8"), ("11.0.2", "11"), ("24", "24"), (None, "unknown")])
def test_a_java_that_does_not_suit_is_named_with_the_versions_that_do(
    tmp_path: Path, version: str | None, named: str
) -> None:
    home = make_java(tmp_path / "j", version)
    with pytest.raises(SandboxError, match=rf"{named}.*needs 17 or 21"):
        find_java_home({"JAVA_HOME": str(home)})


def test_a_java_home_without_java_is_named(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match=f"JAVA_HOME is {tmp_path}, which holds no bin/java"):
        find_java_home({"JAVA_HOME": str(tmp_path)})


def test_the_java_on_the_path_is_followed_to_its_home(tmp_path: Path) -> None:
    home = make_java(tmp_path / "jdk", "17.0.1")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/java").symlink_to(home / "bin/java")
    assert find_java_home({"PATH": str(tmp_path / "bin")}) == home


def test_an_old_java_on_the_path_gives_way_to_a_suitable_one_of_the_system(tmp_path: Path) -> None:
    make_java(tmp_path / "old", "11.0.1")
    suitable = make_java(tmp_path / "jvm/java-17", "17.0.1")
    assert find_java_home({"PATH": str(tmp_path / "old/bin")}) == suitable


def test_an_old_java_and_no_other_is_named(tmp_path: Path) -> None:
    make_java(tmp_path / "old", "11.0.1")
    with pytest.raises(SandboxError, match="is Java 11"):
        find_java_home({"PATH": str(tmp_path / "old/bin")})


def test_no_java_at_all_is_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path=None: name if name == "apt-get" else None)
    with pytest.raises(SandboxError, match="there is no Java on this machine") as caught:
        find_java_home({"PATH": str(tmp_path)})
    assert caught.value.command == "apt-get install --yes --no-install-recommends openjdk-17-jre-headless"
