"""A key's policy with statements added, and back to what it was.

What it was is on disk before anything is sent; nothing is sent when the policy is not any more what the decision was
made from, in either direction. AWS has no compare-and-set for it: two people in the same second can still cross.

    record = JSON: {"schema": 1, "key": ARN, "before": policy text, "after": policy text, "made": time}
"""

from __future__ import annotations

import datetime
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from ringfence_bootstrap.account.key_calls import KeyCalls, parse_policy
from ringfence_bootstrap.account.key_policy import MAX_POLICY_BYTES
from ringfence_bootstrap.account.permissions import Proposal
from ringfence_zones.aws_names import KeyArn, find_key_arn
from ringfence_zones.durable_file import write_new_file
from ringfence_zones.errors import AwsError, AwsUnavailableError, InputError, RingfenceError

_SCHEMA = 1
_MAX_RECORD_BYTES = 4 * MAX_POLICY_BYTES


@dataclass(frozen=True, slots=True)
class _Record:
    key: KeyArn
    before: str
    after: str


def apply_proposal(calls: KeyCalls, proposal: Proposal, directory: Path) -> Path:
    """Adds the statements; the file that `undo` takes. Raises AwsError, and RingfenceError when nothing was changed."""
    key, after = proposal.key, proposal.after
    if len(after.encode()) > MAX_POLICY_BYTES:
        raise RingfenceError(
            f"the policy of {key.text} would be larger than the {MAX_POLICY_BYTES} bytes that AWS takes",
            hint="join statements that are alike, or use a key of its own for EMR",
        )
    _require_unchanged(calls, key, proposal.before, "ringfence emr permissions shows what is missing now")
    record = _write_record(directory, _Record(key, proposal.before, after))
    try:
        calls.put_key_policy(key, after)
    except AwsError as error:
        # Whether it arrived is seen from the policy itself.
        if _is_still(calls, key, proposal.before):
            record.unlink()
            raise
        raise AwsUnavailableError(
            f"{error.message}; the policy may have been changed all the same",
            code=error.code,
            hint=f"what it was is kept in {record}",
            command=f"ringfence emr permissions --undo {shlex.quote(str(record))}",
        ) from None
    return record


def undo(calls: KeyCalls, path: Path) -> KeyArn | None:
    """Puts the policy back that a record holds; None when it is there already. Raises InputError and as `apply`."""
    record = _read_record(path)
    if _same(calls.key_policy(record.key), record.before):
        return None
    _require_unchanged(calls, record.key, record.after, f"take the statements away by hand; {path} holds them")
    calls.put_key_policy(record.key, record.before)
    return record.key


def _is_still(calls: KeyCalls, key: KeyArn, before: str) -> bool:
    try:
        return _same(calls.key_policy(key), before)
    except AwsError:
        return False


def _require_unchanged(calls: KeyCalls, key: KeyArn, expected: str, hint: str) -> None:
    if not _same(calls.key_policy(key), expected):
        raise RingfenceError(
            f"the policy of {key.text} was changed by somebody else meanwhile, and nothing was done",
            hint=hint,
            command=f"aws kms get-key-policy --policy-name default --region {key.region} --key-id {key.text}",
        )


def _same(one: str, other: str) -> bool:
    return parse_policy(one, "the key's policy") == parse_policy(other, "the key's policy")


def _write_record(directory: Path, record: _Record) -> Path:
    now = datetime.datetime.now(datetime.UTC)
    body = {
        "schema": _SCHEMA,
        "key": record.key.text,
        "before": record.before,
        "after": record.after,
        "made": now.isoformat(timespec="seconds"),
    }
    key_id = record.key.text.rpartition("/")[2]
    path = directory / f"key-policy-{key_id}-{now:%Y%m%dT%H%M%S%f}.json"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            write_new_file(path, json.dumps(body, indent=2).encode())
        except FileExistsError:
            raise
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RingfenceError(
            f"what the policy is now cannot be kept in {directory}: {error.strerror}; nothing was changed",
            hint="name another directory: --undo-dir DIR",
        ) from error
    return path


def _read_record(path: Path) -> _Record:
    try:
        with path.open("rb") as stream:
            found = json.loads(stream.read(_MAX_RECORD_BYTES))
        key = find_key_arn(found["key"])
        before, after = found["before"], found["after"]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError):
        key, before, after = None, "", ""
    if key is None or found.get("schema") != _SCHEMA or not isinstance(before, str) or not isinstance(after, str):
        raise InputError(
            f"{path} is no record of a change of a key's policy", hint="name a file that `--apply` printed"
        )
    return _Record(key, before, after)
