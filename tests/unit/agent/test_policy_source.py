"""The policy in force: followed when it changes, kept when the new one is no good."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from fake_namenode import FakeNameNode

from ringfence_agent import observe as observe_module
from ringfence_agent.observe import Observer
from ringfence_agent.pins import PinMemory
from ringfence_agent.policy_source import FilePolicy, PublishedPolicy
from ringfence_zones.errors import KmsUnavailableError
from ringfence_zones.kms_admin import Publication
from ringfence_zones.model import ClusterState, KmsState
from ringfence_zones.policy import Policy, canonical_json, parse_policy

TEXT = "version: 1\ncluster: c\nzones:\n  - {path: /a, key: k}\nkms: {namenode_users: [hdfs], admins: [hdfs]}\n"


def test_a_file_is_read_again_when_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "zones.yaml"
    path.write_text(TEXT)
    source = FilePolicy(path)
    first = source.look()
    assert first.policy is not None
    assert source.look() is first
    (tmp_path / "new").write_text(TEXT.replace("cluster: c", "cluster: d"))
    (tmp_path / "new").rename(path)
    changed = source.look().policy
    assert changed is not None
    assert changed.cluster == "d"


def test_a_broken_file_keeps_the_last_good_policy_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "zones.yaml"
    path.write_text(TEXT)
    source = FilePolicy(path)
    good = source.look().policy
    path.write_text(TEXT + "agnet: {}\n")
    view = source.look()
    assert view.policy is good
    assert "zones.yaml:6" in (view.problem or "")
    path.unlink()
    assert source.look().policy is good
    assert "cannot read" in (source.look().problem or "")
    path.write_text(TEXT)
    os.utime(path, (1, 1))
    assert source.look().problem is None


def test_a_file_that_never_was_gives_no_policy(tmp_path: Path) -> None:
    view = FilePolicy(tmp_path / "none.yaml").look()
    assert view.policy is None
    assert "none.yaml" in (view.problem or "")


class _Kms:
    def __init__(self) -> None:
        self.answer: tuple[Publication, Any] | Exception | None = None
        self.asked = 0

    def __call__(self) -> tuple[Publication, Any] | None:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def _published(revision: int, text: str = TEXT) -> tuple[Publication, Any]:
    return Publication(revision, f"digest{revision}"), json.loads(canonical_json(parse_policy(text, "p")))


def test_the_published_revision_is_followed() -> None:
    kms = _Kms()
    source = PublishedPolicy(kms)
    assert source.look().policy is None
    assert "ringfence apply" in (source.look().problem or "")
    kms.answer = _published(1)
    first = source.look().policy
    assert first is not None
    assert source.look().policy is first
    kms.answer = _published(2, TEXT.replace("cluster: c", "cluster: d"))
    second = source.look().policy
    assert second is not None
    assert second.cluster == "d"


def test_a_kms_outage_keeps_the_last_revision_in_force() -> None:
    kms = _Kms()
    source = PublishedPolicy(kms)
    kms.answer = _published(1)
    policy = source.look().policy
    kms.answer = KmsUnavailableError("the KMS is away")
    assert source.look().policy is policy
    assert source.look().problem == "the KMS is away"
    kms.answer = (Publication(2, "d"), {"version": 9})
    assert source.look().policy is policy
    assert "revision 2" in (source.look().problem or "")
    kms.answer = _published(1)
    assert source.look().problem is None


def _status(revision: int | None, digest: str | None = None) -> KmsState:
    if digest is None and revision:
        digest = f"digest{revision}"
    return KmsState("kms://http@localhost:9600/kms", True, revision is not None, revision, digest, {})


def test_the_policy_is_not_asked_for_while_the_status_says_that_it_is_in_force() -> None:
    kms, clock = _Kms(), [0.0]
    source = PublishedPolicy(kms, lambda: clock[0])
    kms.answer = _published(1)
    policy = source.look().policy
    for clock[0] in (10.0, 20.0, 59.0):
        assert not source.is_behind(_status(1))
        assert (source.look().policy, kms.asked) == (policy, 1)
    # Whoever could forge a status could hold the agent to an old policy for a minute.
    clock[0] = 60.0
    assert (source.look().policy, kms.asked) == (policy, 2)
    kms.answer = _published(2, TEXT.replace("cluster: c", "cluster: d"))
    assert not source.is_behind(_status(1))
    assert (source.look().policy, kms.asked) == (policy, 2)
    assert source.is_behind(_status(2))
    newer = source.look().policy
    assert newer is not None and (newer.cluster, kms.asked) == ("d", 3)
    assert not source.is_behind(_status(2))
    assert (source.look().policy, kms.asked) == (newer, 3)


@pytest.mark.parametrize(
    "status", [None, _status(None), _status(0), _status(1, "another")], ids=["away", "stock", "none", "other"]
)
def test_a_status_that_confirms_nothing_has_the_policy_asked_for_once_a_cycle(status: KmsState | None) -> None:
    kms = _Kms()
    source = PublishedPolicy(kms)
    kms.answer = _published(1)
    for asked in (1, 2, 3):
        source.look()
        assert not source.is_behind(status)  # it was asked a moment ago
        assert kms.asked == asked


def test_a_kms_that_shows_nothing_any_more_is_asked_with_the_next_cycle_and_not_at_once() -> None:
    kms = _Kms()
    source = PublishedPolicy(kms)
    kms.answer = _published(1)
    source.look()
    assert not source.is_behind(_status(1))
    source.look()
    assert not source.is_behind(None)
    assert kms.asked == 1
    source.look()
    assert kms.asked == 2


def test_a_policy_that_cannot_be_used_is_asked_for_with_every_cycle() -> None:
    kms = _Kms()
    source = PublishedPolicy(kms)
    kms.answer = _published(1)
    source.look()
    source.is_behind(_status(1))
    source.is_behind(_status(2))
    kms.answer = (Publication(2, "digest2"), {"version": 9})
    for asked in (2, 3):
        assert source.look().problem is not None
        assert not source.is_behind(_status(2))
        assert kms.asked == asked


def test_a_cycle_that_sees_a_newer_revision_looks_again_with_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "core-site.xml").write_text("<configuration></configuration>")
    kms, revisions = _Kms(), iter([1, 1, 2, 2, 2])
    policies = PublishedPolicy(kms, lambda: 0.0)
    observer = Observer(
        FakeNameNode(tmp_path),  # type: ignore[arg-type]
        policies,
        PinMemory(tmp_path / "state", tmp_path / "core-site.xml"),
        namenode_conf_dir=tmp_path,
        user="hdfs",
        kms_timeout_s=1.0,
    )
    looked: list[str] = []

    def observe(_hdfs: object, _kms: object, policy: Policy | None) -> ClusterState:
        assert policy is not None
        looked.append(policy.cluster)
        return ClusterState((3, 4, 2), (), {}, (), _status(next(revisions)), None)

    monkeypatch.setattr(observe_module, "observe_cluster", observe)
    monkeypatch.setattr(Observer, "_connect_kms", lambda *_: None)
    kms.answer = _published(1)
    observer.observe(None)
    observer.observe(None)
    assert (looked, kms.asked) == (["c", "c"], 1)
    kms.answer = _published(2, TEXT.replace("cluster: c", "cluster: d"))
    found = observer.observe(None).policy
    assert found is not None and found.cluster == "d"
    assert (looked, kms.asked) == (["c", "c", "c", "d"], 2)
    observer.observe(None)
    assert (looked[4:], kms.asked) == (["d"], 2)
