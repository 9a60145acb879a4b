"""The user lockout: after five failed logins a name is locked for a quarter of an hour, also for the right secret."""

from __future__ import annotations

from typing import Any

from vault_double.backend import Call
from vault_double.wire import PERMISSION_DENIED, RefusedError, duration_s

_THRESHOLD = 5
_QUARTER_HOUR_S = 900.0


def check_not_locked(call: Call, name: str) -> None:
    """Raises RefusedError(403), which looks like a dead token's."""
    state = _state(call, name)
    if not _is_disabled(call) and state.get("locked_until", 0.0) > call.core.clock.now():
        raise RefusedError(403, PERMISSION_DENIED)


def count_failure(call: Call, name: str) -> None:
    if _is_disabled(call):
        return
    now, state, tuning = call.core.clock.now(), _state(call, name), _tuning(call)
    if state.get("last", 0.0) + duration_s(tuning.get("lockout_counter_reset_duration", _QUARTER_HOUR_S)) < now:
        state = {}
    state = {"count": state.get("count", 0) + 1, "last": now}
    if state["count"] >= int(tuning.get("lockout_threshold", _THRESHOLD)):
        state["locked_until"] = now + duration_s(tuning.get("lockout_duration", _QUARTER_HOUR_S))
    call.view.put(_key(call.mount.accessor, name), state)


def clear_failures(call: Call, name: str) -> None:
    if _state(call, name):
        call.view.delete(_key(call.mount.accessor, name))


def unlock(call: Call) -> None:
    """`POST sys/locked-users/<mount accessor>/unlock/<name>`: 204, whether it was locked or not."""
    call.view.delete(_key(call.names["accessor"], call.names["alias"]))


def _key(accessor: str, name: str) -> str:
    return f"lockout/{accessor}/{name}"


def _state(call: Call, name: str) -> dict[str, Any]:
    return call.view.get(_key(call.mount.accessor, name)) or {}


def _tuning(call: Call) -> dict[str, Any]:
    return call.mount.tuning.get("user_lockout_config") or {}


def _is_disabled(call: Call) -> bool:
    return _tuning(call).get("lockout_disable") in (True, "true", 1)
