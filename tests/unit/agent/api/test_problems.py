"""Every error of the tree has its problem document."""

from __future__ import annotations

import inspect
import json

import pytest

from ringfence_agent.api.problems import PROBLEMS, problem_of, problem_response
from ringfence_zones import errors
from ringfence_zones.errors import AccessDeniedError, PathError, PolicyError, RefusedError, RingfenceError
from ringfence_zones.findings import Finding, Rule, Severity


def _tree(root: type[RingfenceError]) -> list[type[RingfenceError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _tree(child))]


# Those of errors.py: a private subclass of some module is its parent to the outside.
CLASSES = [kind for kind in _tree(RingfenceError) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_class_has_an_entry_of_its_own_or_of_its_family(kind: type[RingfenceError]) -> None:
    entries = [ancestor for ancestor in kind.__mro__ if ancestor in PROBLEMS]
    assert entries, f"{kind.__name__} has no problem document"
    assert kind is RingfenceError or entries[0] is not RingfenceError, f"{kind.__name__} would be an internal error"


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_class_is_rendered_with_its_sentence_and_its_way_out(kind: type[RingfenceError]) -> None:
    error = kind.__new__(kind)
    RingfenceError.__init__(error, "a sentence", hint="a hint", command="a command")
    for name in inspect.signature(kind.__init__).parameters:
        if name not in ("self", "message", "hint", "command"):
            setattr(error, name, Rule.RAW_PATH if name == "rule" else ())
    answer = problem_response(error)
    body = json.loads(bytes(answer.body))
    assert answer.media_type == "application/problem+json"
    assert body["status"] == answer.status_code == problem_of(error).status
    assert 400 <= answer.status_code <= 599
    assert body["type"].startswith("urn:ringfence:problem:")
    assert (body["detail"], body["hint"], body["command"]) == ("a sentence", "a hint", "a command")


def test_statuses_and_types_do_not_contradict_each_other() -> None:
    slugs = [problem.slug for problem in PROBLEMS.values()]
    assert len(slugs) == len(set(slugs))
    assert problem_of(PathError("x", "is not a path")).status == 400
    assert problem_of(AccessDeniedError("no")).status == 403


def test_a_refusal_names_its_rule_and_a_bad_document_its_findings() -> None:
    refused = json.loads(bytes(problem_response(RefusedError("no", Rule.ZONE_ROOT)).body))
    assert refused["rule"] == "zone_root"
    finding = Finding(severity=Severity.ERROR, rule=Rule.BAD_PATH, path="p:1", message="m", hint="h")
    bad = json.loads(bytes(problem_response(PolicyError("bad", [finding])).body))
    assert bad["findings"] == [finding.to_json()]
