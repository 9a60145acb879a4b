"""The session's sandboxes as objects that run Hadoop's commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from cluster_commands import Cluster


@pytest.fixture(scope="session")
def ringfence_cluster(ringfence_sandbox: Mapping[str, Any]) -> Cluster:
    """NameNode, DataNode and our KMS, which no policy was published to by this fixture."""
    return Cluster(ringfence_sandbox)


@pytest.fixture(scope="session")
def stock_cluster(stock_sandbox: Mapping[str, Any]) -> Cluster:
    """NameNode, DataNode and Hadoop's own KMS, its access lists wide open."""
    return Cluster(stock_sandbox)
