"""Hadoop's jars: pinned lists, resolved by Maven, kept in the user's cache.

Rules: every jar of a class path is listed with its version and SHA-256 (`artifacts.txt` is the sandbox's,
`artifacts-yarn.txt` what YARN adds to it, fetched by those alone who ask for YARN); Maven is
asked for exactly those, follows no dependency of its own choosing, and takes servers, mirrors and proxies from the
user's own configuration. Jars come down into a directory beside the cache and are renamed into place once every one is
there and has its checksum, so a broken download never looks like a whole one. Two fetches at once wait for each other.
It refuses jars that are not the listed bytes. It is never used on EMR, where the cluster's own jars are found.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.resources
import json
import re
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from ringfence_bootstrap.sandbox.requirements import find_maven
from ringfence_zones.errors import SandboxError

HADOOP_VERSION = "3.4.2"
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
_DOWNLOADED = re.compile(r"Downloaded from [^:]+: \S+/(?P<name>[^/\s]+\.jar)\b")
_SIZES = "sizes.json"

OnProgress = Callable[[int, int], None]
"""Called with (jars here, jars in all)."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """One jar of the list, by its Maven coordinates; `sha256` in lower-case hex."""

    group: str
    name: str
    version: str
    classifier: str | None
    sha256: str

    @property
    def file_name(self) -> str:
        """The name Maven's dependency plugin gives the copied jar."""
        suffix = f"-{self.classifier}" if self.classifier else ""
        return f"{self.name}-{self.version}{suffix}.jar"


@dataclass(frozen=True, slots=True)
class JarList:
    """A pinned class path, in its order. `name` names its place in the cache, `hadoop-3.4.2` for example."""

    name: str
    artifacts: tuple[Artifact, ...]

    def directory(self, environ: Mapping[str, str]) -> Path:
        """Where the jars belong; a changed list gets a directory of its own."""
        listed = "\n".join(f"{artifact.file_name} {artifact.sha256}" for artifact in self.artifacts)
        digest = hashlib.sha256(listed.encode()).hexdigest()[:12]
        return cache_directory(environ) / self.name / digest

    def missing_in(self, directory: Path) -> list[str]:
        """Names of the jars that are absent from `directory` or not of the size they had when verified."""
        try:
            sizes = json.loads((directory / _SIZES).read_text())
        except (OSError, ValueError):
            sizes = {}
        return [
            artifact.file_name
            for artifact in self.artifacts
            if _size(directory / artifact.file_name) != sizes.get(artifact.file_name, -1)
        ]


def sandbox_jars() -> JarList:
    """What every sandbox needs: the list that ships with this package."""
    return _packaged_list("artifacts.txt", f"hadoop-{HADOOP_VERSION}")


def yarn_jars() -> JarList:
    """What YARN and MapReduce need beside `sandbox_jars`."""
    return _packaged_list("artifacts-yarn.txt", f"hadoop-{HADOOP_VERSION}-yarn")


def _packaged_list(file_name: str, name: str) -> JarList:
    return parse_jar_list(name, importlib.resources.files(__package__).joinpath(file_name).read_text())


def parse_jar_list(name: str, text: str) -> JarList:
    """A list in the format of `artifacts.txt`: `group:artifact:version[:classifier] SHA-256` a line, `#` comments."""
    return JarList(name, tuple(_parse(line) for line in text.splitlines() if line and not line.startswith("#")))


def _parse(line: str) -> Artifact:
    coordinates, sha256 = line.split()
    group, name, version, *classifier = coordinates.split(":")
    return Artifact(group, name, version, classifier[0] if classifier else None, sha256)


