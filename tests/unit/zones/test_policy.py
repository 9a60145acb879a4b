"""The policy document: what it means, and every way it can be wrong (`tests/vectors/policies.yaml`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ringfence_zones.errors import PolicyError
from ringfence_zones.findings import Finding, Rule
from ringfence_zones.policy import (
    Policy,
    canonical_json,
    load_policy,
    parse_policy,
    policy_digest,
    policy_from_json,
)
from ringfence_zones.policy_yaml import MAX_DOCUMENT_BYTES

ROOT = Path(__file__).parents[3]
TABLE = yaml.safe_load((ROOT / "tests" / "vectors" / "policies.yaml").read_text(encoding="utf-8"))
EXAMPLE = ROOT / "zones" / "example.yaml"


def _refused(text: str) -> tuple[Finding, ...]:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, "zones.yaml")
    return caught.value.findings


def _document(zones: str, **top: str) -> str:
    extra = "".join(f"{name}: {value}\n" for name, value in top.items())
    return f"version: 1\ncluster: analytics\n{extra}zones: {zones}\n"


@pytest.mark.parametrize("case", TABLE["refused"], ids=lambda case: case["why"])
def test_every_problem_is_reported_with_its_line_its_rule_and_what_to_do(case: dict[str, Any]) -> None:
    text = case["document"]
    if "version" not in text.split("\n", 1)[0]:
        text = TABLE["head"] + text
    findings = _refused(text)
    assert [f"{finding.path} {finding.rule.value}" for finding in findings] == [
        f"zones.yaml:{where}" for where, _ in case["findings"]
    ]
    for finding, (_, hint) in zip(findings, case["findings"], strict=True):
        assert hint in finding.hint
        assert finding.message


def test_the_example_is_the_policy_that_its_comments_describe() -> None:
    policy = load_policy(EXAMPLE)
    masked, pii = policy.zones
    assert (pii.path, pii.key, pii.owner, pii.group, pii.mode) == (
        "/data/pii",
        "analytics-data-pii",
        "etl",
        "pii",
        0o750,
    )
    assert pii.rotate_every_s == 90 * 86_400
    assert pii.all_writers == {"etl"}
    assert pii.all_readers == {"analyst", "masker", "@pii-readers", "etl", "@pii"}
    assert masked.can_read("anybody")
    assert not masked.can_write("anybody")
    assert policy.flows is not None
    assert policy.flows[0].allows("masker")
    assert policy.outside == {"/exports": ("/data/masked",)}
    assert policy.agent.pin == "print"


def test_an_unreadable_file_is_said_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"cannot read the policy .*none\.yaml: No such file"):
        load_policy(tmp_path / "none.yaml")


def test_a_file_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "zones.yaml"
    path.write_bytes(b"version: 1\ncluster: caf\xe9\n")
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    assert caught.value.findings[0].path == f"{path}:2"


def test_a_file_beyond_the_bound_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "zones.yaml"
    with path.open("wb") as stream:
        stream.truncate(MAX_DOCUMENT_BYTES * 4)
    with pytest.raises(PolicyError, match="1 problem"):
        load_policy(path)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_deep_nesting_ends_in_a_finding_and_not_in_a_crash(opening: str) -> None:
    findings = _refused("version: 1\nzones: " + opening * 20_000)
    assert [finding.rule for finding in findings] == [Rule.YAML_SYNTAX]


def test_aliases_that_multiply_are_bounded() -> None:
    lines = ["version: 1", "a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    findings = _refused("\n".join(lines))
    assert any("aliases" in finding.message for finding in findings)


def test_an_alias_may_name_a_list_once() -> None:
    policy = parse_policy(_document("[{path: /a, readers: &r [x, y]}, {path: /b, readers: *r}]"), "z")
    assert policy.zones[0].readers == policy.zones[1].readers == ("x", "y")


def test_off_is_a_word_and_not_a_boolean() -> None:
    assert parse_policy(_document("[]", agent="{pin: off}"), "z").agent.pin == "off"


@pytest.mark.parametrize("value", ["", " []", " ~"])
def test_flows_without_a_value_allow_nothing_rather_than_everything(value: str) -> None:
    assert parse_policy(f"{_document('[]')}flows:{value}\n", "z").flows == ()
    assert parse_policy(_document("[]"), "z").flows is None


def test_a_wrong_value_does_not_hide_what_is_wrong_elsewhere() -> None:
    findings = _refused(_document("[{path: /a, mode: 7}, {path: /b, key: k}, {path: /c, key: k}, {path: /b/d}]"))
    assert {finding.rule for finding in findings} == {Rule.BAD_VALUE, Rule.DUPLICATE_KEY, Rule.NESTED_ZONE}


def test_a_nested_zone_is_allowed_when_it_says_so() -> None:
    policy = parse_policy(_document("[{path: /a/b, nested: true}, {path: /a}]"), "z")
    assert [zone.path for zone in policy.zones] == ["/a", "/a/b"]


def test_more_readers_than_an_hdfs_acl_holds_are_refused() -> None:
    names = [f"u{n}" for n in range(29)]
    assert "groups" in _refused(_document(f"[{{path: /a, readers: [{', '.join(names)}]}}]"))[0].hint
    assert parse_policy(_document(f"[{{path: /a, readers: [{', '.join(names[:28])}]}}]"), "z")


def test_a_zone_for_everybody_lets_its_owning_group_read_too() -> None:
    policy = parse_policy(_document('[{path: /a, readers: ["*"]}, {path: /b}]'), "z")
    assert [zone.mode for zone in policy.zones] == [0o750, 0o700]


def test_a_group_member_may_use_a_flow_that_a_document_cannot_judge() -> None:
    zones = '[{path: /a, readers: ["@g"]}, {path: /b, writers: ["@g"]}]'
    policy = parse_policy(_document(zones, flows='[{from: /a, to: /b, who: [someone, "@g"]}]'), "z")
    assert policy.flows is not None
    assert policy.flows[0].allows("x", frozenset({"g"}))


# --- The published form -------------------------------------------------------------------------------------------


def test_the_published_form_reads_back_as_the_same_policy() -> None:
    policy = load_policy(EXAMPLE)
    published = canonical_json(policy)
    assert policy_from_json(json.loads(published)) == policy
    assert canonical_json(policy_from_json(json.loads(published))) == published


def test_documents_that_mean_the_same_have_the_same_digest() -> None:
    one = _document("[{path: /b}, {path: /a/, readers: [y, x]}]", defaults="{rotate_every: 14d}")
    two = "zones: [{path: /a, key: analytics-a, readers: [x, y, x], rotate_every: 2w}, {path: /b, rotate_every: 336h}]"
    assert policy_digest(parse_policy(one, "1")) == policy_digest(
        parse_policy(f"# other\n{two}\ncluster: analytics\nversion: 1\n", "2")
    )


def test_no_flows_and_empty_flows_are_published_as_different_policies() -> None:
    without, empty = parse_policy(_document("[]"), "1"), parse_policy(_document("[]", flows="[]"), "2")
    assert policy_digest(without) != policy_digest(empty)
    assert policy_from_json(json.loads(canonical_json(empty))).flows == ()


@pytest.mark.parametrize("document", [None, [], "x", 7, {}, {"version": 1, "cluster": "c", "zones": [{"path": "a"}]}])
def test_a_published_document_is_checked_like_a_written_one(document: Any) -> None:
    with pytest.raises(PolicyError):
        policy_from_json(document)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["version", "cluster", "zones", "path", "key", "flows", "from", "to", "who", "outside", "/a"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(_JSON)
def test_any_json_is_a_policy_or_a_policy_error(document: Any) -> None:
    try:
        assert isinstance(policy_from_json(document), Policy)
    except PolicyError as error:
        assert error.findings


@given(st.text(max_size=200))
def test_any_text_is_a_policy_or_a_policy_error(text: str) -> None:
    try:
        parse_policy(text, "z")
    except PolicyError as error:
        assert error.findings


@pytest.mark.parametrize("levels", [17, 900, 50_000])
def test_a_deep_published_document_is_a_problem_and_no_overflow(levels: int) -> None:
    deep: Any = []
    for _ in range(levels):
        deep = [deep]
    with pytest.raises(PolicyError) as caught:
        policy_from_json({"version": 1, "cluster": "c", "zones": deep})
    assert [finding.message for finding in caught.value.findings] == ["nested deeper than 16 levels"]


def test_a_misspelt_zone_of_a_flow_is_told_with_the_nearest_one() -> None:
    text = (
        "version: 1\ncluster: c\nzones:\n"
        "  - {path: /data/pii, readers: [m]}\n  - {path: /data/masked, writers: [m]}\n"
        "kms: {namenode_users: [hdfs], admins: [hdfs]}\n"
        "flows:\n  - {from: /data/pii, to: /data/maskd, who: [m]}\n"
    )
    (found,) = _refused(text)
    assert (found.rule, found.hint) == (Rule.UNKNOWN_ZONE, "did you mean /data/masked?")
