"""Reads a program's own YAML configuration file strictly.

Rules (design section 9):

1. A file holds what its program knows and nothing else: an unknown key stops the program, and the message names the
   nearest known one. A key given twice stops it as well, and YAML means what `policy_yaml` says it means.
2. Every problem is reported in one go, each with its line.
3. Durations and sizes carry their unit (`5s`, `10m`, `64MiB`); a bare number is refused.
4. No value holds a secret: models name files (`*_file`), so that a message may quote what it refuses. Where people put
   one all the same, in place of a file's name or before the host of an address, it is not quoted: messages are logged.
5. What is told is the setting, what it must be, and beside a name that is not known or not there the ones that are.

It only reads; it fills in no default that the model does not state.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ringfence_zones.errors import ConfigError
from ringfence_zones.policy_yaml import Location, read_yaml

MAX_FILE_BYTES = 1024 * 1024
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")

_UNITS_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB|TiB)")

_NOT_A_BLOCK = frozenset({"model_type", "dict_type"})
_ABOUT_NAMES = frozenset({"extra_forbidden", "missing", "model_type"})
_BOUNDS = {
    "greater_than_equal": "at least",
    "less_than_equal": "at most",
    "greater_than": "more than",
    "less_than": "less than",
}
_NAMES_A_FILE = "_file"
_CREDENTIALS = re.compile(r"://[^/\s'\"]*@")
_SHOWN_CHARACTERS = 60

Model = TypeVar("Model", bound=BaseModel)
Units = Mapping[str, float]


class ConfigModel(BaseModel):
    """Base of configuration models: frozen, closed, no coercion beyond what a field's type says."""

    # What a file does not say is never validated: building every block's validator at import would be time lost.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


def parse_duration_s(value: object) -> float:
    """`"500ms"`, `"5s"`, `"10m"`, `"2h"`, `"30d"` in seconds. Raises ValueError without a unit."""
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a duration with a unit: 500ms, 5s, 10m, 2h or 30d")
    return float(match[1]) * _UNITS_S[match[2]]


def parse_size_bytes(value: object) -> int:
    """`"4096B"`, `"64KiB"`, `"256MiB"`, `"2GiB"`, `"1TiB"` in bytes. Raises ValueError without a unit."""
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a size with a unit: 4096B, 64KiB, 256MiB or 2GiB")
    return int(match[1]) * _UNITS_BYTES[match[2]]


def _absolute_path(value: object) -> Path:
    if not isinstance(value, str | Path) or not Path(value).is_absolute():
        raise ValueError("must be an absolute path")
    return Path(value)


DurationS = Annotated[float, BeforeValidator(parse_duration_s)]
"""Seconds, written with a unit; only a model's default is a bare float."""
SizeBytes = Annotated[int, BeforeValidator(parse_size_bytes)]
"""Bytes, written with a unit; only a model's default is a bare int."""
AbsolutePath = Annotated[Path, BeforeValidator(_absolute_path)]
"""A local path that means the same from every working directory."""


