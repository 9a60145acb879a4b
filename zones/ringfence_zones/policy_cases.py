"""Cases beside a policy: who moves what where, and what the policy is expected to say of it.

    version: 1
    cases:
      - name: the masker publishes
        user: masker
        from: /data/pii/in/f
        to: /data/masked/in/f
        expect: {rename: false, transfer: true, flow: true, rule: zone_to_zone}

The document is read as strictly as a policy: unknown fields, wrong types and paths that are none are all told at once,
each with its line. Rules:

1. `expect` speaks in the words of `policy decide-move --json` (`rename`, `transfer`, `same_zone`, `rule`); `flow` is
   whether the KMS's flow rules let a copy by ordinary tools pass, be they enforced or in shadow.
2. What `expect` does not name is not judged; an `expect` that names nothing, or a document without a case, is refused:
   it could not fail.
3. The zones are those of the policy. Nothing here asks a cluster, and nobody's groups but those a case gives are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictStr, ValidationError, model_validator

from ringfence_zones.errors import PathError
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.model import EncryptionZone
from ringfence_zones.moves import MoveDecision, Permission, ZoneMap, decide_flow, decide_move
from ringfence_zones.paths import HdfsPath
from ringfence_zones.policy import Policy, document_error, read_document
from ringfence_zones.policy_document import Account, Block, document_version, problem
from ringfence_zones.policy_problems import findings_of, replace_nulls
from ringfence_zones.policy_yaml import MAX_VALUES, LocatedDocument, read_yaml


def _move_path(text: str) -> str:
    try:
        return str(HdfsPath.parse(text))
    except PathError as error:
        raise problem(Rule.BAD_PATH, error.message, error.hint or "write an absolute path such as /data/a/f") from None


MovePath = Annotated[StrictStr, AfterValidator(_move_path), Field(json_schema_extra={"pattern": "^/"})]
MoveRule = Literal[
    "zone_to_zone",
    "zone_to_clear",
    "clear_to_zone",
    "zone_root",
    "zone_root_ancestor",
    "raw_path",
    "snapshot_path",
]


class ExpectBlock(Block):
    """What is expected; at least one field."""

    rename: StrictBool | None = Field(None, description="Whether a rename is allowed.")
    transfer: StrictBool | None = Field(None, description="Whether policy lets the data move, by a sanctioned copy.")
    same_zone: StrictBool | None = Field(None, description="Whether both ends are in the same encryption zone.")
    flow: StrictBool | None = Field(None, description="Whether the KMS's flow rules let a copy by ordinary tools pass.")
    rule: MoveRule | None = Field(None, description="The rule that refuses the rename.")

    @model_validator(mode="after")
    def _names_something(self) -> ExpectBlock:
        if not self.expected:
            hint = "name at least one of rename, transfer, same_zone, flow, rule"
            raise problem(Rule.BAD_VALUE, "nothing is expected, so the case could not fail", hint)
        return self

    @property
    def expected(self) -> dict[str, bool | str]:
        """What is expected, by field."""
        return self.model_dump(exclude_none=True)


class CaseBlock(Block):
    """One case: a move and what is expected of it."""

    name: StrictStr | None = Field(None, description="What the case is about, in words.")
    user: Account = Field(description="Who moves.")
    groups: tuple[Account, ...] = Field((), description="The groups of the user.")
    from_: MovePath = Field(alias="from", description="What is moved.")
    to: MovePath = Field(description="Where to; a zone's root means into it.")
    expect: ExpectBlock = Field(description="What is expected of the move.")


def _some(cases: tuple[CaseBlock, ...]) -> tuple[CaseBlock, ...]:
    # Not min_length, which counts the cases that are right.
    if not cases:
        raise problem(Rule.BAD_VALUE, "there is no case, so nothing could fail", "write at least one case")
    return cases


class CasesDocument(Block):
    """Cases beside a Ringfence policy: moves, and what the policy is expected to say of them."""

    version: Annotated[Literal[1], BeforeValidator(document_version)] = Field(description="Version of this format.")
    cases: Annotated[tuple[CaseBlock, ...], AfterValidator(_some)] = Field(
        description="The cases.", json_schema_extra={"minItems": 1}
    )


@dataclass(frozen=True, slots=True)
class Case:
    """A case and where it stands: `FILE:LINE`."""

    where: str
    block: CaseBlock

    @property
    def title(self) -> str:
        """Its name, else what it does."""
        return self.block.name or f"{self.block.user}: {self.block.from_} -> {self.block.to}"


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What the policy says of a case. `got` has every field that `expect` may name."""

    case: Case
    decision: MoveDecision
    flow: Permission

    @property
    def got(self) -> dict[str, bool | str | None]:
        """The decision, in the words of `expect`."""
        rule = self.decision.rule.value if self.decision.rule is not None else None
        return {
            "rename": self.decision.rename,
            "transfer": self.decision.transfer,
            "same_zone": self.decision.same_zone,
            "flow": self.flow.granted,
            "rule": rule,
        }

    @property
    def unmet(self) -> tuple[str, ...]:
        """The fields of `expect` that the decision does not meet."""
        got = self.got
        return tuple(name for name, expected in self.case.block.expect.expected.items() if got[name] != expected)

    def because(self, name: str) -> str:
        """What decided about one field of `expect`."""
        decision = self.decision
        if name == "flow":
            return self.flow.because
        if name == "transfer":
            return decision.grounds
        if decision.rule is None:
            return "a rename that neither leaves nor enters a zone is allowed"
        return f"{decision.rule.value}: {decision.rule.meaning}"

    def to_json(self) -> dict[str, Any]:
        """Everything about the case, `because` for what it expected otherwise."""
        block = self.case.block
        return {
            "where": self.case.where,
            "name": block.name,
            "user": block.user,
            "groups": list(block.groups),
            "from": block.from_,
            "to": block.to,
            "passed": not self.unmet,
            "expected": block.expect.expected,
            "got": self.got,
            "because": {name: self.because(name) for name in self.unmet},
        }

    def to_finding(self) -> Finding:
        """A case that failed, as a finding."""
        expected, got = self.case.block.expect.expected, self.got
        told = "; ".join(
            f"{name} is {shown_value(got[name])}, not {shown_value(expected[name])} ({self.because(name)})"
            for name in self.unmet
        )
        return Finding(
            severity=Severity.ERROR,
            rule=Rule.EXPECTATION_FAILED,
            path=self.case.where,
            message=f"{self.case.title}: {told}",
            hint="change the policy; or the case, if the policy is right",
        )


