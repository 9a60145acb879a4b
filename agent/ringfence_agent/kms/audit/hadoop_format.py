"""The audit log in the words of Hadoop's own KMS, for tools that read `kms-audit.log`.

Source: `SimpleKMSAuditLogger`, `KMSAudit` and the pattern `%d{ISO8601} %m%n` of the shipped log4j configuration. A line
is byte for byte what Hadoop writes for that access, with these differences, each on purpose:

1. Nothing is merged: every access has its own line, and where Hadoop counts (`accessCount=N, interval=...`) this is
   `accessCount=1, interval=0ms` each time.
2. The URL of an unauthenticated request stands without its query, and as a path: queries may carry tokens.
3. Line breaks and other control characters in names become blanks, and so do brackets and commas: nobody forges a
   line, nor a field (a key named `k, user=hdfs]` would stand as a deed of hdfs).
4. A refusal by a key ACL is one line with the operation; Hadoop writes one for each entry it tried, or none.
5. What Hadoop does not audit but this KMS does (policies, tokens, status) has its operation in the same form; a change
   about to be made is `BEGUN[...]`, only when this is the only format.

`parse_line` reads lines back, as far as they tell.
"""

from __future__ import annotations

import re
import time
from typing import Any

from ringfence_agent.kms.audit.record import (
    BEGUN,
    DENIED,
    FAILED,
    OK,
    REMEMBERED,
    REMEMBERED_BYTES,
    UNAUTHENTICATED,
    Decision,
    Details,
    bounded_text,
    utc_text,
)

# `KMSAudit.AGGREGATE_OPS_WHITELIST`.
_COUNTED = frozenset({"GET_KEY_VERSION", "GET_CURRENT_KEY", "DECRYPT_EEK", "GENERATE_EEK", "REENCRYPT_EEK"})
_LINE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(?P<rest>\d{3})"
    r" (?P<status>[A-Z]+)(?:\[(?P<fields>.*?)\])? ?(?P<message>.*)"
)
_OUTCOMES = {
    "OK": OK,
    "UNAUTHORIZED": DENIED,
    "UNAUTHENTICATED": UNAUTHENTICATED,
    "ERROR": FAILED,
    "BEGUN": BEGUN,
}
_SEPARATORS = str.maketrans("[],", "   ")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class HadoopLines:
    """See the module. `writes_begun` is for a log that has no other format to say it in."""

    def __init__(self, *, writes_begun: bool) -> None:
        self._writes_begun = writes_begun
        self._clock = _LocalTime()
        # Lines without details repeat under load, as in `audit_record`.
        self._known: dict[Decision, bytes] = {}

    def line(self, now_s: float, sequence: int, decision: Decision, details: Details | None) -> bytes:  # noqa: ARG002 - Hadoop numbers nothing
        if decision.outcome == BEGUN and not self._writes_begun:
            return b""
        event = self._known.get(decision) if not details else None
        if event is None:
            event = _CONTROL.sub(" ", event_text(decision, details or {})).encode("utf-8", "replace")
            if not details and len(event) <= REMEMBERED_BYTES:
                if len(self._known) >= REMEMBERED:
                    self._known.clear()
                self._known[decision] = event
        return b"%b %b\n" % (self._clock.text(now_s), event)


def event_text(decision: Decision, details: Details) -> str:
    """What follows the time: `OK[op=GENERATE_EEK, key=k1, user=hdfs, accessCount=1, interval=0ms] `."""
    # Hadoop prints the full name of a Kerberos user.
    user = decision.principal if decision.principal and not decision.real_user else decision.user
    if decision.outcome == UNAUTHENTICATED:
        return (
            f"UNAUTHENTICATED RemoteHost:{decision.address} Method:{details.get('method')} URL:{details.get('path')}"
            f" ErrorMsg:'{details.get('error')}'"
        )
    if decision.outcome not in (OK, DENIED, BEGUN):
        return f"ERROR{_fields(user=user)} Method:'{details.get('method')}' Exception:'{details.get('error')}'"
    fields = {"op": decision.op, "key": decision.key, "user": user}
    if decision.outcome == DENIED:
        return f"UNAUTHORIZED{_fields(**fields)} "
    if decision.outcome == BEGUN:
        return f"BEGUN{_fields(**fields)} "
    if decision.op in _COUNTED and user and decision.key:
        fields |= {"accessCount": "1", "interval": "0ms"}
    return f"OK{_fields(**fields)} {_message(decision, details)}"


def _fields(**fields: str | None) -> str:
    told = ", ".join(f"{name}={bounded_text(value).translate(_SEPARATORS)}" for name, value in fields.items() if value)
    return f"[{told}]" if told else ""


def _message(decision: Decision, details: Details) -> str:
    """`KMSAudit`'s extraMsg of the operations that have one."""
    given = "true" if details.get("material_given") else "false"
    if decision.op == "CREATE_KEY":
        description = details.get("description")
        return f"UserProvidedMaterial:{given} Description:{'null' if description is None else description}"
    if decision.op == "ROLL_NEW_VERSION":
        return f"UserProvidedMaterial:{given} NewVersion:{decision.key}@{decision.version}"
    if decision.op == "REENCRYPT_EEK_BATCH":
        return f"reencrypted {decision.item_count} keys"
    return ""


class _LocalTime:
    """`2026-11-22 06:45:01,123`, as log4j writes ISO8601: in the time zone of the machine."""

    def __init__(self) -> None:
        self._second = -1
        self._second_text = b""

    def text(self, now_s: float) -> bytes:
        second, rest = divmod(int(now_s * 1000), 1000)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second)).encode()
        return b"%b,%03d" % (self._second_text, rest)


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The facts of a line under the names of `audit_record`, None for one that is not of this format.

    Lines of Hadoop's own servers may hold names with commas and brackets, which the format does not quote: such a line
    is read as well as it can be.
    """
    match = _LINE.fullmatch(line.decode("utf-8", "replace").rstrip("\n"))
    outcome = _OUTCOMES.get(match["status"]) if match is not None else None
    if match is None or outcome is None:
        return None
    try:
        second = time.mktime(time.strptime(match["time"], "%Y-%m-%d %H:%M:%S"))
    except (ValueError, OverflowError):
        return None
    fields = dict(field.partition("=")[::2] for field in (match["fields"] or "").split(", ") if "=" in field)
    found = re.match(r"RemoteHost:(\S+)", match["message"])
    return {
        "time": utc_text(second + int(match["rest"]) / 1000),
        "op": fields.get("op"),
        "key": fields.get("key"),
        "user": fields.get("user"),
        "address": found[1] if found else None,
        "outcome": outcome,
        "message": match["message"],
    }
