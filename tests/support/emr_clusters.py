"""The clusters and steps of the double of EMR: a state machine that goes on with a clock, and really ends.

    STARTING --30 s--> BOOTSTRAPPING --30 s--> RUNNING (steps) --> WAITING, or TERMINATING --10 s--> TERMINATED

A cluster fails where EMR fails it: the service role that may not use the key of EBS volumes (while STARTING), the
instance role that may not use the key of local disks, or a bootstrap action that was told to fail (BOOTSTRAPPING). A
step of command-runner.jar is really run, as a process on this machine, and ends as that process ends; any other takes
ten seconds of the clock and completes, unless it was told to fail.
"""

from __future__ import annotations

import os
import secrets
import string
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_STARTING_S, _BOOTSTRAPPING_S, _STEP_S, _TERMINATING_S = 30.0, 30.0, 10.0, 10.0
_ALPHABET = string.ascii_uppercase + string.digits
_RUNNER = "command-runner.jar"
DOWN = ("TERMINATED", "TERMINATED_WITH_ERRORS")


def new_id(prefix: str) -> str:
    """`j-2AXXXXXXGAPLF`, and so for steps, groups and instances."""
    return f"{prefix}-" + "".join(secrets.choice(_ALPHABET) for _ in range(13))


class Clock:
    """Seconds since the epoch, which tests advance."""

    def __init__(self) -> None:
        self._now = time.time()

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds


