"""The fail-closed table (`tests/vectors/fail_closed_kms.yaml`): its rows, and asking a real server for every operation.

A `World` is a running server that holds what the operations need: keys, an EDEK, tokens, a session. Its `ask` gives
the table's word for what an operation came to.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from http_serving import Answer
from kms_serving import RunningKms, call, json_of, remote_exception_of

FILE = Path(__file__).parents[1] / "vectors" / "fail_closed_kms.yaml"
TABLE: dict[str, Any] = yaml.safe_load(FILE.read_text())
OPERATIONS: list[str] = list(TABLE["operations"])
MEMORY: list[str] = list(TABLE["memory"])
WORDS = ("served", "500", "503", "401", "403", "none", *(f"memory {name}" for name in MEMORY))

CLASSES = {503: "org.apache.hadoop.ipc.RetriableException", 500: "java.io.IOException"}
_TOKEN_CLASS = "org.apache.hadoop.security.authentication.client.AuthenticationException"
_EEK = {"iv": "AAAAAAAAAAAAAAAAAAAAAA==", "material": "AAAAAAAAAAAAAAAAAAAAAA=="}
_SPARE = 3


@dataclass(frozen=True)
class Row:
    """One state of one dependency. `outcomes` is operation -> word; `start` replaces it."""

    id: str
    dependency: str
    state: str
    back: str
    outcomes: Mapping[str, str]
    start: Mapping[str, Any] | None
    then: str | None
    why: str | None
    is_long: bool


def read_rows() -> list[Row]:
    """Every row; an operation that is missing or there twice is an error."""
    return [_row(entry) for entry in TABLE["rows"]]


def _row(entry: Mapping[str, Any]) -> Row:
    outcomes: dict[str, str] = {}
    for word, operations in entry.get("outcomes", {}).items():
        assert word in WORDS, (entry["id"], word)
        for operation in _flat(operations):
            assert operation in OPERATIONS, (entry["id"], operation)
            assert operation not in outcomes, (entry["id"], operation)
            outcomes[operation] = word
    start = entry.get("start")
    assert (start is None) == (set(outcomes) == set(OPERATIONS)), entry["id"]
    then = entry.get("then")
    assert (then is not None) == any(word.startswith("memory ") for word in outcomes.values()), entry["id"]
    return Row(
        entry["id"], entry["dependency"], entry["state"], entry["back"], outcomes, start, then,
        entry.get("why"), entry.get("long", False),
    )  # fmt: skip


def render() -> str:
    """The table of packaging/docs/when-something-is-down.md."""
    lines = [
        "| down | state | refused | from memory for a while | comes back, once repaired |",
        "|---|---|---|---|---|",
    ]
    for row in read_rows():
        back = "by itself" if row.back == "itself" else "after a restart"
        cells = [row.dependency, row.state, _refused(row), _remembered(row), back]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


CUSTODIES = (
    ("`envelope`, sealed by a root key file", "that file", "root_key_removed"),
    ("`envelope`, sealed by Vault", "Vault", "vault_sealed"),
    ("`envelope`, sealed by AWS KMS", "AWS KMS", "aws_kms_failing"),
    ("`transit`, held by Vault", "Vault", "transit_sealed"),
)
"""How a zone's key can be kept, what is away then, and the row that says what comes of it."""


def render_custodies() -> str:
    """The table of the README's "Choose your custody"."""
    lines = [
        "| zone keys are | while this is away | files of zones in use | files of other zones | new keys, rolls |",
        "|---|---|---|---|---|",
    ]
    rows = {row.id: row for row in read_rows()}
    for custody, away, row_id in CUSTODIES:
        outcomes, then = rows[row_id].outcomes, rows[row_id].then
        assert outcomes["open"] == outcomes["generate"]
        assert outcomes["create"] == outcomes["roll"]
        told = [_told(outcomes[operation], then) for operation in ("open", "cold", "create")]
        lines.append(f"| {' | '.join([custody, away, *told])} |")
    return "\n".join(lines)


def _told(word: str, then: str | None) -> str:
    if word.startswith("memory "):
        # The table of memories ends with the default, as in "(`key_memory`, 10 min)".
        limit = TABLE["memory"][word.removeprefix("memory ")].rpartition(", ")[2].rstrip(")")
        return f"served for {limit}, then {then}"
    return word


