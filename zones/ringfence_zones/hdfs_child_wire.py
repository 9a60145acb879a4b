"""How `HdfsChild` and its process talk: one JSON object a line, values by the types of `hdfs_interface.WatchedHdfs`.

    request   {"id": 7, "method": "find_zone_of", "arguments": ["/data/pii"]}
    answer    {"id": 7, "result": {"path": "/data/pii", "key_name": "analytics-data-pii"}}
              {"id": 7, "error": {"type": "SafeModeError", "message": ..., "hint": ..., "command": ..., "facts": {}}}
    greeting  {"id": 0, "result": {"user": "hdfs"}}, or an error with id 0 before the process ends

Both ends are this package at this version; nothing of it is a public format. No secret crosses it.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Sequence
from typing import Any, get_type_hints

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from ringfence_zones.errors import HdfsError, RingfenceError
from ringfence_zones.hdfs_interface import WatchedHdfs

GREETING_ID = 0
# Attributes of errors beyond the root's own, as far as they are plain values.
_FACTS = ("status", "java_class", "key_name", "version_name", "extra", "path")


def encode_line(message: dict[str, Any]) -> bytes:
    """One message as a line."""
    return json.dumps(to_jsonable_python(message), separators=(",", ":")).encode() + b"\n"


def decode_arguments(method: str, arguments: Sequence[Any]) -> list[Any]:
    """A request's arguments as the method's own types. Raises KeyError or ValueError for what is no such call."""
    adapters = list(_signature(method)[0])
    if len(adapters) != len(arguments):
        raise ValueError(f"{method} takes {len(adapters)} arguments")
    return [adapter.validate_python(value) for adapter, value in zip(adapters, arguments, strict=True)]


def decode_result(method: str, result: Any) -> Any:
    """An answer's result as the method's own type."""
    return _signature(method)[1].validate_python(result)


def encode_error(error: RingfenceError) -> dict[str, Any]:
    """An error as a plain object."""
    facts = {name: getattr(error, name) for name in _FACTS if hasattr(error, name)}
    return {
        "type": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "command": error.command,
        "facts": facts,
    }


def decode_error(encoded: dict[str, Any]) -> RingfenceError:
    """The same error again; an unknown type becomes HdfsError."""
    error_class = _error_classes().get(encoded["type"], HdfsError)
    # Constructors differ in what they build their message from; here the message is already built.
    error = error_class.__new__(error_class)
    RingfenceError.__init__(error, encoded["message"], hint=encoded["hint"], command=encoded["command"])
    for name, value in encoded["facts"].items():
        setattr(error, name, value)
    return error


@functools.cache
def _signature(method: str) -> tuple[tuple[TypeAdapter[Any], ...], TypeAdapter[Any]]:
    function = getattr(WatchedHdfs, method)
    hints = get_type_hints(function)
    parameters = [name for name in inspect.signature(function).parameters if name != "self"]
    return tuple(TypeAdapter(hints[name]) for name in parameters), TypeAdapter(hints["return"])


@functools.cache
def _error_classes() -> dict[str, type[RingfenceError]]:
    found: dict[str, type[RingfenceError]] = {}
    waiting: list[type[RingfenceError]] = [RingfenceError]
    while waiting:
        error_class = waiting.pop()
        found[error_class.__name__] = error_class
        waiting += error_class.__subclasses__()
    return found
