from __future__ import annotations

import resource
from pathlib import Path

import pytest

from ringfence_agent.doctor import machine
from ringfence_agent.doctor.subject import Subject
from ringfence_zones import kernel_clock
from ringfence_zones.findings import Rule, Severity
from ringfence_zones.hadoop_conf import HadoopConf
from ringfence_zones.named_checks import NotChecked

HERE = Subject(Path("/nowhere"), "this machine", {})
STOCK = Subject(Path("/nowhere"), "kms-site.xml", {}, stock=HadoopConf({}))


def swaps(directory: Path, *lines: str) -> None:
    (directory / "swaps").write_text("\n".join(["Filename Type Size Used Priority", *lines]) + "\n")


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine, "PROC", tmp_path)
    monkeypatch.setattr(machine, "SYS_BLOCK", tmp_path / "block")
    return tmp_path


def test_the_kernel_says_how_its_clock_is_kept() -> None:
    unsynchronised, error_us = kernel_clock.read_clock()
    assert isinstance(unsynchronised, bool)
    assert 0 <= error_us <= 16_000_000  # NTP_PHASE_LIMIT


@pytest.mark.parametrize(("state", "expected"), [((True, 0), 1), ((False, 5_000_000), 1), ((False, 20_000), 0)])
def test_a_clock_that_nothing_keeps_right_is_found(
    monkeypatch: pytest.MonkeyPatch, state: tuple[bool, int], expected: int
) -> None:
    monkeypatch.setattr(kernel_clock, "read_clock", lambda: state)
    found = list(machine.check_clock(HERE))
    assert [each.rule for each in found] == [Rule.CLOCK_UNSYNCHRONISED] * expected


@pytest.mark.parametrize(("hard", "expected"), [(4096, 1), (65536, 0), (resource.RLIM_INFINITY, 0)])
def test_a_low_limit_of_open_files_is_found(monkeypatch: pytest.MonkeyPatch, hard: int, expected: int) -> None:
    monkeypatch.setattr(machine.resource, "getrlimit", lambda _: (1024, hard))
    assert len(list(machine.check_open_files(HERE))) == expected


def test_swap_in_clear_is_found_and_other_swap_is_not(proc: Path) -> None:
    for name, uuid in (("dm-0", "CRYPT-PLAIN-swap"), ("dm-1", "LVM-x")):
        (proc / "block" / name / "dm").mkdir(parents=True)
        (proc / "block" / name / "dm" / "uuid").write_text(uuid)
    swaps(
        proc, "/dev/sda2 partition 1 0 -2", "/dev/dm-0 partition 1 0 -3", "/dev/dm-1 partition 1 0 -4", "/dev/zram0 x"
    )
    assert [each.path for each in machine.check_swap(HERE)] == ["/dev/sda2", "/dev/dm-1"]
    swaps(proc)
    assert not list(machine.check_swap(HERE))


def test_swap_that_cannot_be_looked_at_is_not_called_fine(proc: Path) -> None:
    with pytest.raises(NotChecked, match="swaps"):
        list(machine.check_swap(HERE))


@pytest.mark.parametrize(
    ("limit", "pattern", "expected"), [(0, "core", 0), (0, "|/usr/lib/handler %P", 1), (-1, "core", 1)]
)
def test_a_core_of_a_stock_kms_is_found(
    proc: Path, monkeypatch: pytest.MonkeyPatch, limit: int, pattern: str, expected: int
) -> None:
    (proc / "sys/kernel").mkdir(parents=True)
    (proc / "sys/kernel/core_pattern").write_text(pattern)
    monkeypatch.setattr(machine.resource, "getrlimit", lambda _: (limit, limit))
    assert len(list(machine.check_core_dumps(STOCK))) == expected
    # Ringfence's own KMS makes itself undumpable.
    assert not list(machine.check_core_dumps(HERE))


def test_missing_hadoop_and_java_are_worth_knowing_and_no_more(tmp_path: Path) -> None:
    found = list(machine.check_hadoop(Subject(tmp_path, "x", {"PATH": str(tmp_path)})))
    assert [each.severity for each in found] == [Severity.INFO, Severity.INFO]


@pytest.mark.parametrize(
    ("java", "hadoop", "untested"),
    [
        ("17.0.15", "3.4.2", []),
        ("21.0.7", "3.3.6-amzn-4", []),
        ("1.8.0_452", "3.5.0", ["Java 8 "]),
        ("11.0.27", "3.1.4", ["Java 11 ", "Hadoop 3.1.4 "]),
        ("17", "3.6.0", ["Hadoop 3.6.0 "]),
    ],
)
def test_versions_that_this_release_is_not_tested_with_are_found(
    tmp_path: Path, java: str, hadoop: str, untested: list[str]
) -> None:
    home, launcher = tmp_path / "java", tmp_path / "hadoop/bin/hadoop"
    library = home / ("jre/lib/amd64/server/libjvm.so" if java.startswith("1.8") else "lib/server/libjvm.so")
    for file in (library, launcher):
        file.parent.mkdir(parents=True)
        file.touch()
    (home / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{java}"\n')
    launcher.write_text(f"#!/bin/sh\necho /x/hadoop-common-{hadoop}.jar:/x/hadoop-hdfs-client-{hadoop}.jar\n")
    launcher.chmod(0o755)
    environ = {"JAVA_HOME": str(home), "HADOOP_HOME": str(tmp_path / "hadoop"), "PATH": "/usr/bin:/bin"}
    found = list(machine.check_hadoop(Subject(tmp_path, "x", environ)))
    assert [each.rule for each in found] == [Rule.HADOOP_UNTESTED] * len(untested)
    assert all(each.message.startswith(start) for each, start in zip(found, untested, strict=True))
