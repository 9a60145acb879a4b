"""Flows of a policy as the key server asks them."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence_agent.flow.rules import FlowRules, flow_rules
from ringfence_zones.flow_labels import Crossing, Kind
from ringfence_zones.policy import policy_from_json


def rules_of(flows: list[dict[str, Any]] | None, **more: object) -> FlowRules | None:
    who = ["alice", "bob", "@movers"]
    zones = [
        {"path": "/data/pii", "key": "k-pii", "readers": who},
        {"path": "/data/masked", "key": "k-masked", "writers": who},
    ]
    document = {"version": 1, "cluster": "c", "zones": zones, **more}
    return flow_rules(policy_from_json(document if flows is None else {**document, "flows": flows}))


def test_without_a_flows_key_there_are_no_rules_and_with_an_empty_one_no_edges() -> None:
    assert rules_of(None) is None
    empty = rules_of([])
    assert empty is not None
    assert (empty.edges, empty.enforces, empty.on_claims) == ({}, False, False)
    assert empty.paths == {"k-pii": "/data/pii", "k-masked": "/data/masked"}


@pytest.mark.parametrize(
    ("user", "groups", "allowed"),
    [("alice", "", True), ("bob", "movers", True), ("bob", "others", False), ("mallory", "", False)],
)
def test_edges_are_between_keys_for_users_and_members_of_groups_of_all_flows_alike(
    user: str, groups: str, allowed: bool
) -> None:
    edge = {"from": "/data/pii", "to": "/data/masked"}
    rules = rules_of([{**edge, "who": ["alice"]}, {**edge, "who": ["@movers"]}])
    assert rules is not None
    for zone in "k-pii", "k-masked":
        found = rules.edges_of(zone, user, None, lambda _: frozenset({groups}))
        assert found == ({("k-pii", "k-masked")} if allowed else set())
    assert rules.edges_of("k-other", user, None, lambda _: frozenset({groups})) == set()


def test_the_mode_is_the_documents() -> None:
    for claims in (False, True):
        control = {"mode": "enforce", "enforce_on_claimed_identity": claims}
        rules = rules_of([], flow_control=control)
        assert rules is not None
        assert (rules.enforces, rules.on_claims) == (True, claims)


def test_a_refusal_names_who_both_zones_what_went_before_the_rule_and_a_command() -> None:
    rules = rules_of([])
    assert rules is not None
    for opened, before, now in (
        (Kind.WRITE, "has read /data/pii", "write to /data/masked"),
        (Kind.READ, "has written to /data/masked", "read /data/pii"),
    ):
        text = rules.explain(Crossing("k-pii", "k-masked", opened), "o'neill", 7)
        for words in ("o'neill may not bring data from /data/pii to /data/masked", before, now, "revision 7"):
            assert words in text
        assert "rule flow_refused" in text
        assert text.endswith("""ringfence policy decide-move --user 'o'"'"'neill' /data/pii/FILE /data/masked""")


def test_a_zone_that_the_policy_does_not_name_goes_by_its_key_and_no_command_knows_it() -> None:
    rules = rules_of([])
    assert rules is not None
    text = rules.explain(Crossing("elsewhere", "k-masked", Kind.WRITE), "alice", 7)
    assert "from the zone of key elsewhere (not in the policy) to /data/masked" in text
    assert "ringfence policy" not in text
