"""The policy in force: followed when it changes, kept when the new one is no good."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ringfence_agent.policy_source import FilePolicy, PublishedPolicy
from ringfence_zones.errors import KmsUnavailableError
from ringfence_zones.kms_admin import Publication
from ringfence_zones.policy import canonical_json, parse_policy

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

    def __call__(self) -> tuple[Publication, Any] | None:
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
