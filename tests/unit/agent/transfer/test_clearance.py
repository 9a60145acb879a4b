"""Who may have what transferred: the policy decides, an approval stands in for a missing flow alone."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence_agent.snapshot import Board, Snapshot
from ringfence_agent.transfer.clearance import Clearance, Cleared
from ringfence_agent.transfer.config import ServicePrincipal, TransferConfig
from ringfence_zones.errors import ConfigError, NameNodeUnavailableError, PathError, RefusedError
from ringfence_zones.findings import Rule
from ringfence_zones.kerberos import KerberosKeytab
from ringfence_zones.model import ClusterState, EncryptionZone, KmsState
from ringfence_zones.paths import HdfsPath
from ringfence_zones.policy import parse_policy, policy_digest

POLICY = parse_policy(
    """
version: 1
cluster: test
zones:
  - {path: /data/pii, owner: etl, readers: [masker, mover, wide, reader]}
  - {path: /data/masked, owner: etl, writers: [masker, mover, wide]}
  - {path: /data/hr, owner: hr, readers: [wide]}
flows:
  - {from: /data/pii, to: /data/masked, who: [masker, mover, wide]}
kms: {namenode_users: [hdfs], admins: [hdfs]}
""",
    "zones.yaml",
)
ZONES = tuple(EncryptionZone(zone.path, zone.key) for zone in POLICY.zones)


class _Accounts:
    def find_name(self, uid: int) -> str | None:
        return None

    def groups_of(self, user: str) -> frozenset[str]:
        return frozenset()


def state(digest: str | None = None) -> ClusterState:
    kms = KmsState("kms://http@kms:9600/kms", True, True, 3, digest or policy_digest(POLICY), {})
    return ClusterState((3, 4, 2), ZONES, {}, None, kms)


def clear(source: str, target: str, user: str = "masker", **changes: Any) -> Cleared:
    services = [
        ServicePrincipal.model_validate({"from": "/data/pii", "to": "/data/masked", **service})
        for service in changes.pop("services", ())
    ]
    now = changes.pop("now", 1000.0)
    board = Board(60.0, lambda: now)
    seen = changes.pop("state", state())
    board.publish(Snapshot(cycle=1, sentence="", finished_s=1000.0, state=seen, policy=POLICY, observed_s=1000.0))
    clearance = Clearance(
        board, _Accounts(), TransferConfig(services=services), is_secure=changes.pop("is_secure", False)
    )
    options = {"into": False} | changes
    return clearance.clear(user, HdfsPath.parse(source), HdfsPath.parse(target), **options)


def test_an_edge_lets_its_user_transfer_as_that_user_under_this_revision() -> None:
    cleared = clear("/data/pii/a", "/data/masked/a")
    assert (cleared.copy_as, cleared.refused) == ("masker", None)
    assert [zone.path for zone in cleared.source_zones] == ["/data/pii"]
    assert cleared.target_zone is not None
    assert cleared.target_zone.path == "/data/masked"
    assert (cleared.allowed.revision, cleared.allowed.digest) == (3, policy_digest(POLICY))


def test_a_policy_that_the_kms_does_not_enforce_has_no_revision() -> None:
    assert clear("/data/pii/a", "/data/masked/a", state=state("0" * 64)).allowed.revision is None


@pytest.mark.parametrize("into", [True, False])
def test_a_zones_root_and_a_directory_are_gone_into(into: bool) -> None:
    target = "/data/masked/sub" if into else "/data/masked"
    assert str(clear("/data/pii/a", target, into=into).target) == f"{target}/a"


def test_without_an_edge_only_an_approval_lets_it_go_on() -> None:
    refused = clear("/data/pii/a", "/data/masked/a", "etl").refused
    assert isinstance(refused, RefusedError)
    assert "no flow from /data/pii to /data/masked for etl" in refused.message
    assert refused.command is None
    assert clear("/data/pii/a", "/data/masked/a", "etl", approved=True).refused is None


@pytest.mark.parametrize(
    ("source", "target", "rule"),
    [
        ("/data/pii/a", "/clear/a", Rule.ZONE_TO_CLEAR),
        ("/clear/a", "/data/masked/a", Rule.CLEAR_TO_ZONE),
        ("/.reserved/raw/data/pii/a", "/data/masked/a", Rule.RAW_PATH),
        ("/data/pii/a", "/.reserved/raw/data/masked/a", Rule.RAW_PATH),
        ("/data/pii/a", "/data/masked/.snapshot/s/a", Rule.SNAPSHOT_PATH),
        ("/data", "/data/masked/a", None),
    ],
)
def test_no_approval_lets_anything_else_go(source: str, target: str, rule: Rule | None) -> None:
    with pytest.raises(RefusedError if rule else PathError) as refused:
        clear(source, target, "nobody", approved=True)
    if rule is not None:
        assert isinstance(refused.value, RefusedError)
        assert refused.value.rule is rule


def test_a_copy_into_itself_and_of_everything_are_bad_paths() -> None:
    for source, target in (("/data/pii/a", "/data/pii/a/b"), ("/data/pii/a/b", "/data/pii/a"), ("/", "/x")):
        with pytest.raises((PathError, RefusedError)):
            clear(source, target)


def test_a_stale_view_decides_nothing() -> None:
    with pytest.raises(NameNodeUnavailableError):
        clear("/data/pii/a", "/data/masked/a", now=1061.0)


def test_a_service_principal_copies_along_its_edge_for_whom_the_policy_allows() -> None:
    services = [{"user": "mover"}]
    assert clear("/data/pii/a", "/data/masked/a", services=services).copy_as == "mover"
    assert clear("/data/pii/a", "/data/pii/b", services=services).copy_as == "masker"
    assert clear("/data/pii/a", "/data/masked/a", "etl", services=services).refused is not None


def test_a_service_principal_without_the_edge_or_with_a_third_zone_is_refused() -> None:
    with pytest.raises(RefusedError):
        clear("/data/pii/a", "/data/masked/a", services=[{"user": "stranger"}])
    with pytest.raises(ConfigError, match="wide of /data/pii to /data/masked also reads /data/hr"):
        clear("/data/pii/a", "/data/masked/a", services=[{"user": "wide"}])


@pytest.mark.parametrize("approved", [True, False])
@pytest.mark.parametrize(("user", "lacks"), [("nobody", "a reader of /data/pii"), ("reader", "a writer of /data/mask")])
def test_a_service_principal_lends_its_rights_to_nobody(user: str, lacks: str, approved: bool) -> None:
    with pytest.raises(RefusedError, match=lacks):
        clear("/data/pii/a", "/data/masked/a", user, services=[{"user": "mover"}], approved=approved)
    if user == "reader":  # as itself it may ask, and HDFS says no
        assert clear("/data/pii/a", "/data/masked/a", user, approved=approved).copy_as == user


def test_a_service_principal_removes_nothing_for_who_may_only_read() -> None:
    services = [{"user": "mover"}]
    assert not clear("/data/pii/a", "/data/masked/a", services=services).may_remove
    assert clear("/data/pii/a", "/data/masked/a", "etl", services=services).may_remove
    assert clear("/data/pii/a", "/data/masked/a").may_remove


def test_with_kerberos_nobody_is_impersonated() -> None:
    with pytest.raises(ConfigError, match="needs a service principal with a keytab"):
        clear("/data/pii/a", "/data/masked/a", is_secure=True)
    with pytest.raises(ConfigError, match="needs a service principal with a keytab"):
        clear("/data/pii/a", "/data/masked/a", is_secure=True, services=[{"user": "mover"}])
    keytab = KerberosKeytab.model_validate({"principal": "mover@X", "keytab": "/k"})
    assert (
        clear("/data/pii/a", "/data/masked/a", is_secure=True, services=[{"user": "mover", "kerberos": keytab}]).copy_as
        == "mover"
    )
