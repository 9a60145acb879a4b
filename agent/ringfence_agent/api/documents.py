"""The JSON the agent takes and gives, as models: the source of the OpenAPI description.

Answers are built as plain objects where the shape is fixed elsewhere (findings, move decisions); a test holds them
against these models.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ringfence_zones.paths import MAX_PATH_BYTES


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Health(_Document):
    """Whether the loop runs (`live`) and whether questions are answered (`ready`)."""

    live: bool = Field(description="A cycle ended lately, however it went.")
    ready: bool = Field(description="The cluster was seen recently enough to answer from.")
    version: str
    mode: Literal["observe", "enforce"] | None = Field(description="From the policy; null without one.")
    cycle: int = Field(description="How many cycles have ended since the agent started.")
    cycle_age_s: float = Field(description="Seconds since the last one ended.")
    sentence: str = Field(description="What the last cycle said.")
    findings: int = Field(description="How many findings there are.")


class Zone(_Document):
    """An encryption zone. `pinned` is null when no NameNode would tell."""

    path: str
    key: str
    in_policy: bool | None = Field(description="Null without a policy.")
    pinned: bool | None


class Zones(_Document):
    """Every encryption zone of the cluster, by path."""

    zones: list[Zone]


class ZoneOf(_Document):
    """The innermost zone that holds a path; null outside every zone."""

    path: str
    zone: Zone | None


class MoveQuestion(_Document):
    """May `user` (default: the caller) move `src` to `dst`?"""

    src: str = Field(max_length=MAX_PATH_BYTES)
    dst: str = Field(max_length=MAX_PATH_BYTES)
    user: str | None = Field(default=None, min_length=1, max_length=256)


class MoveAnswer(_Document):
    """The same object as `ringfence policy decide-move --json`."""

    rename: bool = Field(description="The NameNode permits the rename, and no zone root is moved by it.")
    transfer: bool = Field(description="The policy lets the user bring the data there.")
    same_zone: bool
    reason: str | None
    rule: str | None
    command: str | None = Field(description="What works instead; null when the rename is allowed.")


class FindingDocument(_Document):
    """Something that is not as policy or good practice wants it."""

    severity: Literal["error", "warn", "info"]
    rule: str
    path: str
    message: str
    hint: str
    key: str | None = None
    command: str | None = None


class Findings(_Document):
    """All of them, most severe first."""

    findings: list[FindingDocument]


class ProblemDocument(BaseModel):
    """RFC 9457. Further members: `hint`, `command`, `rule`, `findings`, `errors`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    title: str
    status: int
    detail: str | None = None
