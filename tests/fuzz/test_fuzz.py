"""Everything that reads foreign bytes, on the kept corpus and then on mutations of it for a bounded time.

RINGFENCE_FUZZ_SECONDS sets the seconds per target; `python tests/fuzz/grow.py` adds what it finds to the corpus.
"""

from __future__ import annotations

import os
import resource
import time

import pytest
from mutation import TIME_PER_INPUT_S, FoundError, Fuzzer
from seeds import corpus_files, seeds_of
from targets import TARGETS, Target

_SECONDS = float(os.environ.get("RINGFENCE_FUZZ_SECONDS") or 4.0)
_MAX_GROWTH_KIB = 256 * 1024


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_foreign_bytes_are_read_or_refused_and_nothing_else(target: Target) -> None:
    assert corpus_files(target.name), "a corpus is kept for every target"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Another seed each day would find more, and fail other people's changes: the seed stays, the corpus grows.
    found = Fuzzer(target.check, target.files, target.words, seed=1).run(seeds_of(target.name), _SECONDS)
    assert found.tried > 100, "too few to mean anything"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < _MAX_GROWTH_KIB, f"{grown} KiB more memory than before"


def _has_a_bug(data: bytes) -> None:
    if data[:1] != b"<":
        return
    if data[1:2] != b"(":
        return
    if data[2:3] == b"~":
        raise KeyError(data)


def test_the_fuzzer_finds_what_only_the_lines_it_reaches_can_lead_it_to() -> None:
    # Three bytes at once are one chance in 16 million; one after the other, some hundreds of tries.
    fuzzer = Fuzzer(_has_a_bug, frozenset({__file__}), seed=1)
    with pytest.raises(FoundError, match="KeyError") as found:
        fuzzer.run([b"x"], 60.0)
    assert found.value.data[:3] == b"<(~"


def test_an_input_that_takes_too_long_is_found() -> None:
    def slow(data: bytes) -> None:
        began = time.process_time()
        while data and time.process_time() - began <= TIME_PER_INPUT_S:
            pass

    with pytest.raises(FoundError, match="it took"):
        Fuzzer(slow, frozenset(), seed=1).replay([b"x"])
