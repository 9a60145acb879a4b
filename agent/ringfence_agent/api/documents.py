"""The JSON the agent takes and gives, as models: the source of the OpenAPI description.

Answers are built as plain objects where the shape is fixed elsewhere (findings, move decisions); a test holds them
against these models.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ringfence_zones.paths import MAX_PATH_BYTES
from ringfence_zones.yarn import APPLICATION


class Document(BaseModel):
    """Base of what goes in and out: closed, without coercion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class EventsStatus(Document):
    """Where the agent is in HDFS's event stream. `lag` is in transactions."""

    position: int | None = Field(description="The last transaction that was read; null after a loss of events.")
    lag: int | None
    age_s: float | None = Field(description="Seconds since the stream was last read.")
    problem: str | None
    open_cases: int = Field(description="Forbidden renames that are neither undone nor left.")


class LeaseStatus(Document):
    """Which of several agents acts."""

    state: Literal["held", "other", "unknown", "no_leases"]
    acts: bool = Field(description="This agent may change something now.")
    holder: str | None
    problem: str | None


class Budget(Document):
    """What is used of what may be."""

    used: float
    limit: float


class Budgets(Document):
    """The agent and its Java together, over the last minute."""

    hdfs_calls_per_minute: Budget
    cpu_percent: Budget
    memory_bytes: Budget
    exceeded: str | None


class Health(Document):
    """Whether the loop runs (`live`) and whether questions are answered (`ready`)."""

    live: bool = Field(description="A cycle ended lately, however it went.")
    ready: bool = Field(description="The cluster was seen recently enough to answer from.")
    version: str
    mode: Literal["observe", "enforce"] | None = Field(description="From the policy; null without one.")
    cycle: int = Field(description="How many cycles have ended since the agent started.")
    cycle_age_s: float = Field(description="Seconds since the last one ended.")
    sentence: str = Field(description="What the last cycle said.")
    findings: int = Field(description="How many findings there are.")
    events: EventsStatus | None = Field(description="Null until the stream was read.")
    lease: LeaseStatus | None = Field(description="Null before the first cycle.")
    budgets: Budgets | None


class Zone(Document):
    """An encryption zone. `pinned` is null when no NameNode would tell."""

    path: str
    key: str
    in_policy: bool | None = Field(description="Null without a policy.")
    pinned: bool | None


class Zones(Document):
    """Every encryption zone of the cluster, by path."""

    zones: list[Zone]


class ZoneOf(Document):
    """The innermost zone that holds a path; null outside every zone."""

    path: str
    zone: Zone | None


class MoveQuestion(Document):
    """May `user` (default: the caller) move `src` to `dst`?"""

    src: str = Field(max_length=MAX_PATH_BYTES)
    dst: str = Field(max_length=MAX_PATH_BYTES)
    user: str | None = Field(default=None, min_length=1, max_length=256)


class MoveAnswer(Document):
    """The same object as `ringfence policy decide-move --json`."""

    rename: bool = Field(description="The NameNode permits the rename, and no zone root is moved by it.")
    transfer: bool = Field(description="The policy lets the user bring the data there.")
    same_zone: bool
    reason: str | None
    rule: str | None
    command: str | None = Field(description="What works instead; null when the rename is allowed.")


class FindingDocument(Document):
    """Something that is not as policy or good practice wants it."""

    severity: Literal["error", "warn", "info"]
    rule: str
    path: str
    message: str
    hint: str
    key: str | None = None
    command: str | None = None


class Findings(Document):
    """All of them, most severe first."""

    findings: list[FindingDocument]


JOB_NAME = r"^[A-Za-z0-9._-]{1,128}$"
VerbName = Literal["look", "check", "grant", "transfer", "administer"]
RoleName = Literal["viewer", "operator", "admin"]
HdfsPathText = Annotated[str, Field(min_length=1, max_length=MAX_PATH_BYTES)]
UserName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,254}\$?$")]


class PlacesAnswer(Document):
    """Where to put what is not finished yet; all in the zone that `path` is in."""

    path: str
    zone: str | None = Field(description="The zone's root; null outside every zone.")
    staging: str = Field(description="For what will be renamed to `path`.")
    scratch: str = Field(description="For what will be thrown away.")
    why: str


