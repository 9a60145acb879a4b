"""The published JSON Schemas: current, and true of what the program prints."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter

import ringfence_zones
from ringfence_zones.check import find_violations
from ringfence_zones.findings import findings_json
from ringfence_zones.model import ClusterState, EncryptionZone, KmsState
from ringfence_zones.plan import make_plan
from ringfence_zones.policy import load_policy
from ringfence_zones.schemas import FindingsJson, PlanJson, generate_schemas, read_schema, schema_text

PACKAGE = Path(ringfence_zones.__file__).parent
POLICY = load_policy(PACKAGE.parent / "example.yaml")
STATE = ClusterState(
    hadoop_version=(3, 4, 2),
    zones=(EncryptionZone("/x", "k"), EncryptionZone("/y", "k")),
    directories={},
    protected_directories=(),
    kms=KmsState("kms://http@localhost:9600/kms", True, True, 0, None, {}),
)


def test_the_committed_schemas_are_those_of_the_models() -> None:
    for name, schema in generate_schemas().items():
        committed = (PACKAGE / name).read_text(encoding="utf-8")
        assert committed == schema_text(schema), "run: python -m ringfence_zones.schemas"


def test_every_schema_file_is_generated() -> None:
    assert {path.name for path in PACKAGE.glob("*.schema.json")} == set(generate_schemas())
    assert read_schema("policy").startswith("{")


def test_a_plan_is_as_its_schema_says() -> None:
    plan = make_plan(POLICY, STATE).to_json()
    assert plan["actions"]
    assert plan["problems"]
    TypeAdapter(PlanJson).validate_python(plan)


def test_findings_are_as_their_schema_says() -> None:
    TypeAdapter(FindingsJson).validate_python(findings_json(find_violations(POLICY, STATE)))
