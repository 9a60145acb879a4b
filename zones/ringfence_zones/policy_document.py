"""The policy document as it is written: one pydantic model per block, the source of the published JSON Schema.

These models say what one value may be. What several values mean together (shared keys, nested zones, flows without
access) is `policy_rules.py`; defaults and derived names are `policy.py`. Types are strict: `90` is no duration and
`yes` no boolean. A refusal carries its rule and its hint in the error's context.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr
from pydantic_core import PydanticCustomError

from ringfence_zones.custody import DEFAULT_CUSTODY, Custody
from ringfence_zones.errors import PathError
from ringfence_zones.findings import Rule
from ringfence_zones.keys import POLICY_KEY_NAME
from ringfence_zones.paths import HdfsPath, PathKind

EVERYONE = "*"
_DURATION_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhdw])")
_MODE = re.compile(r"[01]?[0-7]{3}")
_PRINCIPAL = re.compile(r"@?[^\s,:@*/\x00-\x1f\x7f]{1,255}")
_CLUSTER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def problem(rule: Rule, message: str, hint: str) -> PydanticCustomError:
    """A validation error that becomes a finding as it stands."""
    return PydanticCustomError("ringfence", "{message}", {"rule": rule.name, "message": message, "hint": hint})


def duration_s(text: str) -> int:
    """`90d` in seconds. Raises ValueError for anything but a whole number with a unit, at most some 31 years."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(text)
    seconds = int(match[1]) * _DURATION_UNITS_S[match[2]]
    # The published form is in seconds and must fit the same pattern.
    if seconds > 999_999_999:
        raise ValueError(text)
    return seconds


def _path(text: str) -> str:
    try:
        path = HdfsPath.parse(text)
    except PathError as error:
        raise problem(Rule.BAD_PATH, error.message, error.hint or "write an absolute path such as /data/a") from None
    if path.kind is not PathKind.NORMAL:
        message = f"{text!r} is a {path.kind.value} path"
        raise problem(Rule.BAD_PATH, message, f"name the live directory: {path.live}")
    return str(path)


def _key_name(text: str) -> str:
    if POLICY_KEY_NAME.fullmatch(text):
        return text
    hint = "use 1 to 200 of a-z, 0-9, dot, underscore and hyphen, beginning with a letter or digit"
    if POLICY_KEY_NAME.fullmatch(text.lower()):
        hint = f"write it in lower case: {text.lower()}"
    raise problem(Rule.BAD_KEY_NAME, f"{text!r} is not a key name that every Hadoop key provider takes", hint)