class PolicyNow(Document):
    """The policy that the agent follows; null without one."""

    digest: str | None = Field(description="SHA-256 of the canonical JSON.")
    document: dict[str, Any] | None


class PolicyText(Document):
    """A policy document as it would stand in zones.yaml."""

    document: str = Field(max_length=1024 * 1024, description="YAML.")


class Validated(Document):
    """What is wrong with a policy document."""

    valid: bool
    findings: list[FindingDocument]


class PolicyCases(Document):
    """Cases, and the policy that they are about."""

    cases: str = Field(max_length=1024 * 1024, description="YAML, as in zones.test.yaml.")
    document: str | None = Field(
        default=None, max_length=1024 * 1024, description="YAML; null: the policy that the agent follows."
    )


class Tested(Document):
    """Every case with what the policy says of it; a finding for each that is not as expected."""

    cases: list[dict[str, Any]]
    findings: list[FindingDocument]


class GrantWish(Document):
    """Leave for one job to bring data from one zone to another.

    The job's session is its delegation token's sequence number, or the address that its requests come from.
    """

    from_: HdfsPathText = Field(alias="from", description="The root of the zone that is read.")
    to: HdfsPathText = Field(description="The root of the zone that is written.")
    life_s: float = Field(gt=0, le=86400, strict=False, description="Seconds from when it is approved.")
    purpose: str = Field(min_length=1, max_length=500, description="What it is for: one line.")
    user: UserName | None = Field(default=None, description="Whose job it is; null: the caller's.")
    token: int | None = Field(default=None, ge=0)
    address: str | None = Field(default=None, max_length=45)
    real_user: UserName | None = Field(default=None, description="Who acts for the user, with `address`.")
    application: str | None = Field(
        default=None, pattern=f"^{APPLICATION.pattern}$", description="The YARN application that it ends with."
    )


class GrantDocument(Document):
    """A grant, or the wish for one. Times are seconds since the epoch."""

    id: str
    state: Literal["requested", "active", "ended"]
    user: str
    from_: str = Field(alias="from")
    to: str
    token: int | None
    address: str | None
    real_user: str | None
    purpose: str
    life_s: float = Field(description="How long it lasts, or was to last.")
    requested_by: str | None = Field(description="Null for one that was not asked for here.")
    approver: str | None
    created_s: float
    not_after_s: float | None = Field(description="When it ends; of a wish, when that is forgotten.")
    ended_s: float | None
    ended_by: str | None = Field(description="`deleted`, `time` or `token`.")
    application: str | None = Field(description="The YARN application that it ends with.")


class Grants(Document):
    """Wishes first, then what the KMS has."""

    grants: list[GrantDocument]


class Ended(Document):
    """The grant that has ended, or the wish that is forgotten."""

    ended: str


class TokenWish(Document):
    """What a new token is to be good for."""

    user: UserName = Field(description="Whose rights it carries.")
    role: RoleName
    life_s: float = Field(description="Seconds; a day at most.", gt=0, le=86400, strict=False)
    verbs: list[VerbName] | None = Field(default=None, description="Fewer than the role's; null: all of them.")
    paths: list[HdfsPathText] | None = Field(
        default=None, min_length=1, max_length=64, description="Where it is good; null: everywhere."
    )


class TokenDocument(Document):
    """A token without the token. Times are seconds since the epoch."""

    name: str
    user: str
    role: RoleName
    verbs: list[VerbName]
    paths: list[str] | None
    issued_s: int
    expires_s: int
    issued_by: str


class IssuedToken(TokenDocument):
    """A new token."""

    token: str = Field(description="The secret. It is told this once.")


class Tokens(Document):
    """Those that are good."""

    tokens: list[TokenDocument]


class RevokedToken(Document):
    """The token that has ended."""

    revoked: str


class ProblemDocument(BaseModel):
    """RFC 9457. Further members: `hint`, `command`, `rule`, `findings`, `errors`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    title: str
    status: int
    detail: str | None = None
