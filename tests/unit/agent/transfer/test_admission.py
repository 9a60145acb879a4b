"""Which grants a transfer asks the KMS for: for this job, where rules are enforced and no edge lets it through."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from ringfence_agent.transfer.admission import KmsAdmission
from ringfence_agent.transfer.record import Allowed, Grant, Request, State, Transfer, Zone
from ringfence_zones.errors import GrantNotFoundError, KmsUnavailableError
from ringfence_zones.grants import GrantRequest
from ringfence_zones.kms_admin import AdminClient
from ringfence_zones.policy import Policy, parse_policy

_DOCUMENT = """
version: 1
cluster: test
zones:
  - {{path: /data/pii, owner: etl, readers: [masker, analyst]}}
  - {{path: /data/hr, owner: etl, readers: [masker, analyst]}}
  - {{path: /data/masked, owner: etl, writers: [masker, analyst]}}
flows:
  - {{from: /data/pii, to: /data/masked, who: [masker]}}
flow_control: {{mode: {mode}, enforce_on_claimed_identity: true}}
kms: {{namenode_users: [hdfs], admins: [hdfs]}}
"""


def policy(mode: str = "enforce") -> Policy:
    return parse_policy(_DOCUMENT.format(mode=mode), "zones.yaml")


class Kms:
    """Notes what is asked of it; `fails` is raised instead."""

    def __init__(self) -> None:
        self.made: list[GrantRequest] = []
        self.ended: list[str] = []
        self.fails: Exception | None = None

    def create_grant(self, request: GrantRequest) -> None:
        if self.fails is not None:
            raise self.fails
        self.made.append(request)

    def end_grant(self, grant_id: str) -> None:
        if self.fails is not None:
            raise self.fails
        self.ended.append(grant_id)


def transfer(user: str, *sources: str, target: str | None = "/data/masked", approver: str | None = None) -> Transfer:
    request = Request(
        user=user,
        copy_as=user,
        source="/x",
        target="/y",
        source_zones=tuple(Zone(path=source, key="k") for source in sources),
        target_zone=None if target is None else Zone(path=target, key="k"),
        purpose="audit",
    )
    facts: dict[str, Any] = dict.fromkeys(("problem", "finished_ms", "source_id", "staging_id"))
    counts = dict.fromkeys(("files", "bytes", "files_verified", "bytes_verified", "submitted_ms"), 0)
    return Transfer(
        id="0" * 32,
        state=State.QUEUED,
        request=request,
        allowed=Allowed(revision=1, digest=None),
        grant=None if approver is None else Grant(id="g", approver=approver, purpose="audit"),
        source_removed=False,
        **facts,
        **counts,
    )


def admission(kms: Kms, in_force: Policy | None) -> KmsAdmission:
    return KmsAdmission(lambda: cast("AdminClient", kms), lambda: in_force, lambda: "10.0.0.7")


def test_an_approved_job_gets_a_grant_for_its_user_its_zones_and_this_machine() -> None:
    kms = Kms()
    admits, job = admission(kms, policy()), transfer("analyst", "/data/pii", approver="boss")
    admits.admit(job)
    [asked] = kms.made
    assert (asked.user, asked.source, asked.target) == ("analyst", "/data/pii", "/data/masked")
    assert (asked.address, asked.token, asked.approver) == ("10.0.0.7", None, "boss")
    assert asked.lifetime_s <= 3600
    assert "audit" in asked.purpose
    admits.end(job)
    admits.end(job)
    assert kms.ended == [asked.id]


def test_a_purpose_that_the_kms_would_not_take_is_made_one_that_it_does() -> None:
    # Else an approved transfer waits for an hour, with a new grant asked for every few seconds.
    kms, job = Kms(), transfer("analyst", "/data/pii", approver="boss")
    request = job.request.model_copy(update={"purpose": "\u2028\x9b" + "x" * 498})
    admission(kms, policy()).admit(replace(job, request=request))
    [asked] = kms.made
    assert len(asked.purpose) == 500
    assert asked.purpose.isprintable()
    assert asked.purpose.startswith(f"transfer {job.id}: ??xxx")


@pytest.mark.parametrize(
    ("in_force", "job"),
    [
        (policy(), transfer("masker", "/data/pii")),  # an edge lets it through
        (policy(), transfer("analyst", "/data/masked")),  # inside one zone
        (policy(), transfer("analyst", "/data/pii", target=None)),  # the KMS sees no copy to clear text
        (policy("shadow"), transfer("analyst", "/data/pii", approver="boss")),
        (None, transfer("analyst", "/data/pii")),
    ],
)
def test_no_grant_is_asked_for_where_none_is_needed(in_force: Policy | None, job: Transfer) -> None:
    kms = Kms()
    admission(kms, in_force).admit(job)
    assert kms.made == []


def test_each_zone_of_a_tree_without_an_edge_needs_its_own_grant() -> None:
    kms = Kms()
    admission(kms, policy()).admit(transfer("masker", "/data/pii", "/data/hr", approver="boss"))
    assert [asked.source for asked in kms.made] == ["/data/hr"]


def test_another_attempt_ends_the_grants_of_the_one_before() -> None:
    kms = Kms()
    admits, job = admission(kms, policy()), transfer("analyst", "/data/pii", approver="boss")
    admits.admit(job)
    admits.admit(job)
    first, second = kms.made
    assert first.id != second.id
    assert kms.ended == [first.id]


def test_a_kms_that_is_away_keeps_a_transfer_from_beginning_and_none_from_ending() -> None:
    kms = Kms()
    admits, job = admission(kms, policy()), transfer("analyst", "/data/pii", approver="boss")
    admits.admit(job)
    kms.fails = KmsUnavailableError("away")
    admits.end(job)
    with pytest.raises(KmsUnavailableError):
        admits.admit(job)
    kms.fails = GrantNotFoundError("g")
    admits.end(job)


@pytest.mark.parametrize(
    ("in_force", "job", "zone"),
    [
        (policy(), transfer("analyst", "/data/pii", approver="boss"), "/data/pii"),
        (policy(), transfer("masker", "/data/pii", "/data/hr", approver="boss"), "/data/hr"),
        (policy(), transfer("masker", "/data/pii"), None),
        (policy("shadow"), transfer("analyst", "/data/pii", approver="boss"), None),
        (policy(), transfer("analyst", "/data/pii", target=None), None),
        (None, transfer("analyst", "/data/pii"), None),
    ],
)
def test_what_would_need_a_grant_is_known_without_making_one(
    in_force: Policy | None, job: Transfer, zone: str | None
) -> None:
    kms = Kms()
    found = admission(kms, in_force).find_ungranted(job)
    assert (None if found is None else found.path) == zone
    assert kms.made == []