def _mode(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        hint = f'quote it: "{value:04d}"'
        raise problem(Rule.BAD_VALUE, f"the mode {value} is not quoted, so it is a number and not octal digits", hint)
    if isinstance(value, str) and not _MODE.fullmatch(value):
        message = f"{value!r} is not a mode of three or four octal digits"
        raise problem(Rule.BAD_VALUE, message, 'write it as "0750"; setuid and setgid mean nothing to HDFS')
    return value


def _duration(value: Any) -> Any:
    hint = 'write a whole number with a unit: "12h", "90d", "4w"'
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise problem(Rule.BAD_VALUE, f"{value} has no unit", hint)
    if isinstance(value, str):
        try:
            duration_s(value)
        except ValueError:
            raise problem(Rule.BAD_VALUE, f"{value!r} is not a duration", hint) from None
    return value


def _principal(text: str) -> str:
    if not _PRINCIPAL.fullmatch(text):
        hint = 'write a short name such as etl, or a group such as "@analysts"'
        raise problem(Rule.BAD_VALUE, f"{text!r} is not a user or @group", hint)
    return text


def _account(text: str) -> str:
    if text.startswith("@") or not _PRINCIPAL.fullmatch(text):
        raise problem(Rule.BAD_VALUE, f"{text!r} is not a short name", "write it as Hadoop sees it: etl")
    return text


def _reader(text: str) -> str:
    return text if text == EVERYONE else _principal(text)


def _writer(text: str) -> str:
    if text == EVERYONE:
        hint = "name the users or @groups that write; only readers may be everybody"
        raise problem(Rule.BAD_VALUE, "everybody may not be a writer", hint)
    return _principal(text)


def _cluster(text: str) -> str:
    if not _CLUSTER.fullmatch(text):
        hint = "use 1 to 63 letters, digits, dots, underscores and hyphens"
        raise problem(Rule.BAD_VALUE, f"{text!r} is not a cluster name", hint)
    return text


def _schema(pattern: re.Pattern[str]) -> Any:
    return Field(json_schema_extra={"pattern": f"^(?:{pattern.pattern})$"})


ZonePath = Annotated[StrictStr, AfterValidator(_path), Field(json_schema_extra={"pattern": "^/"})]
KeyName = Annotated[StrictStr, AfterValidator(_key_name), _schema(POLICY_KEY_NAME)]
Mode = Annotated[StrictStr, BeforeValidator(_mode), _schema(_MODE)]
Duration = Annotated[StrictStr, BeforeValidator(_duration), _schema(_DURATION)]
Account = Annotated[StrictStr, AfterValidator(_account)]
Principal = Annotated[StrictStr, AfterValidator(_principal)]
Reader = Annotated[StrictStr, AfterValidator(_reader)]
Writer = Annotated[StrictStr, AfterValidator(_writer)]
ClusterName = Annotated[StrictStr, AfterValidator(_cluster), _schema(_CLUSTER)]


def _length(value: Any) -> Any:
    if value in (128, 256) and not isinstance(value, bool):
        return value
    hint = "write 128 or 256; OpenSSL's codec on HDFS clients takes no 192"
    raise problem(Rule.BAD_VALUE, f"{value!r} is not a key length in bits", hint)


def document_version(value: Any) -> Any:
    """A version as it is, but no boolean: `true` would pass for 1."""
    if isinstance(value, bool):
        raise problem(Rule.BAD_VALUE, "the version is a number", "write  version: 1")
    return value


LengthBits = Annotated[StrictInt, BeforeValidator(_length), Field(json_schema_extra={"enum": [128, 256]})]
Trash = Literal["provision", "none"]

_CUSTODY = (
    "envelope: the key server holds the zone key; transit: Vault holds it, and wraps and opens each data key."
    " A key keeps the custody that it was made with."
)


class Block(BaseModel):
    """A block of the document: immutable, strict about its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False)


# What a zone gets that does not give its mode. With everybody as reader the owning group reads too: HDFS would stop
# its members at the group's entry and never look at the entry for others.
CLOSED_MODE = "0700"
CLOSED_MODE_FOR_EVERYONE = "0750"


class DefaultsBlock(Block):
    """What holds for every zone that does not say otherwise."""

    length_bits: LengthBits = Field(256, description="Length of a new zone key in bits.")
    custody: Custody = Field(DEFAULT_CUSTODY, description=_CUSTODY)
    rotate_every: Duration | None = Field(None, description="When a zone key is due for a roll, such as 90d.")
    trash: Trash = Field("provision", description="Whether a zone gets a trash directory of mode 1777.")


class ZoneBlock(Block):
    """One encryption zone and who may read and write in it."""

    path: ZonePath = Field(description="The zone's root: an absolute HDFS path.")
    key: KeyName | None = Field(None, description="The zone's key; derived from cluster and path when absent.")
    length_bits: LengthBits | None = Field(None, description="Length of the key in bits.")
    custody: Custody | None = Field(None, description=_CUSTODY)
    rotate_every: Duration | None = Field(None, description="When the key is due for a roll.")
    trash: Trash | None = Field(None, description="Whether the zone gets a trash directory.")
    owner: Account | None = Field(None, description="Owner of the root; left as it is when absent. Counts as a writer.")
    group: Account | None = Field(None, description="Owning group of the root; left as it is when absent.")
    mode: Mode | None = Field(
        None, description='Quoted octal: owner, owning group, others. When absent "0700", or "0750" with "*" as reader.'
    )
    readers: tuple[Reader, ...] = Field((), description='Users, "@groups" or "*" for everybody.')
    writers: tuple[Writer, ...] = Field((), description='Users and "@groups"; they may read as well.')
    nested: StrictBool = Field(False, description="Must be true for a zone that lies inside another.")

    @property
    def mode_bits(self) -> int:
        """The mode in force."""
        default = CLOSED_MODE_FOR_EVERYONE if EVERYONE in self.readers else CLOSED_MODE
        return int(self.mode or default, 8)


class FlowBlock(Block):
    """An edge along which data may move from one zone to another."""

    from_: ZonePath = Field(alias="from", description="A zone root of this document.")
    to: ZonePath = Field(description="A zone root of this document.")
    who: tuple[Principal, ...] = Field(min_length=1, description='Users and "@groups" that may move data here.')


class OutsideBlock(Block):
    """Which zones may send data to a clear-text place."""

    from_: tuple[ZonePath, ...] = Field(alias="from", description="Zone roots of this document.")


class FlowControlBlock(Block):
    """How the KMS treats a copy that no edge allows."""

    mode: Literal["shadow", "enforce"] = Field("shadow", description="shadow reports, enforce refuses.")
    enforce_on_claimed_identity: StrictBool = Field(
        False, description="Enforce although simple authentication makes a user a mere claim."
    )


class KmsBlock(Block):
    """Who runs the NameNode and who administers keys."""

    namenode_users: tuple[Principal, ...] = Field(min_length=1, description="Get GENERATE_EEK and READ.")
    admins: tuple[Principal, ...] = Field(min_length=1, description="Get MANAGEMENT and READ.")


class AgentBlock(Block):
    """What the agent may change by itself."""

    mode: Literal["observe", "enforce"] = Field("observe", description="observe changes nothing.")
    pin: Literal["apply", "print", "off"] = Field("print", description="How zone roots get protected.")
    revert_zone_root_renames: StrictBool = Field(False, description="Move a renamed zone root back.")


class PolicyDocument(Block):
    """A Ringfence policy: the encryption zones of one cluster, who uses them, and where data may move."""

    version: Annotated[Literal[1], BeforeValidator(document_version)] = Field(description="Version of this format.")
    cluster: ClusterName = Field(description="The cluster's name; part of derived key names.")
    defaults: DefaultsBlock = Field(DefaultsBlock())
    zones: tuple[ZoneBlock, ...] = Field(description="The encryption zones.")
    flows: tuple[FlowBlock, ...] | None = Field(
        None, description="Edges between zones. With this key, even empty, every other copy is denied."
    )
    outside: dict[ZonePath, OutsideBlock] | None = Field(
        None, description="Clear-text places that data may be sent to; the longest path wins."
    )
    must_encrypt: tuple[ZonePath, ...] = Field((), description="Whatever lies here outside a zone is a finding.")
    flow_control: FlowControlBlock = Field(FlowControlBlock())
    kms: KmsBlock | None = Field(None, description="Required unless the KMS is a stock one.")
    agent: AgentBlock = Field(AgentBlock())
