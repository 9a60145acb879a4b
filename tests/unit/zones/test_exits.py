"""The table from errors to exit codes, walked over the whole tree, and what standard error says."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

import pytest

from ringfence_zones import errors
from ringfence_zones.cli import exits
from ringfence_zones.errors import RingfenceError
from ringfence_zones.findings import Finding, Rule, Severity

FINDING = Finding(severity=Severity.ERROR, rule=Rule.BAD_VALUE, path="z:1", message="m", hint="h", command="c")
# What each parameter of an error's constructor gets.
ARGUMENTS: dict[str, Any] = {
    "message": "it failed",
    "path": "/a",
    "why": "is wrong",
    "findings": [FINDING],
    "feature": "ringfence kms",
    "extra": "kms",
    "rule": Rule.ZONE_ROOT,
    "key_name": "k",
    "where": "store",
    "version_name": "k@0",
    "expected": 1,
    "actual": 2,
    "backup_number": 1,
    "seen_number": 2,
    "conflicts": {"k": "it is another key"},
    "lease_name": "agent",
    "holder": "one",
    "left_s": 1.5,
    "grant_id": "g",
    "status": 500,
    "java_class": None,
}


def _subclasses(kind: type[RingfenceError]) -> Iterator[type[RingfenceError]]:
    yield kind
    for sub in kind.__subclasses__():
        yield from _subclasses(sub)


def _made(kind: type[RingfenceError]) -> RingfenceError:
    parameters = inspect.signature(kind.__init__).parameters.values()
    required = [each.name for each in parameters if each.default is each.empty and each.name in ARGUMENTS]
    return kind(**{name: ARGUMENTS[name] for name in required})


SPECIAL: dict[type[RingfenceError], int] = {
    errors.RolledBackError: exits.ROLLED_BACK,
    errors.NotRolledBackError: exits.NOT_ROLLED_BACK,
}
TREE = sorted({kind for kind in _subclasses(RingfenceError) if kind.__module__ == errors.__name__}, key=str)


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_error_has_an_exit_code_and_a_sentence(
    kind: type[RingfenceError], capsys: pytest.CaptureFixture[str]
) -> None:
    error = _made(kind)
    expected = SPECIAL.get(kind, exits.USAGE if issubclass(kind, errors.InputError) else exits.FAILED)
    assert exits.exit_code(error) == expected
    exits.print_error(error)
    exits.print_error(error, as_json=True)
    plain, document = capsys.readouterr().err.rstrip("\n").rsplit("\n", 1)
    assert plain.startswith(f"ringfence: {error.message}")
    assert json.loads(document)["error"]["message"] == error.message
    assert json.loads(document)["error"]["exit_code"] == expected


def test_every_entry_of_the_table_is_an_error_of_the_tree() -> None:
    assert set(exits.EXIT_CODES) <= set(TREE)


def test_a_refusal_says_rule_hint_and_command(capsys: pytest.CaptureFixture[str]) -> None:
    exits.print_error(errors.RefusedError("/a stays", Rule.ZONE_ROOT, hint="copy it", command="hdfs dfs -cp /a /b"))
    assert capsys.readouterr().err == (
        "ringfence: /a stays\n"
        "  rule: zone_root: The root of an encryption zone is not renamed.\n"
        "  hint: copy it\n"
        "  run:  hdfs dfs -cp /a /b\n"
    )


def test_findings_of_a_document_are_listed_with_their_hints(capsys: pytest.CaptureFixture[str]) -> None:
    exits.print_error(errors.PolicyError("z has 1 problem", [FINDING]))
    assert capsys.readouterr().err == "ringfence: z has 1 problem\n  z:1: m [bad_value]\n      hint: h\n      run:  c\n"


def test_a_name_in_a_message_cannot_rewrite_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    exits.print_error(RingfenceError("bad \x1b[2J\u202e\udce9 name"))
    assert capsys.readouterr().err == "ringfence: bad \\x1b[2J\\u202e\\udce9 name\n"
