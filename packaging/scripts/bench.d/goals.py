"""What the project promises of its speed, against what was measured. What was not measured meets no goal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import zone_creation
from figures import Spread, cell, number, spread_of
from kms_figures import KmsFigures
from kms_load import GENERATE_COUNT
from kms_servers import JAVA, RINGFENCE
from move_checks import RATE_PER_S, MoveChecks
from protectors import FILE
from reverts import Reverts
from throughput import Throughput
from transfers import FILES, Transfers


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure that the project promises. `met` is None when it was not measured."""

    what: str
    wanted: str
    measured: str
    met: bool | None


def goals_of(
    kms: KmsFigures,
    zones: zone_creation.ZoneFigures | None,
    moves: MoveChecks | None,
    reverts: Reverts | None,
    transfers: Transfers | None,
) -> list[Goal]:
    """Every goal, in the order of the report's tables."""
    return [
        *_throughput_goals(kms),
        *_start_goals(kms),
        *_worker_goals(kms),
        *_key_goals(kms),
        *_protector_goals(kms),
        _transit_goal(kms),
        _flow_goal(kms),
        *_zone_goals(zones),
        *_move_goals(moves),
        _revert_goal(reverts),
        _transfer_goal(transfers),
    ]


def _throughput_goals(kms: KmsFigures) -> list[Goal]:
    ours, inline = _cpu(kms.plain, "decrypt", RINGFENCE), _cpu(kms.plain, "inline", RINGFENCE)
    return [
        _cpu_goal("decrypt", 6, kms.plain, "decrypt"),
        _cpu_goal("metadata of a key", 4, kms.plain, "metadata"),
        _cpu_goal(f"generate {GENERATE_COUNT} EEKs", 40, kms.plain, "generate"),
        _cpu_goal("decrypt over TLS", 4, kms.tls, "decrypt"),
        _at_most(
            "decrypt with user.name instead of a cookie: our CPU time over that with one", 1.5, _over(inline, ours)
        ),
        _at_most(
            "decrypt with the key cache off: our CPU time over that with it",
            2,
            _over(_cpu(kms.uncached, "decrypt", RINGFENCE), ours),
        ),
        _latency_goal(kms),
        _memory_goal(kms.plain),
    ]


def _cpu_goal(what: str, wanted: float, figures: Throughput | None, operation: str) -> Goal:
    java, ours = _cpu(figures, operation, JAVA), _cpu(figures, operation, RINGFENCE)
    return _at_least(f"{what}: CPU time of the Java KMS over ours", wanted, _over(java, ours))


def _latency_goal(kms: KmsFigures) -> Goal:
    what = "p99 at half the Java KMS's capacity: the Java KMS's over ours"
    if kms.latency is None:
        return _at_least(what, 2, None)
    java, ours = kms.latency[JAVA].p99_ms, kms.latency[RINGFENCE].p99_ms
    return _at_least(what, 2, java.median / ours.median if java and ours else None)


def _memory_goal(plain: Throughput | None) -> Goal:
    memory = plain.memory if plain else None
    ratio = memory[JAVA].after_load_mib / memory[RINGFENCE].after_load_mib if memory else None
    return _at_least("memory after the load: the Java KMS over our one worker and its supervisor", 3, ratio)


def _protector_goals(kms: KmsFigures) -> list[Goal]:
    found = kms.protectors
    remote = [name for name in found.keys if name != FILE] if found else ["another protector"]
    ratios = [found.warm_ratio(name) if found else None for name in remote]
    cold = [found.cold[name] if found else None for name in remote]
    asked = [each.openings / each.keys if each and each.openings is not None else None for each in cold]
    return [
        *(
            _at_most(f"decrypt, sealed by {name}: CPU time over that with a root key file", 1.1, ratio)
            for name, ratio in zip(remote, ratios, strict=True)
        ),
        *(
            _at_most(f"a cold start into full load, sealed by {name}: times it was asked for each key", 1, ratio)
            for name, ratio in zip(remote, asked, strict=True)
        ),
    ]


def _transit_goal(kms: KmsFigures) -> Goal:
    rates = (kms.transit.rate, kms.transit.one_call_rate) if kms.transit else (None, None)
    what = "custody transit at 64 clients: data keys opened a second over those by one call of hvac each"
    return _at_least(what, 10, _medians(*rates))


