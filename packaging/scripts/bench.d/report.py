"""The benchmark's tables, in Markdown, and whether the goals were met. What was not measured says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import zone_creation
from figures import NOT_MEASURED, Spread, cell, markdown_table, spread_of, times
from kms_load import EEKS_PER_KEY, GENERATE_COUNT, KEY_LENGTH_BITS, KEYS
from kms_servers import JAVA, RINGFENCE
from throughput import CONNECTIONS, KmsFigures, Samples

_OPERATIONS = {"decrypt": "decrypt one EEK", "generate": f"generate {GENERATE_COUNT} EEKs"}


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure that the project promises. `met` is None when it was not measured."""

    what: str
    wanted: str
    measured: str
    met: bool | None


def render(
    machine: Sequence[tuple[str, str]],
    kms: KmsFigures | None,
    zones: zone_creation.ZoneFigures | None,
    goals: Sequence[Goal] | None,
) -> str:
    """The whole report. Without goals it is that of a smoke run, and says so."""
    parts = [
        "### Machine",
        markdown_table(("", ""), machine),
        "### Key servers",
        _kms_text(kms),
        _kms_table(kms),
        _memory_table(kms),
        "### Making zones, a key for each",
        "Seconds of wall clock a zone, from the start of the command to its end, JVM starts included; least / median / "
        "most. The shell loop is `hadoop key create`, `hdfs dfs -mkdir`, `hdfs crypto -createZone`.",
        _zone_table(zones),
    ]
    if goals is None:
        parts.insert(0, "**A smoke run: too short, the Java KMS not warm. Figures not to be quoted.**")
    else:
        parts += [
            "### Goals",
            markdown_table(("goal", "wanted", "measured", "met"), [_goal_row(goal) for goal in goals]),
        ]
    return "\n\n".join(parts)


def goals_of(kms: KmsFigures | None, zones: zone_creation.ZoneFigures | None) -> list[Goal]:
    """What was promised, against what was measured."""
    return [*(_kms_goal(kms, operation) for operation in _OPERATIONS), *_zone_goals(zones)]


def _kms_text(kms: KmsFigures | None) -> str:
    audited = f"{kms.audited_requests:,}" if kms else NOT_MEASURED
    return (
        f"Closed loop of wrk over loopback, {CONNECTIONS} kept-alive connections, the Java client's headers and a "
        f"signed cookie, {KEYS} keys of {KEY_LENGTH_BITS} bits, {KEYS * EEKS_PER_KEY:,} EEKs made before. Both servers "
        "in their default configuration, warmed until their CPU time stopped falling, rounds interleaved. CPU time is "
        "that of all the server's processes; least / median / most of the rounds. The ratio is that of the leasts, "
        f"then of the medians. Lines in Ringfence's audit log, checked against the requests: {audited}."
    )


def _kms_table(kms: KmsFigures | None) -> str:
    head = ("operation", "measure", RINGFENCE, JAVA, "Java KMS needs")
    rows: list[tuple[object, ...]] = []
    for operation, label in _OPERATIONS.items():
        ours, java = _samples(kms, operation, RINGFENCE), _samples(kms, operation, JAVA)
        ratio = times(java.cpu, ours.cpu)
        rows += [
            (label, "CPU µs a request", ours.cpu, java.cpu, ratio),
            ("", "requests a CPU-second", ours.per_cpu_second, java.per_cpu_second, ""),
            ("", "requests a second", spread_of(ours.per_s), spread_of(java.per_s), ""),
            ("", "latency p50 ms", spread_of(ours.p50_ms), spread_of(java.p50_ms), ""),
            ("", "latency p99 ms", spread_of(ours.p99_ms), spread_of(java.p99_ms), ""),
            ("", "requests to warm up", ours.warmed_with or None, java.warmed_with or None, ""),
        ]
    return markdown_table(head, rows)


def _memory_table(kms: KmsFigures | None) -> str:
    rows: list[tuple[object, ...]] = []
    for name in (RINGFENCE, JAVA):
        memory = kms.memory.get(name) if kms else None
        rows.append(
            (name, *((memory.processes, memory.at_start_mib, memory.after_load_mib) if memory else (None,) * 3))
        )
    return markdown_table(("server", "processes", "MiB at start", "MiB after the load"), rows)


def _zone_table(zones: zone_creation.ZoneFigures | None) -> str:
    rows: list[tuple[object, ...]] = []
    for kms in ("ringfence", "stock"):
        label = RINGFENCE if kms == "ringfence" else JAVA
        shell = [sample for sample in zones.shell if sample.kms == kms] if zones else []
        applies = [sample for sample in zones.apply if sample.kms == kms] if zones else []
        rows += _zone_rows("shell loop", label, shell)
        rows += _zone_rows("`ringfence apply`", label, applies)
    return markdown_table(("how", "KMS", "zones at a time", "keys there before", "seconds a zone"), rows)


def _zone_rows(
    how: str, kms: str, samples: Sequence[zone_creation.ShellSample | zone_creation.ApplySample]
) -> list[tuple[object, ...]]:
    if not samples:
        return [(how, kms, None, None, None)]
    rows: list[tuple[object, ...]] = []
    for size in sorted({sample.zones for sample in samples}):
        same = [sample for sample in samples if sample.zones == size]
        keys = ", ".join(f"{sample.keys_before:,}" for sample in same)
        rows.append((how, kms, size, keys, spread_of([sample.seconds_per_zone for sample in same])))
    return rows


def _kms_goal(kms: KmsFigures | None, operation: str) -> Goal:
    ours, java = _samples(kms, operation, RINGFENCE).cpu, _samples(kms, operation, JAVA).cpu
    met = java.minimum > ours.minimum and java.median > ours.median if ours and java else None
    what = f"{_OPERATIONS[operation]}: CPU time of the Java KMS over ours"
    return Goal(what, "over 1", times(java, ours), met)


def _zone_goals(zones: zone_creation.ZoneFigures | None) -> list[Goal]:
    shell = _seconds(zones.shell, None) if zones else None
    by_size = {size: _seconds(zones.apply, size) if zones else None for size in (100, 200, 1000)}
    goals = []
    for size, wanted in ((200, 60), (1000, 100)):
        spread = by_size[size]
        ratio = shell.median / spread.median if shell and spread else None
        what = f"{size:,} zones: the shell loop's time a zone over that of apply, same KMS"
        goals.append(Goal(what, f"at least {wanted}", cell(ratio), None if ratio is None else ratio >= wanted))
    few, many = by_size[100], by_size[1000]
    growth = many.median / few.median if few and many else None
    what = "apply: time a zone at 1,000 over that at 100"
    goals.append(Goal(what, "at most 1.3", cell(growth), None if growth is None else growth <= 1.3))
    return goals


def _seconds(
    samples: Sequence[zone_creation.ShellSample | zone_creation.ApplySample], zones: int | None
) -> Spread | None:
    return spread_of(
        [
            sample.seconds_per_zone
            for sample in samples
            if sample.kms == "ringfence" and (zones is None or sample.zones == zones)
        ]
    )


def _goal_row(goal: Goal) -> tuple[str, str, str, str]:
    met = NOT_MEASURED if goal.met is None else "yes" if goal.met else "NO"
    return goal.what, goal.wanted, goal.measured, met


def _samples(kms: KmsFigures | None, operation: str, server: str) -> Samples:
    return kms.samples.get(operation, {}).get(server, Samples()) if kms else Samples()
