"""Checks of the machine itself: clock, limits, core files, swap, Hadoop and Java. Linux."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from pathlib import Path

from ringfence_agent.doctor.subject import Subject
from ringfence_zones.errors import HadoopNotFoundError
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.hadoop_home import find_hadoop_home, find_launcher, find_libjvm
from ringfence_zones.kernel_clock import find_clock_problems
from ringfence_zones.named_checks import NotChecked, finding

_THIS = "this machine"
_OPEN_FILES_WANTED = 16_384
_JAVA_VERSION = re.compile(r'^JAVA_VERSION="(\d+(?:\.\d+)*)', re.MULTILINE)
_HADOOP_JAR = re.compile(r"^hadoop-common-(\d+\.\d+\.\d+)[\w.-]*\.jar$", re.MULTILINE)
_TESTED_JAVA = (17, 21)
_OLDEST_HADOOP, _FIRST_UNKNOWN_HADOOP = (3, 2), (3, 6)
PROC = Path("/proc")
SYS_BLOCK = Path("/sys/block")


def check_clock(_subject: Subject) -> Iterator[Finding]:
    """Whether something keeps the clock right, as the kernel knows it."""
    return find_clock_problems()


def check_open_files(_subject: Subject) -> Iterator[Finding]:
    """Whether a process started like this one may hold a cluster's connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _OPEN_FILES_WANTED:
        message = f"a process started here may open {hard} files; each connection is one"
        hint = "set LimitNOFILE=65536 in the KMS's unit, or raise nofile in limits.conf for its user"
        yield finding(Severity.WARN, Rule.OPEN_FILES_LOW, _THIS, message, hint)


def check_core_dumps(subject: Subject) -> Iterator[Finding]:
    """Whether a crash of the KMS could leave its memory in a file. Ringfence's KMS forbids that to itself."""
    if subject.stock is None:
        return
    soft, _ = resource.getrlimit(resource.RLIMIT_CORE)
    try:
        pattern = (PROC / "sys/kernel/core_pattern").read_text().strip()
    except OSError:
        raise NotChecked("the kernel's core_pattern cannot be read") from None
    # A piped core ignores the limit.
    if soft != 0 or pattern.startswith("|"):
        message = f"a crash of the KMS would leave its keys in a core file ({pattern})"
        hint = "set LimitCORE=0 in its unit (for a handler that starts with |, also Storage=none in coredump.conf)"
        yield finding(Severity.WARN, Rule.CORE_DUMPS, _THIS, message, hint)


def check_swap(_subject: Subject) -> Iterator[Finding]:
    """Whether memory can reach a disk in clear."""
    try:
        lines = (PROC / "swaps").read_text().splitlines()[1:]
    except OSError:
        raise NotChecked("/proc/swaps cannot be read") from None
    for line in lines:
        place = line.split()[0] if line.split() else ""
        if place and not _is_volatile_or_encrypted(place):
            message = f"{place} is swap in clear: keys in memory may be written there"
            hint = "switch it off for good in /etc/fstab, or put it on an encrypted device"
            yield finding(Severity.WARN, Rule.SWAP, place, message, hint, f"swapoff {place}")


def _is_volatile_or_encrypted(place: str) -> bool:
    name = Path(place).name
    if name.startswith("zram"):
        return not _has_backing_device(name)
    try:
        return (SYS_BLOCK / name / "dm/uuid").read_text().startswith("CRYPT-")
    except OSError:
        return False


def _has_backing_device(name: str) -> bool:
    try:
        return (SYS_BLOCK / name / "backing_dev").read_text().strip() not in ("", "none")
    except OSError:
        return False


def check_hadoop(subject: Subject) -> Iterator[Finding]:
    """Whether plan, apply, check and the like find Hadoop and a suitable Java. The KMS needs neither."""
    missing = list(_missing(subject))
    yield from missing
    if missing:
        return
    libjvm, launcher = find_libjvm(subject.environ), find_launcher(subject.environ)
    java = _version(_JAVA_VERSION, _java_release(libjvm))
    if java is not None and java[0] not in _TESTED_JAVA:
        message = f"Java {java[0]} ({libjvm}) is not what this release is tested with"
        hint = "set JAVA_HOME to a Java 17 or 21 runtime for Ringfence's commands; Hadoop's daemons may keep theirs"
        yield finding(Severity.WARN, Rule.HADOOP_UNTESTED, _THIS, message, hint)
    try:
        class_path = find_hadoop_home(subject.hadoop_conf, subject.environ).class_path
    except HadoopNotFoundError as error:
        raise NotChecked(f"the version of {launcher}: {error.message}") from error
    hadoop = _version(_HADOOP_JAR, "\n".join(Path(jar).name for jar in class_path))
    if hadoop is not None and not _OLDEST_HADOOP <= hadoop < _FIRST_UNKNOWN_HADOOP:
        message = (
            f"Hadoop {'.'.join(map(str, hadoop))} ({launcher}) is not what this release is tested with (3.2 to 3.5)"
        )
        hint = "try ringfence check first, which changes nothing"
        yield finding(Severity.WARN, Rule.HADOOP_UNTESTED, _THIS, message, hint)


def _java_release(libjvm: Path) -> str:
    # lib/server/libjvm.so, and in Java 8 jre/lib/amd64/server/libjvm.so, are below the home with the file `release`.
    for home in (libjvm.parents[2], libjvm.parents[4]):
        try:
            return (home / "release").read_text(errors="replace")
        except OSError:
            continue
    return ""


def _version(pattern: re.Pattern[str], text: str) -> tuple[int, ...] | None:
    found = pattern.search(text)
    if found is None:
        return None
    numbers = tuple(int(number) for number in found[1].split("."))
    # Java called itself 1.8 before 9.
    return numbers[1:] if numbers[0] == 1 and len(numbers) > 1 else numbers


def _missing(subject: Subject) -> Iterator[Finding]:
    for look in (find_libjvm, find_launcher):
        try:
            look(subject.environ)
        except HadoopNotFoundError as error:
            hint = error.hint or "install Hadoop's client and a Java 17 or 21 runtime"
            message = f"{error.message}; plan, apply, check and mv need it, the KMS does not"
            yield finding(Severity.INFO, Rule.HADOOP_MISSING, _THIS, message, hint, error.command)