def load_cases(path: Path) -> tuple[Case, ...]:
    """Reads a document of cases. Raises PolicyError with every problem, the file's own unreadability included."""
    hint = "write the cases there, or name their file: ringfence policy test -f zones.yaml CASES.yaml"
    return _cases(read_document(path, "the cases", hint=hint))


def parse_cases(text: str, name: str, most_values: int = MAX_VALUES) -> tuple[Case, ...]:
    """The cases of a text; `name` stands in messages. Raises as `load_cases`."""
    return _cases(read_yaml(text, name, most_values))


def _cases(located: LocatedDocument) -> tuple[Case, ...]:
    if located.findings and located.data is None:
        raise document_error(located.name, located.findings)
    data, problems = replace_nulls(located)
    problems = [*located.findings, *problems]
    try:
        document = CasesDocument.model_validate(data)
    except ValidationError as error:
        problems += findings_of(error, located, CasesDocument, "a document of cases")
    if problems:
        raise document_error(located.name, problems)
    return tuple(Case(located.where(("cases", at)), block) for at, block in enumerate(document.cases))


def run_cases(policy: Policy, cases: tuple[Case, ...]) -> list[CaseResult]:
    """What the policy says of each case. Raises PolicyError for moves that nobody can make, all of them."""
    zones = ZoneMap([EncryptionZone(zone.path, zone.key) for zone in policy.zones])
    results: list[CaseResult] = []
    problems: list[Finding] = []
    for case in cases:
        try:
            results.append(_run(policy, zones, case))
        except PathError as error:
            hint = error.hint or "name a file or directory below it"
            problems.append(
                Finding(severity=Severity.ERROR, rule=Rule.BAD_PATH, path=case.where, message=error.message, hint=hint)
            )
    if problems:
        raise document_error(problems[0].path.rpartition(":")[0], problems)
    return results


def _run(policy: Policy, zones: ZoneMap, case: Case) -> CaseResult:
    block = case.block
    src, dst = HdfsPath.parse(block.from_), HdfsPath.parse(block.to)
    decision = decide_move(policy, zones, user=block.user, groups=block.groups, src=src, dst=dst)
    flow = decide_flow(policy, zones, user=block.user, groups=block.groups, src=src, dst=dst)
    return CaseResult(case, decision, flow)


def find_cases_file(policy_file: Path) -> Path:
    """Where the cases of a policy are when nobody says: `zones.test.yaml` beside `zones.yaml`."""
    return policy_file.with_name(f"{policy_file.stem}.test{policy_file.suffix}")


def shown_value(value: bool | str | None) -> str:
    """A value of `expect`, as the document writes it; `none` for no rule."""
    return "none" if value is None else value if isinstance(value, str) else str(value).lower()
