"""Questions to a flow memory, and where to have one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ringfence_agent.flow.memory import Answer, Ask, FlowMemory
from ringfence_agent.flow.place import open_flow_memory
from ringfence_agent.flow.stamp import Stamp
from ringfence_zones.flow_labels import Kind
from ringfence_zones.secret import Secret

STORE_ID = bytes(range(16))
TAG_KEY = Secret(bytes(32))
# When the flows in force were first published.
SINCE_MS = 1_794_000_000_000
ALICE, BOB, CAROL = b"a" * 32, b"b" * 32, b"c" * 32

Open = Callable[[], FlowMemory]


class Clock:
    def __init__(self) -> None:
        self.ms = 1_795_000_000_000

    def __call__(self) -> int:
        return self.ms


@contextmanager
def opening(uri: str, password_file: Path | None, clock: Clock) -> Iterator[Open]:
    """Opens the memory of one store, as often as it is told to; all are closed at the end."""
    opened: list[FlowMemory] = []

    def open_one() -> FlowMemory:
        opened.append(open_flow_memory(uri, password_file, STORE_ID, TAG_KEY, clock))
        return opened[-1]

    yield open_one
    for memory in opened:
        memory.close()


def issue(memory: FlowMemory, zone: str, count: int = 1) -> list[bytes]:
    ivs = [os.urandom(16) for _ in range(count)]
    assert memory.note_issued(zone, ivs, memory.epoch(SINCE_MS), SINCE_MS)
    return ivs


def ask(memory: FlowMemory, zone: str, iv: bytes | None = None, session: bytes = ALICE, **more: object) -> Ask:
    """About an EDEK of this memory; without `iv`, of one that was opened long ago."""
    stamp = Stamp(memory.epoch(SINCE_MS), 0)
    made = Ask(session, zone, iv or os.urandom(16), stamp, Kind.BOTH, frozenset())
    return replace(made, **more)  # type: ignore[arg-type]


def settle(memory: FlowMemory, *asks: Ask) -> list[Answer]:
    return memory.settle(asks, SINCE_MS)
