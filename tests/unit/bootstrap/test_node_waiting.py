"""Each wait is bounded, tells what it is for once, and ends at once for what will never come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence_bootstrap.node.facts import NodeFacts, Provisioning
from ringfence_bootstrap.node.waiting import Waiting, hdfs_waits_for, kms_waits_for, provisioning_waits_for
from ringfence_zones.errors import InstallError
from ringfence_zones.http_session import PLAIN_ACCESS


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def facts(provisioning: Provisioning) -> NodeFacts:
    return NodeFacts("primary", "j-1", "i-1", "eu-west-1", None, high_availability=False, provisioning=provisioning)


def test_it_tells_what_it_waits_for_when_that_changes() -> None:
    answers: Iterator[str | None] = iter(["a", "a", "b", "b", None])
    said: list[str] = []
    clock = Clock()
    Waiting(said.append, clock, clock.sleep).until(lambda: next(answers), 60, "look")
    assert said == ["a", "b"]


def test_it_ends_after_its_time_with_what_is_missing_and_where_to_look() -> None:
    clock = Clock()
    with pytest.raises(InstallError, match=r"^after 60 s this node still waits for the KMS$") as raised:
        Waiting(lambda _text: None, clock, clock.sleep).until(lambda: "the KMS", 60, "look here")
    assert raised.value.hint == "look here"
    assert 160 <= clock.now < 165


def test_provisioning_that_failed_ends_the_wait() -> None:
    with pytest.raises(InstallError, match=r"provisioning this node failed"):
        provisioning_waits_for(lambda: facts(Provisioning.FAILED))
    assert provisioning_waits_for(lambda: facts(Provisioning.RUNNING)) == "EMR to provision this node"
    assert provisioning_waits_for(lambda: facts(Provisioning.SUCCESSFUL)) is None


def test_what_does_not_answer_is_waited_for_by_name(tmp_path: Path) -> None:
    site = "<configuration><property><name>{}</name><value>{}</value></property></configuration>"
    (tmp_path / "core-site.xml").write_text("<configuration/>")
    assert kms_waits_for(tmp_path, "hdfs", lambda: PLAIN_ACCESS) == f"core-site.xml in {tmp_path} to name a KMS"
    assert "to name a NameNode" in str(hdfs_waits_for(tmp_path, lambda: PLAIN_ACCESS))
    kms = site.format("hadoop.security.key.provider.path", "kms://http@localhost:1/kms")
    (tmp_path / "core-site.xml").write_text(kms)
    assert "connection refused" in str(kms_waits_for(tmp_path, "hdfs", lambda: PLAIN_ACCESS))
    (tmp_path / "core-site.xml").write_text(site.format("fs.defaultFS", "hdfs://localhost:1"))
    hdfs = site.format("dfs.namenode.http-address", "localhost:1")
    (tmp_path / "hdfs-site.xml").write_text(hdfs)
    assert hdfs_waits_for(tmp_path, lambda: PLAIN_ACCESS) == "the NameNode localhost:1 to answer"
