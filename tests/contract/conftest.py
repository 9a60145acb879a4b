"""What the KMS contract suite runs against: the real server, once with one worker and once with four."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kms_serving import KmsPlace, RunningKms


@pytest.fixture(scope="module", params=[1, 4], ids=["1-worker", "4-workers"])
def kms(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKms]:
    """A server with open ACLs; tests share it and use key names of their own."""
    place = KmsPlace.make(tmp_path_factory.mktemp("kms"))
    with place.serving(request.param) as running:
        yield running


@pytest.fixture(params=[1, 4], ids=["1-worker", "4-workers"])
def workers(request: pytest.FixtureRequest) -> int:
    """For tests that start a server of their own."""
    return int(request.param)
