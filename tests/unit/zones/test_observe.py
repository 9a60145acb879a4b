"""What one look at a cluster asks for, and what it makes of a KMS that does not answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from ringfence_zones.errors import AuthenticationError, KmsUnavailableError, NameNodeUnavailableError
from ringfence_zones.hdfs_interface import Hdfs
from ringfence_zones.keys import KeyMetadata
from ringfence_zones.kms_client import KmsClient, RingfenceStatus
from ringfence_zones.kms_uri import KmsUri, parse_kms_uri
from ringfence_zones.model import DirectoryState, EncryptionZone
from ringfence_zones.observe import observe_cluster
from ringfence_zones.policy import parse_policy

POLICY = parse_policy(
    "version: 1\ncluster: c\nzones: [{path: /wanted}, {path: /missing}]\n"
    "kms: {namenode_users: [hdfs], admins: [hdfs]}\n",
    "zones.yaml",
)


def directory(path: str) -> DirectoryState:
    return DirectoryState(path, True, True, "hdfs", "hdfs", 0o700, 0)


@dataclass
class SeenHdfs:
    zones: tuple[EncryptionZone, ...] = (EncryptionZone("/other", "k-other"),)
    asked: list[str] = field(default_factory=list)

    def list_zones(self) -> tuple[EncryptionZone, ...]:
        return self.zones

    def hadoop_version(self) -> tuple[int, int, int]:
        return (3, 4, 2)

    def find_directory(self, path: str) -> DirectoryState | None:
        self.asked.append(path)
        return None if path == "/missing" else directory(path)

    def protected_directories(self) -> tuple[str, ...] | None:
        return ("/other",)


@dataclass
class SeenKms:
    status: RingfenceStatus | None = None
    error: Exception | None = None
    asked: list[str] = field(default_factory=list)
    probed: list[str] = field(default_factory=list)
    uri: KmsUri = field(default_factory=lambda: parse_kms_uri("kms://http@localhost:9600/kms"))

    def find_ringfence_status(self) -> RingfenceStatus | None:
        if self.error is not None:
            raise self.error
        return self.status

    def find_keys(self, names: Sequence[str]) -> dict[str, KeyMetadata]:
        self.asked += names
        return {name: KeyMetadata(name, "AES/CTR/NoPadding", 256, 1, 1) for name in names if name != "c-missing"}

    def is_get_open(self, name: str) -> bool:
        self.probed.append(name)
        return name == "k-other"


def look(hdfs: SeenHdfs, kms: SeenKms | None, **options: Any) -> Any:
    return observe_cluster(cast(Hdfs, hdfs), cast(KmsClient, kms) if kms else None, POLICY, **options)


def test_only_what_a_zone_or_the_policy_names_is_looked_at() -> None:
    hdfs, kms = SeenHdfs(), SeenKms()
    state = look(hdfs, kms)
    assert sorted(hdfs.asked) == ["/missing", "/other", "/wanted"]
    assert sorted(state.directories) == ["/other", "/wanted"]
    assert kms.asked == ["c-missing", "c-wanted", "k-other"]
    assert sorted(state.kms.keys) == ["c-wanted", "k-other"]


def test_get_is_probed_on_request_only_and_for_keys_that_exist() -> None:
    kms = SeenKms()
    assert look(SeenHdfs(), kms).kms.get_open == {}
    assert kms.probed == []
    assert look(SeenHdfs(), kms, probe_get=True).kms.get_open == {"c-wanted": False, "k-other": True}


def test_many_zones_are_all_seen_in_order() -> None:
    zones = tuple(EncryptionZone(f"/z{number:03}", f"k{number}") for number in range(200))
    state = look(SeenHdfs(zones), SeenKms())
    assert [path for path in state.directories if path.startswith("/z")] == [zone.path for zone in zones]


def test_a_stock_kms_has_no_revision_and_ours_has() -> None:
    stock = look(SeenHdfs(), SeenKms()).kms
    assert (stock.is_ringfence, stock.revision, stock.plain_http, stock.custodies) == (False, None, True, ())
    ours = look(SeenHdfs(), SeenKms(status=RingfenceStatus("0.1.0", 0, None))).kms
    assert (ours.is_ringfence, ours.revision, ours.revision_digest, ours.custodies) == (True, 0, None, ("envelope",))


@pytest.mark.parametrize("error", [KmsUnavailableError("it is down"), AuthenticationError("it is down")])
def test_a_kms_that_does_not_answer_is_part_of_what_is_seen(error: Exception) -> None:
    state = look(SeenHdfs(), SeenKms(error=error))
    assert (state.kms, state.kms_error) == (None, "it is down")
    assert state.zones


def test_without_a_key_provider_that_is_what_is_seen() -> None:
    state = look(SeenHdfs(), None)
    assert state.kms is None
    assert "no key provider" in state.kms_error


def test_a_namenode_that_does_not_answer_is_an_error() -> None:
    class Down(SeenHdfs):
        def list_zones(self) -> tuple[EncryptionZone, ...]:
            raise NameNodeUnavailableError("down")

    with pytest.raises(NameNodeUnavailableError):
        look(Down(), SeenKms())