def _refused(row: Row) -> str:
    if row.start is not None:
        return f"does not start: exit {row.start['exit']}"
    by_word: dict[str, list[str]] = {}
    for operation, word in row.outcomes.items():
        if word != "served" and not word.startswith("memory "):
            by_word.setdefault(word, []).append(operation)
    parts = [f"{'no answer' if word == 'none' else word}: {_listed(names)}" for word, names in sorted(by_word.items())]
    return "; ".join(parts) or "nothing"


def _remembered(row: Row) -> str:
    by_time: dict[str, list[str]] = {}
    for operation, word in row.outcomes.items():
        if word.startswith("memory "):
            by_time.setdefault(word.removeprefix("memory "), []).append(operation)
    return "; ".join(f"{_listed(names)} ({time}), then {row.then}" for time, names in by_time.items())


def _listed(operations: list[str]) -> str:
    left = [operation for operation in OPERATIONS if operation not in operations]
    if len(left) <= 4:
        return "all" + (f" but {', '.join(left)}" if left else "")
    return ", ".join(operations)


def _flat(operations: Sequence[Any]) -> Iterator[str]:
    for entry in operations:
        if isinstance(entry, list):
            yield from entry
        else:
            yield entry


@dataclass
class World:
    """A running server with what each operation needs, made while all was well.

    `user` is whom requests claim to be, or `headers` proves it; `log_in` gives the headers of a new authentication.
    `custody` is that of every key but `a-canary`, the one that readiness goes by: a server may have keys of each.
    """

    kms: RunningKms
    user: str | None = "hdfs"
    headers: Mapping[str, str] = field(default_factory=dict)
    log_in: Callable[[], Mapping[str, str]] = dict
    session: str = ""
    edek: Mapping[str, Any] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)
    known_token: str = ""
    revision: int = 0
    custody: str = "envelope"
    _cold: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _deleted: Iterator[int] = field(default_factory=itertools.count)

    def prepare(self) -> World:
        """Keys, tokens and a session; the key `warm` is in memory at the end, and asked for a moment ago."""
        self.session = (self._options(self.user, self.log_in()).header("Set-Cookie") or "").partition(";")[0]
        assert self.session.startswith('hadoop.auth="')
        if self.user is None:
            self.headers = {"Cookie": self.session}
        for name in [
            "a-canary",
            "warm",
            "rolled",
            *(f"{kind}-{n}" for kind in ("cold", "doomed") for n in range(_SPARE)),
        ]:
            assert self._create(name, "envelope" if name == "a-canary" else self.custody).status == 201
        if self.custody != "envelope":
            # Opened by somebody who knows what is no EDEK; with bare AES every 16 bytes are one.
            self._cold = {name: self._generate(name) for name in (f"cold-{n}" for n in range(_SPARE))}
        query = {"op": "GETDELEGATIONTOKEN", "renewer": "hdfs"}
        for _ in range(_SPARE):
            self.tokens.append(json_of(self._call("GET", "/kms/v1/", query=query))["Token"]["urlString"])
        self.warm_up()
        return self

    def warm_up(self) -> None:
        """Brings into memory what is to be there: the warm key, and a token."""
        self.known_token = self.tokens[0]
        assert self.ask("known_token") == "served"
        self.edek = self._generate("warm")
        for operation in ("metadata", "open"):
            assert self.ask(operation) == "served"

    def ask(self, operation: str) -> str:
        """The table's word for what became of it."""
        try:
            answer = getattr(self, f"_ask_{operation}")()
        except OSError:
            return "none"
        return _word(operation, answer)

    def ask_all(self, operations: Sequence[str]) -> dict[str, str]:
        """One after the other."""
        return {operation: self.ask(operation) for operation in operations}

    def ask_at_once(self, operations: Sequence[str]) -> dict[str, str]:
        """Each on a connection of its own, all at the same time: for what takes a time-out."""
        with ThreadPoolExecutor(len(operations)) as pool:
            return dict(zip(operations, pool.map(self.ask, operations), strict=True))

    # -- the operations

    def _ask_open(self) -> Answer:
        return self._open("warm", self.edek)

    def _ask_generate(self) -> Answer:
        return self._call("GET", "/kms/v1/key/warm/_eek", query={"eek_op": "generate"})

    def _ask_metadata(self) -> Answer:
        return self._call("GET", "/kms/v1/key/warm/_metadata")

    def _ask_cold(self) -> Answer:
        name = f"cold-{next(self._numbers) % _SPARE}"
        return self._open(name, self._cold.get(name, _EEK))

    def _ask_create(self) -> Answer:
        return self._create(f"new-{next(self._numbers)}", self.custody)

    def _ask_roll(self) -> Answer:
        return self._call("POST", "/kms/v1/key/rolled", {})

    def _ask_delete(self) -> Answer:
        return self._call("DELETE", f"/kms/v1/key/doomed-{next(self._deleted)}")

    def _ask_issue(self) -> Answer:
        return self._call("GET", "/kms/v1/", query={"op": "GETDELEGATIONTOKEN", "renewer": "hdfs"})

    def _ask_token(self) -> Answer:
        return self._options(None, {"X-Hadoop-Delegation-Token": self.tokens.pop()})

    def _ask_known_token(self) -> Answer:
        return self._options(None, {"X-Hadoop-Delegation-Token": self.known_token})

    def _ask_login(self) -> Answer:
        return self._options(self.user, self.log_in())

    def _ask_session(self) -> Answer:
        return self._options(None, {"Cookie": self.session})

    def _ask_publish(self) -> Answer:
        zone = {"path": "/published", "key": "published", "readers": ["*"], "writers": ["hdfs"]}
        policy = {"version": 1, "cluster": "c", "zones": [zone], "kms": {"namenode_users": ["hdfs"], "admins": ["a"]}}
        body = {"expected_revision": self.revision, "policy": policy}
        with self.kms.connect_admin() as client:
            answer = call(client, "PUT", "/ringfence/v1/policy", body, user=None)
        if answer.status == 200:
            self.revision = json_of(answer)["revision"]
        return answer

    def _ask_live(self) -> Answer:
        return self._call("GET", "/health/live")

    def _ask_ready(self) -> Answer:
        # What was found a second ago is remembered.
        deadline = time.monotonic() + 1.5
        answer = first = self._call("GET", "/health/ready")
        while answer.status == first.status and time.monotonic() < deadline:
            time.sleep(0.1)
            answer = self._call("GET", "/health/ready")
        return answer

    def _create(self, name: str, custody: str) -> Answer:
        attributes = {} if custody == "envelope" else {"attributes": {"ringfence.custody": custody}}
        return self._call("POST", "/kms/v1/keys", {"name": name, "length": 128, **attributes})

    def _generate(self, name: str) -> Mapping[str, Any]:
        (made,) = json_of(self._call("GET", f"/kms/v1/key/{name}/_eek", query={"eek_op": "generate"}))
        return {"iv": made["iv"], "material": made["encryptedKeyVersion"]["material"]}

    def _open(self, name: str, edek: Mapping[str, Any]) -> Answer:
        path = f"/kms/v1/keyversion/{name}%400/_eek"
        return self._call("POST", path, {"name": name, **edek}, query={"eek_op": "decrypt"})

    def _options(self, user: str | None, headers: Mapping[str, str]) -> Answer:
        with self.kms.connect() as client:
            return call(client, "OPTIONS", "/kms/v1/keys/names", user=user, headers=headers)

    def _call(self, method: str, path: str, body: object = None, *, query: Mapping[str, str] | None = None) -> Answer:
        with self.kms.connect() as client:
            return call(client, method, path, body, user=self.user, query=query, headers=self.headers)


def _word(operation: str, answer: Answer) -> str:
    """Errors are checked for the class that clients go by."""
    if answer.status < 300:
        return "served"
    if operation != "ready" and answer.status in CLASSES:
        assert remote_exception_of(answer)[:2] == (answer.status, CLASSES[answer.status]), answer
    if answer.status == 403:
        assert remote_exception_of(answer)[1] == _TOKEN_CLASS, answer
    return str(answer.status)
