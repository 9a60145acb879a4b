"""Finds this machine's Hadoop and Java: the jars the gateway loads are the cluster's own.

One path serves an EMR node and the sandbox: the launcher `$HADOOP_HOME/bin/hadoop`, else `hadoop` on PATH, is asked
for its class path. `JAVA_HOME`, else `java` on PATH, says which JVM is loaded into this process.

It starts no JVM, keeps nothing between calls and guesses no directory: what is not found is an error with the fix.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ringfence_zones.errors import HadoopNotFoundError

_LAUNCHER_TIMEOUT_S = 30
# Where JDKs keep the JVM below their home: 9 and later, then Java 8's two layouts.
_LIBJVM = ("lib/server/libjvm.so", "jre/lib/amd64/server/libjvm.so", "jre/lib/aarch64/server/libjvm.so")
# A class path without these two cannot talk to HDFS; saying so beats a NoClassDefFoundError.
_NEEDED_JARS = ("hadoop-common-", "hadoop-hdfs-client-")


@dataclass(frozen=True, slots=True)
class HadoopHome:
    """What a JVM needs: the configuration directory first, then every jar, and the JVM itself."""

    launcher: Path
    class_path: tuple[str, ...]
    libjvm: Path


def find_hadoop_home(hadoop_conf: Path, environ: Mapping[str, str]) -> HadoopHome:
    """The Hadoop and Java of this machine. Raises HadoopNotFoundError, which names what is missing and the fix."""
    if not hadoop_conf.is_dir():
        raise HadoopNotFoundError(
            f"the Hadoop configuration directory {hadoop_conf} does not exist",
            hint="give --hadoop-conf DIR or set HADOOP_CONF_DIR to the directory that holds core-site.xml",
        )
    libjvm = find_libjvm(environ)
    launcher = find_launcher(environ)
    jars = _class_path(launcher, hadoop_conf, environ)
    return HadoopHome(launcher, tuple(dict.fromkeys((str(hadoop_conf), *jars))), libjvm)


def find_launcher(environ: Mapping[str, str]) -> Path:
    """The `hadoop` command. Raises HadoopNotFoundError."""
    home = environ.get("HADOOP_HOME")
    if home:
        launcher = Path(home) / "bin" / "hadoop"
        if not launcher.is_file():
            raise HadoopNotFoundError(
                f"HADOOP_HOME is {home}, but there is no {launcher}",
                hint="set HADOOP_HOME to the directory that holds bin/hadoop, or unset it to use hadoop on PATH",
            )
        return launcher
    found = shutil.which("hadoop", path=environ.get("PATH"))
    if found is None:
        raise HadoopNotFoundError(
            "no Hadoop on this machine: HADOOP_HOME is not set and there is no hadoop command on PATH",
            hint="run this on a cluster node, set HADOOP_HOME, or try it out in a sandbox",
            command="ringfence sandbox up",
        )
    return Path(found)


def find_libjvm(environ: Mapping[str, str]) -> Path:
    """The JVM's shared library. Raises HadoopNotFoundError."""
    home = environ.get("JAVA_HOME")
    if home:
        source, java_home = f"JAVA_HOME is {home}", Path(home)
    else:
        java = shutil.which("java", path=environ.get("PATH"))
        if java is None:
            raise HadoopNotFoundError(
                "no Java on this machine: JAVA_HOME is not set and there is no java command on PATH",
                hint="install a Java 17 or 21 runtime, or set JAVA_HOME",
            )
        # Distributions link java through /etc/alternatives: the real file lies in HOME/bin.
        java_home = Path(java).resolve().parent.parent
        source = f"java on PATH belongs to {java_home}"
    for candidate in _LIBJVM:
        if (java_home / candidate).is_file():
            return java_home / candidate
    raise HadoopNotFoundError(
        f"{source}, but there is no {_LIBJVM[0]} below it",
        hint="set JAVA_HOME to a Java 17 or 21 runtime",
    )


def _class_path(launcher: Path, hadoop_conf: Path, environ: Mapping[str, str]) -> list[str]:
    # Without --glob the launcher answers from its shell code alone; with it, it starts a JVM to expand wildcards.
    try:
        answer = subprocess.run(
            [launcher, "classpath"],
            env={**environ, "HADOOP_CONF_DIR": str(hadoop_conf)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LAUNCHER_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HadoopNotFoundError(f"{launcher} does not run: {error}") from error
    if answer.returncode != 0:
        raise HadoopNotFoundError(
            f"'{launcher} classpath' failed with exit code {answer.returncode}",
            hint="run it by hand to see why",
            command=f"{launcher} classpath",
        )
    jars = list(_expand(answer.stdout.strip()))
    names = {Path(jar).name for jar in jars}
    for needed in _NEEDED_JARS:
        if not any(name.startswith(needed) for name in names):
            raise HadoopNotFoundError(
                f"'{launcher} classpath' names no {needed}*.jar",
                hint="is HADOOP_HOME a complete Hadoop 3 installation?",
            )
    return jars


def _expand(class_path: str) -> Iterator[str]:
    """Entries in order, `DIR/*` as the jars in DIR: a JVM inside another process does not expand them itself."""
    for entry in class_path.split(":"):
        if entry.endswith("/*"):
            yield from sorted(str(jar) for jar in Path(entry[:-2]).glob("*.[jJ][aA][rR]"))
        elif entry:
            yield entry
