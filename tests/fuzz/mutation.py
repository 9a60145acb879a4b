"""A small fuzzer that knows which lines it has seen: standard library only, so it runs wherever the tests run.

Rules:

1. An input that reaches a pair of lines in a row that no input reached before is worth mutating further.
2. A run is bounded in time, an input in length, and what a run finds is given back, never written anywhere.
3. The first input that a check does not take ends the run: it is reported as it is, with what went wrong.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

MAX_INPUT_BYTES = 4096
_MAX_STEPS = 6
TIME_PER_INPUT_S = 1.0
_INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_NUMBERS = (
    b"-1",
    b"0",
    b"1",
    b"255",
    b"4294967296",
    b"9223372036854775808",
    b"1e9",
    b"0x10",
    b"00",
    b"99999999999999999999",
)


class FoundError(AssertionError):
    """An input that a check did not take."""

    def __init__(self, data: bytes, why: str) -> None:
        super().__init__(f"{why}\n  input, as hexadecimal digits: {data.hex()}\n  input: {data!r}")
        self.data = data


@dataclass
class Findings:
    """What a run came to: how many inputs were tried, and those that reached something new."""

    tried: int = 0
    kept: list[bytes] = field(default_factory=list)


class Fuzzer:
    """Runs one check on mutations of `seeds`. `files` are the source files whose lines count."""

    def __init__(
        self,
        check: Callable[[bytes], None],
        files: frozenset[str],
        words: Sequence[bytes] = (),
        seed: int = 0,
    ) -> None:
        self._check = check
        self._files = files
        self._words = (*words, *_NUMBERS)
        self._random = random.Random(seed)
        self._seen: set[tuple[Any, int, int]] = set()
        self._new = False

    def replay(self, inputs: Sequence[bytes]) -> list[bytes]:
        """Tries each, and gives back those that reached something the others before them did not."""
        return [data for data in inputs if self._reaches_something_new(data)]

    def run(self, seeds: Sequence[bytes], seconds: float) -> Findings:
        """Mutates for that long, by the processor's clock: a busy machine tries as much. Raises FoundError."""
        found = Findings()
        pool = self.replay([b"", *seeds]) or [b""]
        deadline = time.process_time() + seconds
        while time.process_time() < deadline:
            # What was found last is mutated most: it is where the unknown lies.
            data = pool[-1 - int(len(pool) * self._random.random() ** 2)]
            mutant = self._mutate(data, pool)
            found.tried += 1
            if self._reaches_something_new(mutant):
                pool.append(mutant)
                found.kept.append(mutant)
        return found

    def _reaches_something_new(self, data: bytes) -> bool:
        self._new = False
        # On a busy machine any input may take long once; one that is slow is slow again.
        spent = self._time(data)
        if spent > TIME_PER_INPUT_S:
            spent = min(spent, self._time(data))
        if spent > TIME_PER_INPUT_S:
            raise FoundError(data, f"it took {spent:.1f} s")
        return self._new

    def _time(self, data: bytes) -> float:
        """The processor's seconds that the check took. Raises FoundError."""
        began = time.process_time()
        try:
            with self._traced():
                self._check(data)
        except FoundError:
            raise
        except Exception as error:
            raise FoundError(data, f"{type(error).__name__}: {error}") from error
        return time.process_time() - began

    @contextmanager
    def _traced(self) -> Iterator[None]:
        before = sys.gettrace()
        sys.settrace(self._on_call)
        try:
            yield
        finally:
            sys.settrace(before)

    def _on_call(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        code, last, seen = frame.f_code, 0, self._seen

        def on_line(frame: FrameType, _event: str, _argument: Any) -> Any:
            nonlocal last
            step = (code, last, frame.f_lineno)
            if step not in seen:
                seen.add(step)
                self._new = True
            last = frame.f_lineno
            return on_line

        return on_line

    def _mutate(self, data: bytes, pool: Sequence[bytes]) -> bytes:
        mutant = bytearray(data)
        steps = (self._flip, self._set, self._insert_word, self._insert_word, self._insert_bytes, self._delete,
                 self._repeat, self._number, self._cut, lambda it: self._splice(it, pool))  # fmt: skip
        for _ in range(self._random.randint(1, _MAX_STEPS)):
            self._random.choice(steps)(mutant)
        return bytes(mutant[:MAX_INPUT_BYTES])

    def _at(self, mutant: bytearray) -> int:
        return self._random.randint(0, len(mutant))

    def _flip(self, mutant: bytearray) -> None:
        if mutant:
            mutant[self._random.randrange(len(mutant))] ^= 1 << self._random.randrange(8)

    def _set(self, mutant: bytearray) -> None:
        if mutant:
            mutant[self._random.randrange(len(mutant))] = self._random.choice((0, 0x20, 0x7F, 0xFF, 0x0A, 0x22, 0x2F))

    def _insert_word(self, mutant: bytearray) -> None:
        at = self._at(mutant)
        mutant[at:at] = self._random.choice(self._words)

    def _insert_bytes(self, mutant: bytearray) -> None:
        at = self._at(mutant)
        mutant[at:at] = self._random.randbytes(self._random.choice((1, 1, 2, 8, 64)))

    def _delete(self, mutant: bytearray) -> None:
        at = self._at(mutant)
        del mutant[at : at + self._random.choice((1, 1, 2, 8, 64))]

    def _repeat(self, mutant: bytearray) -> None:
        at = self._at(mutant)
        piece = mutant[at : at + self._random.choice((1, 4, 16, 64))]
        mutant[at:at] = piece * self._random.choice((1, 2, 20))

    def _number(self, mutant: bytearray) -> None:
        at, width = self._at(mutant), self._random.choice((1, 2, 4, 8))
        mutant[at : at + width] = (self._random.choice(_INTERESTING) % (1 << 8 * width)).to_bytes(width, "big")

    def _cut(self, mutant: bytearray) -> None:
        del mutant[self._at(mutant) :]

    def _splice(self, mutant: bytearray, pool: Sequence[bytes]) -> None:
        other = self._random.choice(pool)
        mutant[self._at(mutant) :] = other[self._random.randint(0, len(other)) :]
