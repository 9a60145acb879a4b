"""The benchmark's tables, in Markdown. What was not measured says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import zone_creation
from figures import NOT_MEASURED, cell, markdown_table, number, spread_of, times
from flow_rules import WITH, WITHOUT, FlowFigures
from goals import Goal
from kms_figures import KmsFigures
from kms_load import EEKS_PER_KEY, GENERATE_COUNT, KEY_LENGTH_BITS, KEYS
from kms_servers import JAVA, RINGFENCE
from many_keys import ManyKeys
from move_checks import RATE_PER_S, MoveChecks
from protectors import ProtectorFigures
from reverts import Reverts
from throughput import CONNECTIONS, PLAIN, Samples, Throughput
from transfers import FILES, Transfers
from transit import TransitFigures

_OPERATIONS = {
    "decrypt": "decrypt one EEK",
    "metadata": "metadata of a key",
    "generate": f"generate {GENERATE_COUNT} EEKs",
    "inline": "decrypt, `user.name` and no cookie",
}


def render(
    machine: Sequence[tuple[str, str]],
    kms: KmsFigures,
    zones: zone_creation.ZoneFigures | None,
    moves: MoveChecks | None,
    reverts: Reverts | None,
    transfers: Transfers | None,
    goals: Sequence[Goal] | None,
) -> str:
    """The whole report. Without goals it is that of a smoke run, and says so."""
    parts = [
        "### Machine",
        markdown_table(("", ""), machine),
        "### Key servers, one core each",
        _kms_text(kms),
        _throughput_table(kms),
        _latency_table(kms),
        _memory_table(kms.plain),
        "### Starting",
        _startup_table(kms),
        "### Two workers",
        _worker_text(kms),
        "### Many keys",
        _keys_table(kms.keys, (RINGFENCE, JAVA), "server"),
        "### Who seals the keys",
        "Ringfence, each key opened once after the restart. Vault and AWS KMS are asked on this machine: no network.",
        _keys_table(kms.protectors.keys if kms.protectors else None, _protectors(kms), "sealed by"),
        "Decrypts. Warm: keys in memory, all servers there at once and their rounds in turn; the ratio is that of the "
        f"leasts. Cold: a start with no key in memory and {CONNECTIONS} clients at once for each of the keys.",
        _protectors_table(kms.protectors, _protectors(kms)),
        "### Flow rules",
        "Decrypts of files that were opened before, by one session that has flows between all zones; keys in memory, "
        "rounds in turn. The ratio is that of the leasts.",
        _flow_table(kms.flows),
        "### Custody transit",
        "Data keys opened a second at 64 clients by a real Vault on this machine: through Ringfence, one worker on one "
        "core, and by one call of hvac each from that core. Rounds interleaved; least / median / most.",
        _transit_table(kms.transit),
        "### Making zones, a key for each",
        "Seconds of wall clock a zone, from the start of the command to its end, JVM starts included; least / median / "
        "most. The shell loop is `hadoop key create`, `hdfs dfs -mkdir`, `hdfs crypto -createZone`.",
        _zone_table(zones),
        "### Asking the agent",
        "Move checks over its Unix socket, the agent and its Java child on one core, its loop looking at the cluster "
        f"all the time. A closed loop, then {RATE_PER_S} a second whatever comes back; least / median / most.",
        _move_table(moves),
        "### Renaming zone roots back",
        "Seconds from the answer to a rename of a zone's root until the root is back in its place, the agent on one "
        "core; least / median / most.",
        _revert_table(reverts),
        "### Transferring files between zones",
        f"{FILES} files of 1 MiB on one DataNode, seconds of wall clock, in turns: from the request to the signed "
        "receipt; DistCp in local mode; DistCp with the SHA-256 of both sides' plain text after it; least / median / "
        "most.",
        _transfer_table(transfers),
    ]
    if goals is None:
        parts.insert(0, "**A smoke run: too short, the Java KMS not warm. Figures not to be quoted.**")
    else:
        parts += [
            "### Goals",
            markdown_table(("goal", "wanted", "measured", "met"), [_goal_row(goal) for goal in goals]),
        ]
    return "\n\n".join(parts)


def _kms_text(kms: KmsFigures) -> str:
    audited = f"{kms.audited_requests:,}" if kms.audited_requests else NOT_MEASURED
    return (
        f"Closed loop of wrk over loopback, {CONNECTIONS} kept-alive connections, the Java client's headers and a "
        f"signed cookie, {KEYS} keys of {KEY_LENGTH_BITS} bits, {KEYS * EEKS_PER_KEY:,} EEKs made before. Both servers "
        "in their default configuration, warmed until their CPU time stopped falling, rounds interleaved. CPU time is "
        "that of all the server's processes; least / median / most of the rounds. The ratio is that of the leasts, "
        f"then of the medians. Lines in Ringfence's audit log, checked against the requests: {audited}."
    )


def _throughput_table(kms: KmsFigures) -> str:
    rows = [row for operation in PLAIN for row in _operation_rows(_OPERATIONS[operation], kms.plain, operation)]
    rows += _operation_rows("decrypt over TLS 1.3, RSA-2048", kms.tls, "decrypt")
    rows += _operation_rows("decrypt, key cache off", kms.uncached, "decrypt")
    return markdown_table(("operation", "measure", RINGFENCE, JAVA, "Java KMS needs"), rows)


def _operation_rows(label: str, figures: Throughput | None, operation: str) -> list[tuple[object, ...]]:
    by_server: Mapping[str, Samples] = figures.samples.get(operation, {}) if figures else {}
    ours, java = by_server.get(RINGFENCE, Samples()), by_server.get(JAVA, Samples())
    return [
        (label, "CPU µs a request", ours.cpu, java.cpu, times(java.cpu, ours.cpu)),
        ("", "requests a CPU-second", ours.per_cpu_second, java.per_cpu_second, ""),
        ("", "requests a second", ours.rate, java.rate, ""),
        ("", "closed-loop p50 ms", spread_of(ours.p50_ms), spread_of(java.p50_ms), ""),
        ("", "closed-loop p99 ms", spread_of(ours.p99_ms), spread_of(java.p99_ms), ""),
        ("", "requests to warm up", ours.warmed_with or None, java.warmed_with or None, ""),
    ]


def _latency_table(kms: KmsFigures) -> str:
    ours, java = (kms.latency[name] if kms.latency else None for name in (RINGFENCE, JAVA))
    rate = f"{number(ours.rate_per_s)} decrypts a second" if ours else "a fixed rate"
    rows = [
        (f"p50 ms at {rate}", ours.p50_ms if ours else None, java.p50_ms if java else None),
        (f"p99 ms at {rate}", ours.p99_ms if ours else None, java.p99_ms if java else None),
    ]
    return markdown_table(("half the Java KMS's capacity, fixed arrival rate", RINGFENCE, JAVA), rows)


def _memory_table(plain: Throughput | None) -> str:
    rows: list[tuple[object, ...]] = []
    for name in (RINGFENCE, JAVA):
        memory = plain.memory.get(name) if plain else None
        rows.append(
            (name, *((memory.processes, memory.at_start_mib, memory.after_load_mib) if memory else (None,) * 3))
        )
    return markdown_table(("server", "processes", "MiB at start", "MiB after the load"), rows)


def _transit_table(found: TransitFigures | None) -> str:
    rows: list[tuple[object, ...]] = [
        (found.server if found else "a real Vault", "opened a second", found.rate if found else None,
         found.one_call_rate if found else None, times(found.rate, found.one_call_rate) if found else None),
        ("", "closed-loop p50 ms", spread_of(found.p50_ms) if found else None, "", ""),
        ("", "closed-loop p99 ms", spread_of(found.p99_ms) if found else None, "", ""),
    ]  # fmt: skip
    return markdown_table(("server", "measure", RINGFENCE, "one call each", "Ringfence opens"), rows)


def _startup_table(kms: KmsFigures) -> str:
    rows: list[tuple[object, ...]] = []
    for name in (RINGFENCE, JAVA):
        startup = kms.startup[name] if kms.startup else None
        rows.append(
            (name, startup.ready, spread_of(startup.first_second), spread_of(startup.settled))
            if startup
            else (name, None, None, None)
        )
    return markdown_table(
        ("server", "s to the first answer", "decrypts in the first second", "a second, after it"), rows
    )


def _worker_text(kms: KmsFigures) -> str:
    head = ("workers", f"generate {GENERATE_COUNT} a second", "CPU µs a decrypt")
    workers = kms.workers
    rows = [
        (count, workers.generate_per_s[count], workers.decrypt_cpu_us[count]) if workers else (count, None, None)
        for count in (1, 2)
    ]
    shares = " / ".join(f"{share:.0%}" for share in workers.shares) if workers else NOT_MEASURED
    return f"{markdown_table(head, rows)}\n\nDecrypts by worker, of 64 connections that the kernel spread: {shares}."


def _keys_table(measured: Mapping[str, ManyKeys] | None, names: Sequence[str], what: str) -> str:
    rows: list[tuple[object, ...]] = []
    for name in names:
        keys = measured[name] if measured else None
        rows.append(
            (name, keys.keys, keys.first_create_ms, keys.last_create_ms, keys.cold_touch_s * 1e3)
            if keys
            else (name, None, None, None, None)
        )
    head = (
        what,
        "keys",
        "ms a create, the first",
        "the last",
        f"ms a key for {GENERATE_COUNT} EEKs, after a restart",
    )
    return markdown_table(head, rows)


def _protectors(kms: KmsFigures) -> Sequence[str]:
    return tuple(kms.protectors.keys) if kms.protectors else (NOT_MEASURED,)


def _protectors_table(found: ProtectorFigures | None, names: Sequence[str]) -> str:
    rows: list[tuple[object, ...]] = []
    for name in names:
        if found is None:
            rows.append((name, *(None,) * 5))
            continue
        cold, warm, ratio = found.cold[name], found.warm[name].cpu, found.warm_ratio(name)
        rows.append((name, warm, "" if ratio is None else ratio, cold.first_per_s, cold.then_per_s,
                     "" if cold.openings is None else cold.openings))  # fmt: skip
    head = ("sealed by", "CPU µs a warm decrypt", "times the file's", "decrypts a second from a cold start", "then",
            "times the protector was asked")  # fmt: skip
    return markdown_table(head, rows)


def _flow_table(found: FlowFigures | None) -> str:
    rows = [
        (name, found.warm[name].cpu if found else None, found.warm[name].rate if found else None)
        for name in (WITHOUT, WITH)
    ]
    ratio = ("with over without", found.ratio if found else None, "")
    return markdown_table(("", "CPU µs a decrypt", "decrypts a second"), [*rows, ratio])


def _zone_table(zones: zone_creation.ZoneFigures | None) -> str:
    rows: list[tuple[object, ...]] = []
    for kms in ("ringfence", "stock"):
        label = RINGFENCE if kms == "ringfence" else JAVA
        shell = [sample for sample in zones.shell if sample.kms == kms] if zones else []
        applies = [sample for sample in zones.apply if sample.kms == kms] if zones else []
        rows += _zone_rows("shell loop", label, shell)
        rows += _zone_rows("`ringfence apply`", label, applies)
    return markdown_table(("how", "KMS", "zones at a time", "keys there before", "seconds a zone"), rows)


def _move_table(moves: MoveChecks | None) -> str:
    row = (moves.rate_per_s, moves.p50_ms, moves.p99_ms, moves.cycles, moves.agent_mib) if moves else (None,) * 5
    head = ("checks a second", "p50, ms", "p99, ms", "looks meanwhile", "memory with Java, MiB")
    return markdown_table(head, [row])


def _revert_table(reverts: Reverts | None) -> str:
    row = (reverts.away_s, reverts.agent_mib) if reverts else (None,) * 2
    return markdown_table(("seconds away", "memory with Java, MiB"), [row])


def _transfer_table(transfers: Transfers | None) -> str:
    row = (transfers.ours_s, transfers.distcp_s, transfers.distcp_verified_s) if transfers else (None,) * 3
    return markdown_table(("`ringfence transfer`", "DistCp", "DistCp and checksums"), [row])


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


def _goal_row(goal: Goal) -> tuple[str, str, str, str]:
    met = NOT_MEASURED if goal.met is None else "yes" if goal.met else "NO"
    return goal.what, goal.wanted, cell(goal.measured), met