@dataclass
class Step:
    """One step. `config` is what the request said."""

    config: Mapping[str, Any]
    created: float
    step_id: str = field(default_factory=lambda: new_id("s"))
    state: str = "PENDING"
    started: float | None = None
    ended: float | None = None
    reason: str = ""
    fails_with: str | None = None
    process: subprocess.Popen[bytes] | None = None
    output: Any = None

    @property
    def on_failure(self) -> str:
        return str(self.config.get("ActionOnFailure", "TERMINATE_CLUSTER"))

    def start(self, now: float) -> None:
        self.state, self.started = "RUNNING", now
        jar = self.config["HadoopJarStep"]
        if jar["Jar"] == _RUNNER:
            self.output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the double
            environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8"}
            try:
                self.process = subprocess.Popen(
                    list(jar.get("Args", [])),
                    stdin=subprocess.DEVNULL,
                    stdout=self.output,
                    stderr=self.output,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                self.fails_with = str(error)

    def is_over(self, now: float) -> bool:
        """Whether it has ended by now; then `state` says how."""
        assert self.started is not None
        if self.process is not None:
            code = self.process.poll()
            if code is None:
                return False
            if code != 0:
                self.fails_with = self.fails_with or f"exit code {code}"
            self.ended = now
        elif now - self.started < _STEP_S and self.fails_with is None:
            return False
        else:
            self.ended = min(now, self.started + _STEP_S)
        self.state = "COMPLETED" if self.fails_with is None else "FAILED"
        self.reason = self.fails_with or ""
        return True

    def stop(self, state: str, now: float, reason: str) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.state, self.ended, self.reason = state, now, reason

    def said(self) -> str:
        """Both outputs of its process."""
        if self.output is None:
            return ""
        self.output.seek(0)
        return str(self.output.read().decode(errors="replace"))

    def describe(self) -> dict[str, Any]:
        jar = self.config["HadoopJarStep"]
        times = {"CreationDateTime": self.created, "StartDateTime": self.started, "EndDateTime": self.ended}
        status: dict[str, Any] = {
            "State": self.state,
            "StateChangeReason": {},
            "Timeline": {name: value for name, value in times.items() if value is not None},
        }
        if self.state == "FAILED":
            status["FailureDetails"] = {"Reason": "Unknown Error.", "Message": self.reason}
        properties = {each["Key"]: each.get("Value", "") for each in jar.get("Properties", [])}
        return {
            "Id": self.step_id,
            "Name": self.config["Name"],
            "Config": {"Jar": jar["Jar"], "Properties": properties, "Args": list(jar.get("Args", []))},
            "ActionOnFailure": self.on_failure,
            "Status": status,
        }


@dataclass
class Cluster:
    """One cluster. `may_start` and `may_bootstrap` say what keeps it from going on, in EMR's place."""

    request: Mapping[str, Any]
    created: float
    may_start: Callable[[], str | None]
    may_bootstrap: Callable[[], str | None]
    cluster_id: str = field(default_factory=lambda: new_id("j"))
    state: str = "STARTING"
    since: float = 0.0
    ready: float | None = None
    ended: float | None = None
    code: str = ""
    message: str = ""
    next_state: str = "TERMINATED"
    steps: list[Step] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    error_details: list[dict[str, Any]] = field(default_factory=list)
    failing_action: tuple[int, int] | None = None
    is_protected: bool = False
    keeps_alive: bool = False

    def settle(self, now: float) -> None:
        """Does everything that has happened until now."""
        while self._move(now):
            pass

    def _move(self, now: float) -> bool:
        if self.state == "STARTING" and now - self.since >= _STARTING_S:
            problem = self.may_start()
            self._go("BOOTSTRAPPING", self.since + _STARTING_S) if problem is None else self.fail(
                "VALIDATION_ERROR", problem, self.since + _STARTING_S
            )
        elif self.state == "BOOTSTRAPPING" and now - self.since >= _BOOTSTRAPPING_S:
            self._bootstrap(self.since + _BOOTSTRAPPING_S)
        elif self.state in ("RUNNING", "WAITING"):
            return self._work(now)
        elif self.state == "TERMINATING" and now - self.since >= _TERMINATING_S:
            self._go(self.next_state, self.since + _TERMINATING_S)
            self.ended = self.since
        else:
            return False
        return True

    def _bootstrap(self, when: float) -> None:
        problem = self.may_bootstrap()
        if self.failing_action is not None:
            ordinal, code = self.failing_action
            path = self.request["BootstrapActions"][ordinal - 1]["ScriptBootstrapAction"]["Path"]
            data = {
                "primary-instance-id": "i-" + secrets.token_hex(8) + "0",
                "bootstrap-action": str(ordinal),
                "return-code": str(code),
                "amazon-s3-path": path,
            }
            message = f"The master failed: bootstrap action {ordinal} returned a non-zero return code"
            self.error_details.append(
                {
                    "ErrorCode": "BOOTSTRAP_FAILURE_PRIMARY_WITH_NON_ZERO_CODE",
                    "ErrorData": [data],
                    "ErrorMessage": message,
                }
            )
            problem = message
        if problem is not None:
            self.fail("BOOTSTRAP_FAILURE", problem, when)
        else:
            self.ready = when
            self._go("RUNNING" if self.steps else "WAITING", when)

    def _work(self, now: float) -> bool:
        """Goes on with steps; True when the cluster itself moved or a step ended."""
        running = [each for each in self.steps if each.state == "RUNNING"]
        moved = False
        for step in running:
            if step.is_over(now):
                moved = True
                assert step.ended is not None
                self.since = max(self.since, step.ended)
                if step.state == "FAILED":
                    self._after_failure(step)
        if self.state not in ("RUNNING", "WAITING"):
            return True
        level = int(self.request.get("StepConcurrencyLevel", 1))
        free = level - sum(each.state == "RUNNING" for each in self.steps)
        for step in [each for each in self.steps if each.state == "PENDING"][: max(free, 0)]:
            step.start(max(self.since, step.created))
            self._go("RUNNING", max(self.since, step.created))
            moved = True
        if not any(each.state in ("PENDING", "RUNNING") for each in self.steps):
            if not self.keeps_alive:
                self.end("ALL_STEPS_COMPLETED", "Steps completed", self.since)
                return True
            if self.state == "RUNNING":
                self._go("WAITING", self.since)
                return True
        return moved

    def _after_failure(self, step: Step) -> None:
        assert step.ended is not None
        if step.on_failure in ("TERMINATE_CLUSTER", "TERMINATE_JOB_FLOW"):
            self._drop_pending(step.ended)
            self.fail("STEP_FAILURE", "Shut down as step failed", step.ended)
        elif step.on_failure == "CANCEL_AND_WAIT":
            self._drop_pending(step.ended)

    def _drop_pending(self, now: float) -> None:
        for each in self.steps:
            if each.state == "PENDING":
                each.stop("CANCELLED", now, "Job terminated")

    def fail(self, code: str, message: str, when: float) -> None:
        self.end(code, message, when)
        self.next_state = "TERMINATED_WITH_ERRORS"

    def end(self, code: str, message: str, when: float) -> None:
        for each in self.steps:
            if each.state in ("PENDING", "RUNNING"):
                each.stop("CANCELLED", when, "Job terminated")
        self.code, self.message, self.next_state = code, message, "TERMINATED"
        self._go("TERMINATING", when)

    def _go(self, state: str, when: float) -> None:
        self.state, self.since = state, when

    def status(self) -> dict[str, Any]:
        times = {"CreationDateTime": self.created, "ReadyDateTime": self.ready, "EndDateTime": self.ended}
        reason = {"Code": self.code, "Message": self.message} if self.code else {}
        found: dict[str, Any] = {
            "State": self.state,
            "StateChangeReason": reason,
            "Timeline": {name: value for name, value in times.items() if value is not None},
        }
        return found | ({"ErrorDetails": self.error_details} if self.error_details else {})
