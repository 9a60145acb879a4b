"""Cases beside a policy: what they may say, and how they are judged."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from ringfence_zones.errors import PolicyError
from ringfence_zones.findings import Finding, Rule
from ringfence_zones.policy import load_policy
from ringfence_zones.policy_cases import Case, CaseResult, MoveRule, find_cases_file, load_cases, run_cases

EXAMPLE = Path(__file__).parents[3] / "zones" / "example.yaml"


def _write(directory: Path, *cases: str, head: str = "version: 1") -> Path:
    path = directory / "zones.test.yaml"
    path.write_text("\n".join([head, "cases:", *(f"  - {case}" for case in cases)]) + "\n", encoding="utf-8")
    return path


def _case(directory: Path, case: str) -> Case:
    (loaded,) = load_cases(_write(directory, case))
    return loaded


def _result(directory: Path, case: str) -> CaseResult:
    (result,) = run_cases(load_policy(EXAMPLE), (_case(directory, case),))
    return result


def _problems(path: Path) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        load_cases(path)
    return [f"{finding.path.rpartition(':')[2]} {finding.rule.value}" for finding in caught.value.findings]


def _findings(path: Path) -> tuple[Finding, ...]:
    with pytest.raises(PolicyError) as caught:
        load_cases(path)
    return caught.value.findings


def test_cases_lie_beside_the_policy() -> None:
    assert find_cases_file(Path("conf/zones.yaml")) == Path("conf/zones.test.yaml")
    assert find_cases_file(Path("prod.yml")) == Path("prod.test.yml")


def test_every_problem_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    path = _write(
        tmp_path,
        "{user: etl, from: data/pii, to: /data/masked/../pii, expect: {rename: false}}",
        "{usr: etl, from: /a, to: /b, expect: {transfr: true, rename: 'false'}}",
        "{user: '@team', groups: ['*'], from: /a, to: /b, expect: {rule: zone_to_zon}}",
        "{user: etl, from: /a, to: /b, expect: {}}",
        "{user: etl, user: etl, from: /a, to: /b, expect: {rename: true}}",
        head="version: 2\nchecks: 1",
    )
    assert _problems(path) == [
        "1 bad_value",
        "2 unknown_field",
        "4 bad_path",
        "4 bad_path",
        "5 missing_field",
        "5 bad_value",
        "5 unknown_field",
        "5 unknown_field",
        "6 bad_value",
        "6 bad_value",
        "6 bad_value",
        "7 bad_value",
        "8 duplicate_field",
    ]


@pytest.mark.parametrize(
    ("case", "hint"),
    [
        ("{usr: etl, from: /a, to: /b, expect: {rename: true}}", "'user'"),
        ("{user: etl, from: /a, to: /b, expect: {transfr: true}}", "'transfer'"),
        ("{user: etl, from: /a, to: /b, expect: {rule: zone_to_zon}}", "'zone_to_zone'"),
        ("{user: etl, form: /a, to: /b, expect: {rename: true}}", "'from'"),
    ],
)
def test_a_mistyped_word_gets_the_nearest_one(tmp_path: Path, case: str, hint: str) -> None:
    assert any(finding.hint == f"did you mean {hint}?" for finding in _findings(_write(tmp_path, case)))


@pytest.mark.parametrize("text", ["version: 1\ncases: []\n", "version: 1\n", "", "[]\n"])
def test_a_document_without_cases_is_refused_for_it_could_not_fail(tmp_path: Path, text: str) -> None:
    path = tmp_path / "zones.test.yaml"
    path.write_text(text, encoding="utf-8")
    assert _problems(path)


def test_a_file_that_is_not_there_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot read the cases") as caught:
        load_cases(tmp_path / "none.yaml")
    assert caught.value.hint is not None
    assert "CASES.yaml" in caught.value.hint


def test_the_rules_that_may_be_expected_are_those_of_moves() -> None:
    # The group of `Rule` begins with ZONE_TO_ZONE and is the last one; flow rules refuse no rename.
    rules = list(Rule)
    moves = [rule.value for rule in rules[rules.index(Rule.ZONE_TO_ZONE) :] if rule is not Rule.FLOW_REFUSED]
    assert list(get_args(MoveRule)) == moves


@pytest.mark.parametrize(
    ("case", "got"),
    [
        ("masker: /data/pii/f -> /data/masked/f", (False, True, False, True, "zone_to_zone")),
        ("analyst: /data/pii/f -> /data/masked/f", (False, False, False, False, "zone_to_zone")),
        ("masker: /data/masked/f -> /data/pii/f", (False, False, False, False, "zone_to_zone")),
        ("etl: /data/pii/f -> /data/pii/g", (True, True, True, True, None)),
        # The KMS cannot tell a copy to clear text from a read: the flow rules let it pass.
        ("analyst: /data/pii/f -> /tmp/f", (False, False, False, True, "zone_to_clear")),
        ("anybody: /data/masked/f -> /exports/f", (False, True, False, True, "zone_to_clear")),
        ("analyst: /tmp/f -> /data/pii/f", (False, False, False, True, "clear_to_zone")),
        ("etl: /tmp/f -> /data/pii", (False, True, False, True, "clear_to_zone")),
        ("etl: /tmp/f -> /tmp/g", (True, True, False, True, None)),
        ("etl: /data/pii -> /data/masked", (False, False, False, False, "zone_root")),
        # A clear directory carries the zones below it, and so does a copy of it.
        ("etl: /data -> /data/masked", (False, False, False, False, "zone_root_ancestor")),
        ("etl: /.reserved/raw/data/pii/f -> /.reserved/raw/data/masked/f", (False, False, False, True, "raw_path")),
    ],
)
def test_a_case_is_judged_in_the_words_of_decide_move_and_of_the_flow_rules(
    tmp_path: Path, case: str, got: tuple[object, ...]
) -> None:
    user, _, move = case.partition(": ")
    src, _, dst = move.partition(" -> ")
    result = _result(tmp_path, f"{{user: {user}, from: {src}, to: {dst}, expect: {{rename: true}}}}")
    assert tuple(result.got[name] for name in ("rename", "transfer", "same_zone", "flow", "rule")) == got


def test_without_flows_every_copy_between_zones_passes(tmp_path: Path) -> None:
    policy = load_policy(EXAMPLE).model_copy(update={"flows": None})
    case = _case(tmp_path, "{user: u, from: /data/pii/f, to: /data/masked/f, expect: {flow: true, transfer: true}}")
    assert [result.unmet for result in run_cases(policy, (case,))] == [()]


def test_only_what_is_expected_is_judged_and_each_failure_says_what_decided(tmp_path: Path) -> None:
    result = _result(
        tmp_path,
        "{name: n, user: u, groups: [g], from: /data/pii/f, to: /data/masked/f,"
        " expect: {rename: false, transfer: true, rule: zone_root}}",
    )
    assert result.unmet == ("transfer", "rule")
    assert result.because("transfer") == "the policy has no flow from /data/pii to /data/masked for u"
    assert result.because("rule").startswith("zone_to_zone: ")
    finding = result.to_finding()
    assert finding.rule is Rule.EXPECTATION_FAILED
    assert finding.path == f"{tmp_path}/zones.test.yaml:3"
    assert "transfer is false, not true (the policy has no flow" in finding.message


def test_an_allowed_transfer_names_the_edge_that_allows_it(tmp_path: Path) -> None:
    flow = _result(tmp_path, "{user: masker, from: /data/pii/f, to: /data/masked/f, expect: {transfer: false}}")
    assert flow.because("transfer") == "the flow from /data/pii to /data/masked for masker"
    outside = _result(tmp_path, "{user: masker, from: /data/masked/f, to: /exports/f, expect: {transfer: false}}")
    assert outside.because("transfer") == "'outside' lets /data/masked send data to /exports"


def test_groups_of_a_case_count(tmp_path: Path) -> None:
    policy = load_policy(EXAMPLE)
    flow = policy.flows[0].model_copy(update={"who": ("@maskers",)}) if policy.flows else None
    policy = policy.model_copy(update={"flows": (flow,)})
    text = "{{user: u, groups: [{}], from: /data/pii/f, to: /data/masked/f, expect: {{flow: true}}}}"
    for groups, passes in (("maskers", True), ("others", False)):
        (result,) = run_cases(policy, (_case(tmp_path, text.format(groups)),))
        assert (not result.unmet) == passes


def test_a_move_that_nobody_can_make_is_bad_input_with_its_line(tmp_path: Path) -> None:
    policy = load_policy(EXAMPLE).model_copy(update={"zones": ()})
    cases = load_cases(_write(tmp_path, *["{user: u, from: /, to: /b, expect: {rename: true}}"] * 2))
    with pytest.raises(PolicyError) as caught:
        run_cases(policy, cases)
    assert [finding.path.rpartition(":")[2] for finding in caught.value.findings] == ["3", "4"]


def test_the_cases_beside_the_example_pass() -> None:
    results = run_cases(load_policy(EXAMPLE), load_cases(find_cases_file(EXAMPLE)))
    assert len(results) >= 6
    assert [result.case.where for result in results if result.unmet] == []