def _flow_goal(kms: KmsFigures) -> Goal:
    ratio = kms.flows.ratio if kms.flows else None
    return _at_most("decrypt with flow rules enforced: CPU time over that without", 1.1, ratio)


def _start_goals(kms: KmsFigures) -> list[Goal]:
    startup = kms.startup
    java, ours = (startup[name].ready if startup else None for name in (JAVA, RINGFENCE))
    share = startup[RINGFENCE].first_share if startup else None
    return [
        _at_least("time to the first answer: the Java KMS over ours", 8, _over(java, ours)),
        _at_least("our rate in the first second over that of the seconds after", 0.9, share.median if share else None),
    ]


def _worker_goals(kms: KmsFigures) -> list[Goal]:
    generate = kms.workers.generate_per_s if kms.workers else {}
    decrypt = kms.workers.decrypt_cpu_us if kms.workers else {}
    return [
        _at_least("generate: rate of two workers over that of one", 1.5, _medians(generate.get(2), generate.get(1))),
        _at_most(
            "decrypt: CPU time with two workers over that with one", 1.15, _medians(decrypt.get(2), decrypt.get(1))
        ),
    ]


def _key_goals(kms: KmsFigures) -> list[Goal]:
    ours, java = (kms.keys[name] if kms.keys else None for name in (RINGFENCE, JAVA))
    growth = ours.last_create_ms / ours.first_create_ms if ours else None
    touch = java.cold_touch_s / ours.cold_touch_s if ours and java else None
    count = f"{ours.keys:,}" if ours else "1,000"
    return [
        _at_most(f"creating the last of {count} keys over the first", 1.25, growth),
        _at_least("first EEKs of a key after a restart: seconds of the Java KMS over ours", 20, touch),
    ]


def _zone_goals(zones: zone_creation.ZoneFigures | None) -> list[Goal]:
    shell = _seconds(zones.shell, None) if zones else None
    by_size = {size: _seconds(zones.apply, size) if zones else None for size in (100, 200, 1000)}
    goals = [
        _at_least(
            f"{size:,} zones: the shell loop's time a zone over that of apply, same KMS",
            wanted,
            _medians(shell, by_size[size]),
        )
        for size, wanted in ((200, 60), (1000, 100))
    ]
    return [
        *goals,
        _at_most("apply: time a zone at 1,000 over that at 100", 1.3, _medians(by_size[1000], by_size[100])),
    ]


def _move_goals(moves: MoveChecks | None) -> list[Goal]:
    rate = moves.rate_per_s if moves else None
    p99 = moves.p99_ms if moves else None
    return [
        _at_least(
            "move checks a second over the Unix socket, the agent on one core", 2000, rate.median if rate else None
        ),
        _at_most(f"move check: p99 at {RATE_PER_S} a second while the loop looks, ms", 5, p99.median if p99 else None),
    ]


def _revert_goal(reverts: Reverts | None) -> Goal:
    away = reverts.away_s if reverts else None
    return _at_most("a zone root renamed away and back: seconds away", 1, away.median if away else None)


def _transfer_goal(transfers: Transfers | None) -> Goal:
    ours, theirs = (transfers.ours_s, transfers.distcp_verified_s) if transfers else (None, None)
    what = f"{FILES} files of 1 MiB between zones: DistCp and a checksum pass over a verified transfer, seconds"
    return _at_least(what, 3, _medians(theirs, ours))


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


def _cpu(figures: Throughput | None, operation: str, server: str) -> Spread | None:
    samples = figures.samples.get(operation, {}).get(server) if figures else None
    return samples.cpu if samples else None


def _over(larger: Spread | None, smaller: Spread | None) -> float | None:
    # Of the minima: what else the machine did only ever adds.
    return larger.minimum / smaller.minimum if larger and smaller else None


def _medians(larger: Spread | None, smaller: Spread | None) -> float | None:
    return larger.median / smaller.median if larger and smaller else None


def _at_least(what: str, wanted: float, ratio: float | None) -> Goal:
    return Goal(what, f"at least {number(wanted)}", cell(ratio), None if ratio is None else ratio >= wanted)


def _at_most(what: str, wanted: float, ratio: float | None) -> Goal:
    return Goal(what, f"at most {number(wanted)}", cell(ratio), None if ratio is None else ratio <= wanted)
