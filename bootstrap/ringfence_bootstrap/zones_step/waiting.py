"""Waits until HDFS can take zones: the NameNode answers, is out of safe mode, and names the KMS that it should.

Each look opens HDFS anew: a client keeps what the NameNode told it of its key provider for an hour, and a NameNode that
is restarted meanwhile would be asked nothing. The wait is bounded; what it waited for last is what the error says.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ringfence_zones.errors import HdfsError, NameNodeUnavailableError, RefusedError, RingfenceError
from ringfence_zones.findings import Rule

_POLL_S = 3.0


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look saw. `missing` is half a sentence, None when nothing is; `provider` the NameNode's own answer.

    `is_refusal`: the NameNode is there, and its key provider is not what it should be.
    """

    missing: str | None
    provider: str | None
    is_refusal: bool = False


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, for tests to turn."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


REAL_CLOCK = Clock()


def wait_for_hdfs(
    look: Callable[[], Sight], limit_s: float, say: Callable[[str], None], clock: Clock = REAL_CLOCK
) -> Sight:
    """The first look that misses nothing. `say` is told whenever it waits for something else.

    Raises RefusedError when the limit passes while the key provider is another one, HdfsError when HDFS is not there
    by then, and at once what `look` raises.
    """
    deadline = clock.now() + limit_s
    said: str | None = None
    while True:
        sight = look()
        if sight.missing is None:
            return sight
        if sight.missing != said:
            said = sight.missing
            say(said)
        if clock.now() >= deadline:
            raise _too_late(sight, limit_s)
        clock.sleep(min(_POLL_S, max(deadline - clock.now(), 0.0)))


def _too_late(sight: Sight, limit_s: float) -> RingfenceError:
    waited = f"waited {limit_s:g} s: {sight.missing}"
    if sight.is_refusal:
        return RefusedError(
            f"{waited}; no key and no zone was made",
            Rule.NODE_PROVIDER,
            hint="a zone keeps its key for ever, so none is made in another KMS; see what the set-up of this node waits"
            " for, or restart the NameNode if core-site.xml names the right KMS already",
            command="systemctl status ringfence-bootstrap ringfence-kms hadoop-hdfs-namenode",
        )
    return (
        NameNodeUnavailableError(
            f"{waited}; no key and no zone was made", hint="see the NameNode's log in /var/log/hadoop-hdfs on this node"
        )
        if sight.provider is None
        else HdfsError(f"{waited}; no key and no zone was made")
    )
