"""The JSON Schemas that are published with the package: policy, cases beside it, a plan, a list of findings.

Generated from the models, committed beside this file, and compared by a test. `python -m ringfence_zones.schemas`
writes them again after a model changed.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NotRequired

from pydantic import TypeAdapter, with_config
from typing_extensions import TypedDict

from ringfence_zones.findings import Rule, Severity
from ringfence_zones.plan import PLAN_SCHEMA, ActionKind
from ringfence_zones.policy_cases import CasesDocument
from ringfence_zones.policy_document import PolicyDocument

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


@with_config({"extra": "forbid"})
class FindingJson(TypedDict):
    """`Finding.to_json`."""

    severity: Severity
    rule: Rule
    path: str
    key: NotRequired[str]
    message: str
    hint: str
    command: NotRequired[str]


@with_config({"extra": "forbid"})
class FindingsJson(TypedDict):
    """`findings_json`: what `check --json` and `policy lint --json` print."""

    findings: list[FindingJson]


@with_config({"extra": "forbid"})
class ActionJson(TypedDict):
    """`Action.to_json`."""

    id: str
    kind: ActionKind
    path: str | None
    key: str | None
    detail: dict[str, Any]


@with_config({"extra": "forbid"})
class PlanJson(TypedDict):
    """`Plan.to_json`: what `plan --json` prints."""

    schema: Literal[1]
    revision: int | None
    actions: list[ActionJson]
    problems: list[FindingJson]


def generate_schemas() -> dict[str, dict[str, Any]]:
    """The schemas by file name, as the models have them now."""
    assert PLAN_SCHEMA == 1, "PlanJson names the version"
    return {
        "policy.schema.json": _published("policy", PolicyDocument.model_json_schema(by_alias=True)),
        "cases.schema.json": _published("cases", CasesDocument.model_json_schema(by_alias=True)),
        "plan.schema.json": _published("plan", TypeAdapter(PlanJson).json_schema()),
        "finding.schema.json": _published("finding", TypeAdapter(FindingsJson).json_schema()),
    }


def read_schema(name: str) -> str:
    """The committed text of `policy`, `cases`, `plan` or `finding`."""
    return (files("ringfence_zones") / f"{name}.schema.json").read_text(encoding="utf-8")


def schema_text(schema: dict[str, Any]) -> str:
    """How a schema is written to its file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _published(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"$schema": _DIALECT, "$id": f"urn:ringfence:schema:{name}:1", **schema}


def _write() -> None:
    for name, schema in generate_schemas().items():
        (Path(__file__).parent / name).write_text(schema_text(schema), encoding="utf-8")


if __name__ == "__main__":
    _write()