def read_config(path: Path, model: type[Model]) -> Model:
    """The file as a value of `model`. Raises ConfigError naming every problem, each with its line."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {path}: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_FILE_BYTES} bytes: not a configuration file")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 (byte {error.start})") from error
    return parse_config(text, str(path), model)


def parse_config(text: str, name: str, model: type[Model]) -> Model:
    """As `read_config`, for text; `name` is how messages call the file. An empty document means all defaults."""
    document = read_yaml(text, name)
    problems = [(finding.path, finding.message) for finding in document.findings]
    data = {} if document.data is None and not problems else document.data
    if data is None:
        raise ConfigError(_sentence(name, problems), hint=document.findings[0].hint)
    if not isinstance(data, dict):
        raise ConfigError(f"{name} must be a mapping of settings", hint="write one `name: value` a line")
    details: list[ErrorDetails] = []
    try:
        parsed = model.model_validate(data)
    except ValidationError as error:
        details = error.errors()
        problems += [(document.where(detail["loc"]), _problem(detail, model)) for detail in details]
        parsed = None
    if problems or parsed is None:
        raise ConfigError(_sentence(name, sorted(set(problems), key=_line)), hint=_hint(details, model))
    return parsed


def _sentence(name: str, problems: list[tuple[str, str]]) -> str:
    if len(problems) == 1:
        where, text = problems[0]
        return f"{where}: {text}"
    listed = "".join(f"\n  {where}: {text}" for where, text in problems)
    return f"{name} has {len(problems)} problems:{listed}"


def _line(problem: tuple[str, str]) -> int:
    return int(problem[0].rpartition(":")[2])


def _hint(details: list[ErrorDetails], model: type[BaseModel]) -> str | None:
    """The settings of each block where a name is not one, or was left out; None when only values are wrong."""
    blocks = []
    for detail in details:
        place = detail["loc"] if detail["type"] in _NOT_A_BLOCK else detail["loc"][:-1]
        known = _settings_of(place, model) if detail["type"] in _ABOUT_NAMES else []
        of = f" of {_name(place)}" if place else ""
        line = f"known settings{of}: {', '.join(sorted(known))}"
        if known and line not in blocks:
            blocks.append(line)
    return "; ".join(blocks) or None


def _problem(detail: ErrorDetails, model: type[BaseModel]) -> str:
    place, kind = detail["loc"], detail["type"]
    name = _name(place)
    if kind == "extra_forbidden":
        return f"'{name}' is not a setting{_nearest(place, model)}"
    if kind == "missing":
        return f"'{name}' is missing"
    if kind in _NOT_A_BLOCK:
        return f"'{name}' must be a block of settings, one `name: value` a line"
    units = _units_of(place, model)
    message = _with_units(detail, units).removeprefix("Value error, ")
    if not place:
        return message
    told = f"'{name}' {message[:1].lower()}{message[1:]}"
    if isinstance(detail["input"], dict) or str(place[-1]).endswith(_NAMES_A_FILE):
        return told
    # Only a bound is judged after the unit was read; anything else is quoted as it stands in the file.
    if units and kind in _BOUNDS and isinstance(detail["input"], int | float):
        return f"{told}, not {_amount(detail['input'], units)}"
    return f"{told}, not {_shown(detail['input'])}"


def _name(place: Location) -> str:
    return ".".join(str(part) for part in place)


def _with_units(detail: ErrorDetails, units: Units) -> str:
    """A bound of what is written with a unit is told with one."""
    said, bounds = _BOUNDS.get(detail["type"]), detail.get("ctx") or {}
    if said is None or not units:
        return detail["msg"]
    return f"must be {said} {_amount(next(iter(bounds.values())), units)}"


def _amount(number: float, units: Units) -> str:
    """In the largest unit that it is a whole number of."""
    unit = next((each for each in reversed(list(units)) if number and number % units[each] == 0), next(iter(units)))
    return f"{number / units[unit]:g}{unit}"


def _units_of(place: Location, model: type[BaseModel]) -> Units:
    """What the setting at a place is written with; empty for one without a unit."""
    field = _find_field(place, model)
    if field is None:
        return {}
    inner = [each for part in get_args(field.annotation) for each in getattr(part, "__metadata__", ())]
    readers = {getattr(each, "func", None) for each in (*field.metadata, *inner)}
    if parse_duration_s in readers:
        return _UNITS_S
    return _UNITS_BYTES if parse_size_bytes in readers else {}


def _nearest(place: Location, model: type[BaseModel]) -> str:
    close = difflib.get_close_matches(str(place[-1]), _settings_of(place[:-1], model), n=1)
    return f": did you mean '{close[0]}'?" if close else ""


def _settings_of(place: Location, model: type[BaseModel]) -> list[str]:
    """The names in the block at a place; none where there is no block."""
    if not place:
        return list(model.model_fields)
    field = _find_field(place, model)
    block = _block_in(field.annotation) if field is not None else None
    return list(block.model_fields) if block is not None and _is_model(block) else []


def _find_field(place: Location, model: type[BaseModel]) -> FieldInfo | None:
    """The setting at a place; None in a list or mapping, and where there is none."""
    owner: Any = model
    field = None
    for part in place:
        field = owner.model_fields.get(str(part)) if _is_model(owner) else None
        owner = _block_in(field.annotation) if field is not None else None
    return field


def _block_in(annotation: Any) -> Any:
    """The block of a setting that may be left out too."""
    return next((each for each in get_args(annotation) if _is_model(each)), annotation)


def _is_model(owner: Any) -> bool:
    return isinstance(owner, type) and issubclass(owner, BaseModel)


def _shown(value: object) -> str:
    text = _CREDENTIALS.sub("://...@", repr(value))
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
