"""Reads a program's own YAML configuration file strictly.

Rules (design section 9):

1. A file holds what its program knows and nothing else: an unknown key stops the program, and the message names the
   nearest known one. A key given twice stops it as well, and YAML means what `policy_yaml` says it means.
2. Every problem is reported in one go, each with its line.
3. Durations and sizes carry their unit (`5s`, `10m`, `64MiB`); a bare number is refused.
4. No value holds a secret: models name files (`*_file`), so that a message may quote what it refuses.

It only reads; it fills in no default that the model does not state.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from ringfence_zones.errors import ConfigError
from ringfence_zones.policy_yaml import Location, read_yaml

MAX_FILE_BYTES = 1024 * 1024
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")

_UNITS_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB|TiB)")

Model = TypeVar("Model", bound=BaseModel)


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
    try:
        parsed = model.model_validate(data)
    except ValidationError as error:
        problems += [(document.where(detail["loc"]), _problem(detail, model)) for detail in error.errors()]
        parsed = None
    if problems or parsed is None:
        raise ConfigError(_sentence(name, sorted(set(problems), key=_line)), hint=_hint(model))
    return parsed


def _sentence(name: str, problems: list[tuple[str, str]]) -> str:
    if len(problems) == 1:
        where, text = problems[0]
        return f"{where}: {text}"
    listed = "".join(f"\n  {where}: {text}" for where, text in problems)
    return f"{name} has {len(problems)} problems:{listed}"


def _line(problem: tuple[str, str]) -> int:
    return int(problem[0].rpartition(":")[2])


def _hint(model: type[BaseModel]) -> str:
    return f"known settings: {', '.join(sorted(model.model_fields))}"


def _problem(detail: ErrorDetails, model: type[BaseModel]) -> str:
    place = detail["loc"]
    name = ".".join(str(part) for part in place)
    if detail["type"] == "extra_forbidden":
        return f"'{name}' is not a setting{_nearest(place, model)}"
    if detail["type"] == "missing":
        return f"'{name}' is missing"
    message = detail["msg"].removeprefix("Value error, ")
    if not place:
        return message
    return f"'{name}' {message[:1].lower()}{message[1:]}, not {_shown(detail['input'])}"


def _nearest(place: Location, model: type[BaseModel]) -> str:
    owner: Any = model
    for part in place[:-1]:
        field = owner.model_fields.get(str(part)) if isinstance(owner, type) and issubclass(owner, BaseModel) else None
        owner = field.annotation if field is not None else None
    known = list(owner.model_fields) if isinstance(owner, type) and issubclass(owner, BaseModel) else []
    close = difflib.get_close_matches(str(place[-1]), known, n=1)
    return f": did you mean '{close[0]}'?" if close else ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
