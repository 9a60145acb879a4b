"""Custody in `plan` and `check`, against clusters made of plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ringfence_zones.check import find_violations
from ringfence_zones.cli.plan import print_plan
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.keys import KeyMetadata
from ringfence_zones.model import ClusterState, EncryptionZone, KmsState
from ringfence_zones.plan import ActionKind, Plan, make_plan
from ringfence_zones.policy import Policy, policy_from_json

CUSTODY_RULES = {
    Rule.CUSTODY_MISMATCH,
    Rule.CUSTODY_UNAVAILABLE,
    Rule.CUSTODY_COST,
    Rule.NEEDS_RINGFENCE_KMS,
}
STOCK = {"is_ringfence": False, "revision": None, "custodies": ()}
WITHOUT_VAULT = {"custodies": ("envelope",)}


def _policy(custody: str, length_bits: int = 256) -> Policy:
    zones = [{"path": "/a", "key": "a", "custody": custody, "length_bits": length_bits}, {"path": "/b", "key": "b"}]
    kms = {"namenode_users": ["hdfs"], "admins": ["hdfs"]}
    return policy_from_json({"version": 1, "cluster": "c", "kms": kms, "zones": zones})


def _key(name: str, custody: str | None) -> KeyMetadata:
    attributes = {} if custody is None else {"ringfence.custody": custody}
    return KeyMetadata(name, "AES/CTR/NoPadding", 256, 0, 1, attributes=attributes)


def _state(custody: str | None = "none", *, zone: bool = False, **kms: Any) -> ClusterState:
    """`custody` is that of the key `a`: None without the attribute, "none" without the key."""
    return ClusterState(
        hadoop_version=(3, 4, 2),
        zones=(EncryptionZone("/a", "a"),) if zone else (),
        directories={},
        protected_directories=("/a",),
        kms=KmsState(
            **{
                "uri": "kms://https@kms:9600/kms",
                "plain_http": False,
                "is_ringfence": True,
                "revision": 0,
                "revision_digest": None,
                "keys": {} if custody == "none" else {"a": _key("a", custody)},
                "custodies": ("envelope", "transit"),
                **kms,
            }
        ),
    )


def _about_custody(findings: tuple[Finding, ...] | list[Finding]) -> list[tuple[str, str, str]]:
    return [(each.severity.value, each.rule.value, each.path) for each in findings if each.rule in CUSTODY_RULES]


def _kinds(plan: Plan, path: str) -> list[ActionKind]:
    return [action.kind for action in plan.actions if action.path == path]


def test_the_cost_of_transit_is_told_once_before_the_zone_is_made_and_hinders_nothing() -> None:
    policy = _policy("transit")
    plan = make_plan(policy, _state())
    (problem,) = plan.problems
    assert (problem.severity, problem.rule, problem.path) == (Severity.WARN, Rule.CUSTODY_COST, "/a")
    assert "66 bytes" in problem.message
    assert "in place of 32" in problem.message
    assert "34 MB" in problem.message
    assert "no file of this zone is opened or made" in problem.message
    assert not plan.refusals
    assert ActionKind.CREATE_ZONE in _kinds(plan, "/a")
    assert _about_custody(make_plan(policy, _state("transit", zone=True)).problems) == []
    assert "50 bytes" in make_plan(_policy("transit", 128), _state()).problems[0].message


def test_transit_is_said_to_the_kms_as_an_attribute_and_to_people_in_the_plan(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = make_plan(_policy("transit"), _state())
    created = {action.key: action.detail["attributes"] for action in plan.actions if action.kind == "create_key"}
    assert created == {"a": {"ringfence.custody": "transit"}, "b": {"ringfence.custody": "envelope"}}
    print_plan(plan, Path("zones.yaml"))
    out = capsys.readouterr().out
    assert "create key a, 256 bits, in custody transit, for /a\n" in out
    assert "create key b, 256 bits, for /b\n" in out


@pytest.mark.parametrize(
    ("kms", "rule", "hint"),
    [(STOCK, "needs_ringfence_kms", "ringfence kms serve"), (WITHOUT_VAULT, "custody_unavailable", "vault")],
)
def test_a_kms_without_transit_gets_no_key_of_it_and_the_other_zone_is_planned(
    kms: dict[str, Any], rule: str, hint: str
) -> None:
    plan = make_plan(_policy("transit"), _state(**kms))
    assert _about_custody(plan.problems) == [("error", rule, "/a")]
    assert plan.problems[0].key == "a"
    assert hint in plan.problems[0].hint
    assert "custody: envelope" in plan.problems[0].hint
    assert plan.refusals
    assert _kinds(plan, "/a") == []
    assert _kinds(plan, "/b")


def test_envelope_is_what_every_kms_does() -> None:
    for kms in (STOCK, WITHOUT_VAULT, {}):
        assert _about_custody(make_plan(_policy("envelope"), _state(**kms)).problems) == []


@pytest.mark.parametrize(
    ("wanted", "is_in"), [("transit", "envelope"), ("transit", None), ("envelope", "transit"), ("envelope", "hsm")]
)
def test_a_zone_s_custody_is_never_changed_and_the_way_out_is_a_new_zone(wanted: str, is_in: str | None) -> None:
    state = _state(is_in, zone=True)
    plan = make_plan(_policy(wanted), state)
    assert _about_custody(plan.problems) == [("error", "custody_mismatch", "/a")]
    hint = plan.problems[0].hint
    assert f"custody: {is_in or 'envelope'}  for this zone" in hint
    assert f"custody: {wanted}  at another path" in hint
    assert "copy the data" in hint
    assert _kinds(plan, "/a") == []
    expected = [("error", "custody_unavailable", "/a")] if is_in == "hsm" else []
    found = _about_custody(find_violations(_policy(wanted), state))
    assert sorted(found) == sorted([*expected, ("error", "custody_mismatch", "/a")])


def test_a_key_made_before_its_zone_in_another_custody_is_not_used() -> None:
    plan = make_plan(_policy("transit"), _state("envelope"))
    assert _about_custody(plan.problems) == [("error", "custody_mismatch", "/a")]
    assert "another 'key'" in plan.problems[0].hint


def test_check_finds_nothing_where_keys_are_as_the_policy_says_and_costs_are_no_finding() -> None:
    for custody in ("transit", "envelope"):
        assert _about_custody(find_violations(_policy(custody), _state(custody, zone=True))) == []


def test_check_tells_of_keys_whose_vault_the_kms_no_longer_has_without_any_policy() -> None:
    found = find_violations(None, _state("transit", zone=True, **WITHOUT_VAULT))
    assert _about_custody(found) == [("error", "custody_unavailable", "/a")]
    assert "no file opens" in found[0].message


def test_on_a_stock_kms_the_attribute_counts_for_nothing() -> None:
    state = _state("transit", zone=True, **STOCK)
    assert _about_custody(find_violations(_policy("transit"), state)) == [("error", "needs_ringfence_kms", "/a")]
    assert _about_custody(find_violations(_policy("envelope"), state)) == []
    assert state.kms is not None
    assert state.kms.find_custody("a") is None
