"""What the sandbox needs from the machine: Java and Maven. Found, judged and named with the fix; never installed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from ringfence_zones.errors import SandboxError

# Hadoop 3.4 runs on 17 and 21 with the --add-opens of the launchers; from 24 on Subject.getSubject is gone (JEP 486).
OLDEST_JAVA = 17
NEWEST_JAVA = 21
_VERSION = re.compile(r'^JAVA_VERSION="(?:1\.)?(\d+)', re.MULTILINE)
_DEBIAN_JVMS = "/usr/lib/jvm"


def find_java_home(environ: Mapping[str, str]) -> Path:
    """JAVA_HOME when set, else the home of the `java` on PATH, else the newest suitable one under /usr/lib/jvm.

    Raises SandboxError when there is none or the version does not suit. Starts no JVM: the `release` file tells.
    """
    named = environ.get("JAVA_HOME")
    if named:
        return _checked(Path(named), f"JAVA_HOME is {named}, which")
    found = shutil.which("java", path=environ.get("PATH"))
    if found:
        home = Path(found).resolve().parent.parent
        if _suits(_version(home)):
            return home
    for home in sorted(Path(_DEBIAN_JVMS).glob("*"), reverse=True):
        if (home / "bin/java").exists() and _suits(_version(home)):
            return home.resolve()
    if found:
        return _checked(Path(found).resolve().parent.parent, f"the java on the PATH ({found})")
    raise SandboxError(
        f"there is no Java on this machine; the sandbox's HDFS needs Java {OLDEST_JAVA} or {NEWEST_JAVA}",
        hint="install it, or set JAVA_HOME to where it is",
        command=_install_command("openjdk-17-jre-headless", "java-17-amazon-corretto-headless"),
    )


def _checked(home: Path, subject: str) -> Path:
    if not (home / "bin/java").exists():
        raise SandboxError(f"{subject} holds no bin/java", hint="point JAVA_HOME to a Java runtime, or unset it")
    version = _version(home)
    if not _suits(version):
        raise SandboxError(
            f"{subject} is Java {version or 'of an unknown version'}; Hadoop 3.4 needs {OLDEST_JAVA} or {NEWEST_JAVA}",
            hint="install one of them, or set JAVA_HOME to where it is",
            command=_install_command("openjdk-17-jre-headless", "java-17-amazon-corretto-headless"),
        )
    return home


def _version(home: Path) -> int | None:
    try:
        match = _VERSION.search((home / "release").read_text())
    except OSError:
        return None
    return int(match[1]) if match else None


def _suits(version: int | None) -> bool:
    return version is not None and OLDEST_JAVA <= version <= NEWEST_JAVA


def find_maven(environ: Mapping[str, str]) -> Path:
    """The `mvn` command. Raises SandboxError with the line that installs it."""
    found = shutil.which("mvn", path=environ.get("PATH"))
    if found is None:
        raise SandboxError(
            "Maven (mvn) is not on the PATH; it is what fetches Hadoop's jars, once",
            hint="install it, then run the same command again",
            command=_install_command("maven", "maven"),
        )
    return Path(found)


def _install_command(debian: str, amazon: str) -> str | None:
    if shutil.which("apt-get"):
        return f"apt-get install --yes --no-install-recommends {debian}"
    return f"dnf install --assumeyes {amazon}" if shutil.which("dnf") else None
