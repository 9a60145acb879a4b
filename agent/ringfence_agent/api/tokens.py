"""Bearer tokens for callers on other nodes: made by an administrator, kept as hashes, good for a day at most.

Rules:

1. A token is 256 random bits behind a public name: `rfa-NAME-SECRET`. The agent keeps the SHA-256 of the whole, in
   `api-tokens.json` (0600) of its state directory; the token itself is in one answer and in no file or log of ours.
2. It has a user, a role, and optionally a narrower set of verbs and of paths. It ends by time (`MAX_LIFE_S` at most,
   by the wall clock), or at once when it is revoked.
3. An unknown name and a wrong secret are refused alike, after the same comparison.

Refused: a file of tokens that others may read or change, or that does not read whole. A token that nobody can check
is none.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from ringfence_agent.api.caller import Caller, GroupsOf, Proof, Role, Verb
from ringfence_zones.durable_file import replace_file
from ringfence_zones.errors import AuthenticationError, ConfigError, InputError
from ringfence_zones.paths import HdfsPath
from ringfence_zones.secret import Secret

MAX_LIFE_S = 24 * 3600
MIN_LIFE_S = 60
MAX_TOKENS = 1000
_MAX_FILE_BYTES = 4 * 1024 * 1024
_TOKEN = re.compile(rb"rfa-([0-9a-f]{12})-[A-Za-z0-9_-]{43}")
_NOBODYS_DIGEST = bytes(32)
_REFUSED = "the token is not good"
# One hint for every reason: which of them it is, is nobody's business who has no good token.
_ANEW = "it has expired, was revoked, or is another agent's: have one made with  ringfence agent token issue"


class TokenRecord(BaseModel):
    """What is kept of a token. Times are seconds since the epoch; `digest` is SHA-256 in hexadecimal digits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    digest: str
    user: str
    role: Role
    verbs: frozenset[Verb]
    paths: tuple[str, ...] | None
    issued_s: int
    expires_s: int
    issued_by: str
    issuer: str | None = None
    """The user behind `issued_by`, a caller's label."""

    def caller(self, accounts: GroupsOf) -> Caller:
        """Whoever presents this token, and nothing else."""
        return Caller(
            user=self.user,
            proof=Proof.TOKEN,
            roles=self.role.included,
            verbs=self.role.verbs & self.verbs,
            groups=accounts.groups_of(self.user),
            paths=self.scope,
            token_id=self.name,
            issuer=self.issuer,
        )

    @property
    def scope(self) -> tuple[HdfsPath, ...] | None:
        """The paths it is good for; None for all."""
        return None if self.paths is None else tuple(HdfsPath.parse(path) for path in self.paths)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int
    tokens: list[TokenRecord]


_FILE = TypeAdapter(_File)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenWish:
    """What an administrator asks for. `life_s` is in seconds; `verbs` None means all of the role's."""

    user: str
    role: Role
    life_s: float
    verbs: frozenset[Verb] | None = None
    paths: Sequence[HdfsPath] | None = None


class TokenBook:
    """The tokens of one agent. May be used by several threads: changes are made in one, questions asked in another."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Reads the file when there is one. Raises ConfigError."""
        self._path = path
        self._clock = clock
        self._changing = threading.Lock()
        self._by_name = {record.name: record for record in _read(path)}

    def find(self, presented: bytes) -> TokenRecord:
        """The token that was presented. Raises AuthenticationError, with the same words whatever is wrong."""
        match = _TOKEN.fullmatch(presented)
        record = self._by_name.get(match[1].decode("ascii")) if match is not None else None
        expected = _NOBODYS_DIGEST if record is None else bytes.fromhex(record.digest)
        same = hmac.compare_digest(hashlib.sha256(presented).digest(), expected)
        if record is None or not same or self._clock() >= record.expires_s:
            raise AuthenticationError(_REFUSED, hint=_ANEW)
        return record

    def issue(self, wish: TokenWish, issued_by: str, issuer: str | None = None) -> tuple[TokenRecord, Secret]:
        """Makes a token; its record is on disk when this returns. Raises InputError, and OSError from the disk."""
        if not MIN_LIFE_S <= wish.life_s <= MAX_LIFE_S:
            raise InputError(f"a token lives between {MIN_LIFE_S} s and {MAX_LIFE_S // 3600} h")
        verbs = wish.role.verbs if wish.verbs is None else wish.verbs
        beyond = verbs - wish.role.verbs
        if beyond or not verbs:
            named = ", ".join(sorted(verb.value for verb in beyond)) or "nothing"
            raise InputError(f"the role {wish.role.value} does not entitle to {named}")
        now_s = int(self._clock())
        name = secrets.token_hex(6)
        token = Secret(f"rfa-{name}-{secrets.token_urlsafe(32)}".encode("ascii"))
        record = TokenRecord(
            name=name,
            digest=hashlib.sha256(token.reveal()).hexdigest(),
            user=wish.user,
            role=wish.role,
            verbs=verbs,
            paths=None if wish.paths is None else tuple(str(path) for path in wish.paths),
            issued_s=now_s,
            expires_s=now_s + int(wish.life_s),
            issued_by=issued_by,
            issuer=issuer,
        )
        with self._changing:
            alive = self.list_alive()
            if len(alive) >= MAX_TOKENS:
                raise InputError(
                    f"there are {MAX_TOKENS} tokens already", hint="revoke some: `ringfence agent token list`"
                )
            self._keep([*alive, record])
        return record, token

    def revoke(self, name: str) -> bool:
        """Ends a token at once, on disk too when this returns; False when there is none of that name."""
        with self._changing:
            if name not in self._by_name:
                return False
            self._keep([record for record in self.list_alive() if record.name != name])
        return True

    def list_alive(self) -> list[TokenRecord]:
        """The tokens that are good, those that end first before the others."""
        now_s = self._clock()
        return sorted(
            (record for record in self._by_name.values() if now_s < record.expires_s),
            key=lambda record: (record.expires_s, record.name),
        )

    def _keep(self, records: list[TokenRecord]) -> None:
        document = _File(schema_version=1, tokens=records)
        replace_file(self._path, json.dumps(document.model_dump(mode="json"), indent=1).encode("utf-8"))
        # One assignment: whoever looks a token up at this moment sees all of the old or all of the new.
        self._by_name = {record.name: record for record in records}


def _read(path: Path) -> list[TokenRecord]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"cannot read the tokens in {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        state = os.fstat(descriptor)
        content = file.read(_MAX_FILE_BYTES + 1)
    if state.st_uid not in (0, os.geteuid()) or stat.S_IMODE(state.st_mode) & 0o077:
        raise ConfigError(f"the tokens in {path} can be read or changed by others", command=f"chmod 0600 {path}")
    try:
        document = _FILE.validate_json(content[:_MAX_FILE_BYTES])
    except ValidationError:
        raise ConfigError(
            f"the tokens in {path} cannot be used: the file is damaged or of another version",
            hint="remove the file: every token ends with it, and new ones can be issued",
        ) from None
    if document.schema_version != 1:
        raise ConfigError(f"the tokens in {path} are of version {document.schema_version}; this agent knows 1")
    return document.tokens
