"""What the node is: its release, its Java, its Python, its clock."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ringfence_bootstrap.node.places import HOME
from ringfence_bootstrap.node_doctor.subject import Node
from ringfence_bootstrap.releases import NEWEST, Release, parse_release, spelled_version
from ringfence_zones.errors import InputError
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.kernel_clock import find_clock_problems
from ringfence_zones.named_checks import NotChecked, finding

_OLDEST_PYTHON = (3, 11)
_JAVAS = (17, 21)
# The first release whose nodes bring a Python that is new enough.
_FIRST_RELEASE = (7, 1)
_VERSION = re.compile(r'^JAVA_VERSION="(\d+)(?:\.(\d+))?', re.MULTILINE)
_VENV_VERSION = re.compile(r"^version(?:_info)?\s*=\s*(\d+)\.(\d+)", re.MULTILINE)
_MAX_BYTES = 64 * 1024


def check_release(node: Node) -> Iterator[Finding]:
    """Whether Ringfence runs on this release."""
    release = _release(node)
    if not release.at_least(*_FIRST_RELEASE):
        message = f"{release} brings no Python of at least {_spelled(_OLDEST_PYTHON)}"
        hint = (
            "run the key server off the cluster and take it over by mode clients-only, or build a custom image that"
            " brings a newer Python; emr-7.1.0 and later have it"
        )
        yield finding(Severity.ERROR, Rule.NODE_RELEASE, release, message, hint)
    elif not release.is_known:
        newest = f"{release.train}-{spelled_version(NEWEST[release.train])}"
        message = f"{release} is newer than what this version of Ringfence knows ({newest}), and taken for that"
        yield finding(Severity.INFO, Rule.NODE_RELEASE, release, message, "look for a newer version of Ringfence")


def _release(node: Node) -> Release:
    if not node.is_emr:
        raise NotChecked("this is no node of an EMR cluster: EMR's own files are not here")
    if node.facts.release is None:
        raise NotChecked("EMR's files on this node do not name the release (yet)")
    try:
        return parse_release(node.facts.release)
    except InputError as error:
        raise NotChecked(error.message) from error


def check_java(node: Node) -> Iterator[Finding]:
    """Which Java Hadoop's daemons run with, and whether there is one for Ringfence's commands."""
    daemons = _java_version(node.root / "etc/alternatives/jre")
    found = {version for home in _java_homes(node) if (version := _java_version(home)) is not None}
    if daemons is not None:
        found.add(daemons)
    if not found & set(_JAVAS):
        there = f"there is only Java {', '.join(map(str, sorted(found)))}" if found else "there is no Java"
        message = f"{there}: plan, apply, check and mv need Java 17 or 21, the key server none"
        hint = "install a Java 17 runtime beside it; Hadoop's daemons keep theirs"
        yield finding(
            Severity.WARN, Rule.NODE_JAVA, "java", message, hint, "dnf install java-17-amazon-corretto-headless"
        )
    if daemons is not None and node.is_emr and node.facts.release is not None:
        expected = _release(node).node.javas
        if daemons not in expected:
            wanted = " or ".join(map(str, expected))
            message = f"Hadoop's daemons run with Java {daemons}, and {node.facts.release} is made for {wanted}"
            hint = "set JAVA_HOME by the classifications hadoop-env and yarn-env, not by /etc/alternatives"
            yield finding(Severity.WARN, Rule.NODE_JAVA, node.root / "etc/alternatives/jre", message, hint)


def _java_homes(node: Node) -> Iterator[Path]:
    named = node.environ.get("JAVA_HOME")
    if named:
        yield Path(named)
    yield from sorted((node.root / "usr/lib/jvm").glob("*"))


def _java_version(home: Path) -> int | None:
    """The major version; Java called itself 1.8 before 9."""
    # Of Java 8 the runtime's own directory is one below.
    for place in (home, home.parent):
        match = _VERSION.search(_read(place / "release"))
        if match is not None:
            return int(match[2] or 0) if match[1] == "1" else int(match[1])
    return None


def check_python(node: Node) -> Iterator[Finding]:
    """Whether the Python that Ringfence was installed with is still there, or one to install it with."""
    home = node.root / str(HOME).lstrip("/")
    if (home / "pyvenv.cfg").is_file():
        match = _VENV_VERSION.search(_read(home / "pyvenv.cfg"))
        version = (int(match[1]), int(match[2])) if match is not None else None
        if not (home / "bin/python").exists():
            message = f"{home} was made with a Python that is gone"
            hint = "undo the set-up and run the bootstrap action again, and keep that Python installed"
            yield finding(Severity.ERROR, Rule.NODE_PYTHON, home, message, hint, "ringfence uninstall --yes")
        elif version is not None and version < _OLDEST_PYTHON:
            message = (
                f"{home} was made with Python {_spelled(version)}, and at least {_spelled(_OLDEST_PYTHON)} is needed"
            )
            hint = "undo the set-up and run the bootstrap action again with a newer Python"
            yield finding(Severity.ERROR, Rule.NODE_PYTHON, home, message, hint, "ringfence uninstall --yes")
        return
    if not node.is_emr:
        raise NotChecked(f"there is no {HOME}: nothing of a bootstrap action is installed here")
    if not any(_pythons(node)):
        message = f"there is no Python of at least {_spelled(_OLDEST_PYTHON)}, which the bootstrap action needs"
        hint = "install one in a custom image, or by a bootstrap action before"
        yield finding(Severity.ERROR, Rule.NODE_PYTHON, node.root / "usr/bin", message, hint, "dnf install python3.11")


def _pythons(node: Node) -> Iterator[Path]:
    for place in ("usr/bin", "usr/local/bin"):
        for program in (node.root / place).glob("python3.*"):
            digits = program.name.removeprefix("python3.")
            if digits.isdigit() and (3, int(digits)) >= _OLDEST_PYTHON:
                yield program


def check_clock(_node: Node) -> Iterator[Finding]:
    """Whether something keeps the clock right."""
    return find_clock_problems()


def _spelled(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(_MAX_BYTES).decode(errors="replace")
    except OSError:
        return ""