def cache_directory(environ: Mapping[str, str]) -> Path:
    """`${XDG_CACHE_HOME:-~/.cache}/ringfence`; a relative XDG_CACHE_HOME is ignored, as its specification says."""
    base = Path(environ.get("XDG_CACHE_HOME") or "")
    return (base if base.is_absolute() else Path.home() / ".cache") / "ringfence"


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def ensure_jars(jars: JarList, environ: Mapping[str, str], say: Callable[[str], None], on_progress: OnProgress) -> Path:
    """The directory that holds every jar of the list, fetched through Maven when it is not there yet.

    Raises SandboxError when Maven is missing, fails, or delivers other bytes than the list names.
    """
    directory = jars.directory(environ)
    if not jars.missing_in(directory):
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(directory.with_suffix(".lock")):
        missing = jars.missing_in(directory)
        if missing:
            if directory.exists():
                say(f"the cache {directory} is incomplete ({len(missing)} jars missing or damaged): fetching it again")
            _fetch(jars, directory, environ, on_progress)
    return directory


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _fetch(jars: JarList, directory: Path, environ: Mapping[str, str], on_progress: OnProgress) -> None:
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=directory.parent) as temporary:
        draft = Path(temporary) / "jars"
        draft.mkdir()
        pom = Path(temporary) / "pom.xml"
        pom.write_text(_pom(jars))
        names = {artifact.file_name for artifact in jars.artifacts}
        _run_maven(pom, draft, names, environ, on_progress)
        _verify(jars, draft)
        if directory.exists():
            shutil.rmtree(directory)
        draft.rename(directory)


def _pom(jars: JarList) -> str:
    """A project whose dependencies are the list, each with its own dependencies cut off."""
    lines = [
        '<project xmlns="http://maven.apache.org/POM/4.0.0">',
        "<modelVersion>4.0.0</modelVersion>",
        "<groupId>ringfence</groupId><artifactId>jars</artifactId><version>1</version><packaging>pom</packaging>",
        "<dependencies>",
    ]
    for artifact in jars.artifacts:
        classifier = f"<classifier>{escape(artifact.classifier)}</classifier>" if artifact.classifier else ""
        lines.append(
            f"<dependency><groupId>{escape(artifact.group)}</groupId><artifactId>{escape(artifact.name)}</artifactId>"
            f"<version>{escape(artifact.version)}</version>{classifier}"
            "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>"
            "</dependency>"
        )
    lines += ["</dependencies>", "</project>", ""]
    return "\n".join(lines)


def _run_maven(pom: Path, output: Path, names: set[str], environ: Mapping[str, str], on_progress: OnProgress) -> None:
    command = [
        str(find_maven(environ)),
        "--batch-mode",
        "--strict-checksums",
        f"--file={pom}",
        f"{_PLUGIN}:copy-dependencies",
        f"-DoutputDirectory={output}",
    ]
    arrived: set[str] = set()
    tail: deque[str] = deque(maxlen=40)
    on_progress(0, len(names))
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ
    ) as process:
        for line in process.stdout or ():
            tail.append(line.rstrip())
            match = _DOWNLOADED.search(line)
            if match and match["name"] in names - arrived:
                arrived.add(match["name"])
                on_progress(len(arrived), len(names))
    if process.returncode:
        raise SandboxError(
            f"Maven could not fetch Hadoop's jars: {_first_error(tail)}",
            hint="check the network, Maven's settings.xml and free disk space, then run the same command again: "
            "what came down is kept",
        )
    on_progress(len(names), len(names))


def _first_error(tail: deque[str]) -> str:
    errors = [line.removeprefix("[ERROR]").strip() for line in tail if line.startswith("[ERROR]")]
    return next((line for line in errors if line), tail[-1] if tail else "it printed nothing")


def _verify(jars: JarList, directory: Path) -> None:
    sizes = {}
    for artifact in jars.artifacts:
        path = directory / artifact.file_name
        if not path.exists():
            raise SandboxError(
                f"Maven did not deliver {artifact.file_name}", hint="look at the repositories in Maven's settings.xml"
            )
        with path.open("rb") as stream:
            actual = hashlib.file_digest(stream, "sha256").hexdigest()
        if actual != artifact.sha256:
            raise SandboxError(
                f"{artifact.file_name} is not the listed file: its SHA-256 is {actual}, not {artifact.sha256}",
                hint=f"delete {artifact.group.replace('.', '/')}/{artifact.name} from Maven's local repository "
                "(usually ~/.m2/repository) and run the same command again; if it stays so, do not use that mirror",
            )
        sizes[artifact.file_name] = path.stat().st_size
    (directory / _SIZES).write_text(json.dumps(sizes, indent=0))
