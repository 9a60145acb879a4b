"""The step itself: the policy, the wait, the application, and one status object of what became of it.

It may be run again at any time, also after it was killed: `apply` finishes what is missing. The key provider is looked
at once more on the connection that applies, so that nothing is made after it has changed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence_bootstrap.node.fetching import fetch
from ringfence_bootstrap.zones_step.expected_kms import ExpectedKms, asking
from ringfence_bootstrap.zones_step.waiting import REAL_CLOCK, Clock, Sight, wait_for_hdfs
from ringfence_zones.apply import ApplyResult, OnStep
from ringfence_zones.cli.apply import apply_policy, refusal_json, result_json
from ringfence_zones.cli.cluster import Cluster, open_cluster, open_hdfs
from ringfence_zones.cli.context import CommandContext
from ringfence_zones.cli.exits import error_json
from ringfence_zones.errors import (
    ConfigError,
    NameNodeUnavailableError,
    PlanRefusedError,
    RefusedError,
    RingfenceError,
    SafeModeError,
)
from ringfence_zones.findings import Rule
from ringfence_zones.plan import Plan
from ringfence_zones.policy import Policy, parse_policy

STATUS_SCHEMA = 1
APPLIED, UNCHANGED, INCOMPLETE, REFUSED, FAILED = "applied", "unchanged", "incomplete", "refused", "failed"
Watch = Callable[[Plan], AbstractContextManager[OnStep]]


@dataclass(frozen=True, slots=True)
class ZonesStep:
    """What the step is told. `source` is a path or an s3:// address; `sha256` is what the policy has to be, if said."""

    source: str
    sha256: str | None
    kms: ExpectedKms
    wait_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended: `state`, and the status object that says everything."""

    state: str
    status: dict[str, Any]
    error: RingfenceError | None
    plan: Plan | None = None
    result: ApplyResult | None = None


def run_zones_step(
    context: CommandContext,
    step: ZonesStep,
    say: Callable[[str], None],
    *,
    watch: Watch = lambda _plan: nullcontext(lambda _boundary: None),
    clock: Clock = REAL_CLOCK,
) -> Outcome:
    """Never raises an error of ours: what went wrong is in the outcome."""
    began = clock.now()
    facts: dict[str, Any] = {"policy": {"source": step.source}, "kms": {"expected": str(step.kms)}}
    try:
        policy, digest = _read_policy(step)
        facts["policy"] |= {"sha256": digest, "zones": len(policy.zones)}
        sight = wait_for_hdfs(lambda: _look(context, step.kms), step.wait_s, say, clock)
        facts["kms"]["found"] = sight.provider
        facts["waited_s"] = round(clock.now() - began, 1)
        say(f"HDFS is ready, and its KMS is {sight.provider}")
        with open_cluster(context) as cluster:
            _look_again(cluster, step.kms)
            plan, result = apply_policy(context, cluster, policy, watch)
    except PlanRefusedError as error:
        return _outcome(REFUSED, facts | {"apply": refusal_json(error)}, error)
    except RefusedError as error:
        return _outcome(REFUSED, facts, error)
    except RingfenceError as error:
        return _outcome(FAILED, facts, error)
    facts["apply"] = result_json(result, plan)
    state = INCOMPLETE if not result.is_complete else APPLIED if plan.actions else UNCHANGED
    done = _outcome(state, facts, None)
    return Outcome(state, done.status, None, plan, result)


def _read_policy(step: ZonesStep) -> tuple[Policy, str]:
    """Raises InstallError when it cannot be fetched, ConfigError for another one, PolicyError for a wrong one."""
    content = fetch(step.source, None)
    digest = hashlib.sha256(content).hexdigest()
    if step.sha256 is not None and digest != step.sha256:
        raise ConfigError(
            f"{step.source} is not the policy that was checked before the launch: its SHA-256 is {digest}",
            hint="submit the step again with the SHA-256 of the policy that is meant",
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{step.source} is not UTF-8 (byte {error.start})") from error
    return parse_policy(text, Path(step.source).name), digest


def _look(context: CommandContext, kms: ExpectedKms) -> Sight:
    provider = None
    try:
        with open_hdfs(context) as hdfs:
            if hdfs.is_in_safe_mode():
                return Sight("the NameNode is in safe mode", None)
            provider = hdfs.key_provider_uri()
            difference = kms.find_difference(provider, asking(hdfs.user, hdfs.access))
    except (NameNodeUnavailableError, SafeModeError) as error:
        return Sight(error.message, None)
    return Sight(difference, provider, is_refusal=difference is not None)


def _look_again(cluster: Cluster, kms: ExpectedKms) -> None:
    provider = cluster.hdfs.key_provider_uri()
    difference = kms.find_difference(provider, asking(cluster.hdfs.user, cluster.hdfs.access))
    if difference is not None:
        raise RefusedError(f"{difference}; no key and no zone was made", Rule.NODE_PROVIDER)


def _outcome(state: str, facts: dict[str, Any], error: RingfenceError | None) -> Outcome:
    status: dict[str, Any] = {
        "schema": STATUS_SCHEMA,
        "step": "zones",
        "state": state,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **facts,
    }
    return Outcome(state, status | ({"error": error_json(error)} if error is not None else {}), error)
