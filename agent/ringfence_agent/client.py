"""What a step job imports to ask the Ringfence agent of its node. One file, standard library only, Python 3.7.

    from ringfence_agent.client import AgentClient

    agent = AgentClient()
    answer = agent.check_move("/data/pii/export", "/data/masked/export")
    if not answer.rename:
        raise SystemExit("{}; instead: {}".format(answer.reason, answer.command))

The file may be copied or shipped alone (`--py-files`). On the agent's own node it speaks HTTP over the agent's Unix
socket, where the kernel tells the agent who is asking: there is no password or token to give. On another node it speaks
HTTPS with a token from a file that its user alone can read:

    agent = AgentClient(url="https://agent.example.com:9601", token_file="agent.token", ca_file="ca.pem")

or the same in RINGFENCE_AGENT_URL, RINGFENCE_AGENT_TOKEN_FILE and RINGFENCE_AGENT_CA_FILE. Every failure is an
`AgentError`; no answer is ever made up when the agent is away.

It imports nothing else of Ringfence, starts no thread, keeps no connection, follows no redirect, never sends a token
without TLS, and reads at most 16 MiB of an answer.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import stat
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, TypeVar
from urllib.parse import quote, urlencode, urlsplit

DEFAULT_SOCKET = "/run/ringfence/agent.sock"
_MAX_ANSWER_BYTES = 16 * 1024 * 1024
_MAX_TOKEN_BYTES = 4096
_AWAY_S = 60.0
_T = TypeVar("_T")


class AgentError(Exception):
    """The agent refused or failed: a sentence, and the way out where there is one.

    `status` is the HTTP status (None when there was no answer), `type` the last part of the problem's type, such as
    `access-denied`; `hint`, `command` and `rule` are None when the agent gave none. `retry_after_s` is set when the
    agent said how long to wait before asking again.
    """

    def __init__(
        self,
        message: str,
        status: Optional[int] = None,
        type: Optional[str] = None,
        hint: Optional[str] = None,
        command: Optional[str] = None,
        rule: Optional[str] = None,
        retry_after_s: Optional[int] = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.type = type
        self.hint = hint
        self.command = command
        self.rule = rule
        self.retry_after_s = retry_after_s


class AgentUnavailableError(AgentError):
    """Nobody answers there, or not in time."""


class Zone(NamedTuple):
    """An encryption zone. `in_policy` and `pinned` are None when the agent does not know."""

    path: str
    key: str
    in_policy: Optional[bool]
    pinned: Optional[bool]


class MoveAnswer(NamedTuple):
    """May the user bring SRC to DST? `rename` by `hdfs dfs -mv`, `transfer` by a copy that policy allows.

    `reason`, `rule` and `command` (what works instead) are None when the rename is allowed.
    """

    rename: bool
    transfer: bool
    same_zone: bool
    reason: Optional[str]
    rule: Optional[str]
    command: Optional[str]


class Finding(NamedTuple):
    """Something that is not as policy or good practice wants it; `severity` is error, warn or info."""

    severity: str
    rule: str
    path: str
    message: str
    hint: str
    key: Optional[str]
    command: Optional[str]


class Places(NamedTuple):
    """Where to put what is not finished yet, so that the last rename to `path` works; `zone` is None in clear text.

    `staging` is for what will be renamed to `path`, `scratch` for what will be thrown away; `why` is a sentence.
    """

    path: str
    zone: Optional[str]
    staging: str
    scratch: str
    why: str


class Grant(NamedTuple):
    """Leave for one job to bring data from one zone to another, or the wish for it. Times are seconds since the epoch.

    `state` is requested, active or ended; `application` is the YARN application that it ends with.
    """

    id: str
    state: str
    user: str
    source: str
    target: str
    purpose: str
    approver: Optional[str]
    not_after_s: Optional[float]
    ended_by: Optional[str]
    application: Optional[str]


class Transfer(NamedTuple):
    """A transfer and how it goes; its receipt is there when `state` is done.

    `rate` is in bytes per second, copied and verified; `time_left_s` is None when nobody can tell. `problem` says why
    it failed, or why a source that should be removed stayed. `grant` holds who approved it.
    """

    id: str
    state: str
    user: str
    copied_as: str
    src: str
    dst: str
    purpose: Optional[str]
    remove_source: bool
    source_removed: bool
    files: int
    bytes: int
    files_verified: int
    bytes_verified: int
    rate: Optional[float]
    time_left_s: Optional[float]
    waits_for: Optional[str]
    grant: Optional[Dict[str, Any]]
    problem: Optional[Dict[str, Any]]

    @property
    def is_over(self) -> bool:
        """Nothing happens any more: it is done or failed."""
        return self.state in ("done", "failed")


class Token(NamedTuple):
    """A bearer token of the agent, without the token. Times are seconds since the epoch; `paths` None: everywhere."""

    name: str
    user: str
    role: str
    verbs: List[str]
    paths: Optional[List[str]]
    issued_s: int
    expires_s: int
    issued_by: str


class AgentClient:
    """Asks one agent. Safe to share between threads: every question has a connection of its own.

    `socket_path` is the agent's Unix socket, by default RINGFENCE_AGENT_SOCKET, else /run/ringfence/agent.sock. With
    `url` (`https://HOST:PORT`; by default RINGFENCE_AGENT_URL, when no socket is named) the agent is asked over TLS
    instead: `token_file` holds a token of `ringfence agent token issue`, `ca_file` the authorities to trust (PEM; by
    default the system's), `cert_file` and `key_file` a client certificate. `timeout_s` bounds each wait for the agent,
    in seconds. Raises AgentError when the URL or a file cannot be used.
    """

    def __init__(
        self,
        socket_path: Optional[str] = None,
        timeout_s: float = 10.0,
        url: Optional[str] = None,
        token_file: Optional[str] = None,
        ca_file: Optional[str] = None,
        cert_file: Optional[str] = None,
        key_file: Optional[str] = None,
    ) -> None:
        environ = os.environ
        if socket_path is None and url is None and not environ.get("RINGFENCE_AGENT_SOCKET"):
            url = environ.get("RINGFENCE_AGENT_URL") or None
        self.url = url
        self.timeout_s = timeout_s
        self.socket_path = socket_path or environ.get("RINGFENCE_AGENT_SOCKET") or DEFAULT_SOCKET
        self.token_file = token_file
        if url is not None:
            self.token_file = token_file or environ.get("RINGFENCE_AGENT_TOKEN_FILE") or None
            ca_file = ca_file or environ.get("RINGFENCE_AGENT_CA_FILE") or None
            self._host, self._port = _https_address(url)
            self._tls = _tls_context(ca_file, cert_file, key_file)

    @property
    def address(self) -> str:
        """Where the agent is asked: the URL, or the path of its socket."""
        return self.url or self.socket_path

    def health(self) -> Dict[str, Any]:
        """Live, ready, and what the last cycle said. An agent that is not live answers too: look at `live`."""
        return self._ask("GET", "/v1/health", accept=(200, 503))

    def zones(self) -> List[Zone]:
        """Every encryption zone of the cluster."""
        return _listed(self._ask("GET", "/v1/zones"), "zones", _zone)

    def zone_of(self, path: str) -> Optional[Zone]:
        """The innermost zone that holds an HDFS path, None outside every zone. The path need not exist."""
        found = _member(self._ask("GET", "/v1/zones/of?" + urlencode({"path": path})), "zone")
        return None if found is None else _zone(found)

    def check_move(self, src: str, dst: str, user: Optional[str] = None) -> MoveAnswer:
        """Whether `user` (default: the caller) may move `src` to `dst`. Nothing is moved."""
        question = {"src": src, "dst": dst}
        if user is not None:
            question["user"] = user
        answer = self._ask("POST", "/v1/moves/check", question)
        return MoveAnswer(*[_member(answer, name) for name in MoveAnswer._fields])

    def findings(self) -> List[Finding]:
        """Everything the agent found."""
        return _listed(self._ask("GET", "/v1/findings"), "findings", _finding)

    def places(self, path: str, job: Optional[str] = None) -> Places:
        """Staging and scratch directories for `path`, in its zone; `job` keeps two jobs of one user apart."""
        asked = {"path": path}
        if job is not None:
            asked["job"] = job
        answer = self._ask("GET", "/v1/places?" + urlencode(asked))
        return Places(*[_member(answer, name) for name in Places._fields])

    def policy(self) -> Optional[Dict[str, Any]]:
        """The policy document that the agent follows, None when it has none."""
        document = _member(self._ask("GET", "/v1/policy"), "document")
        return document if isinstance(document, dict) else None

    def validate_policy(self, document: str) -> List[Finding]:
        """What is wrong with a policy document (YAML); nothing for a good one."""
        return _listed(self._ask("POST", "/v1/policy/validate", {"document": document}), "findings", _finding)

    def test_policy(self, cases: str, document: Optional[str] = None) -> List[Finding]:
        """What a policy document (default: the agent's own) does otherwise than the `cases` (YAML) expect of it."""
        question = {"cases": cases}
        if document is not None:
            question["document"] = document
        return _listed(self._ask("POST", "/v1/policy/test", question), "findings", _finding)

    def grants(self) -> List[Grant]:
        """The caller's grants and wishes; everybody's for an administrator."""
        return _listed(self._ask("GET", "/v1/grants"), "grants", _grant)

    def request_grant(
        self,
        source: str,
        target: str,
        life_s: float,
        purpose: str,
        token: Optional[int] = None,
        address: Optional[str] = None,
        user: Optional[str] = None,
        real_user: Optional[str] = None,
        application: Optional[str] = None,
        idempotency_key: Optional[str] = None,
    ) -> Grant:
        """Asks for leave to bring data from zone `source` to zone `target`; somebody else approves it.

        The job's session is the sequence number of its delegation token (`token`), or the `address` that its requests
        to the KMS come from. The grant ends with the YARN `application`, when one is named. Sent again with the same
        `idempotency_key`, it is asked for once.
        """
        wish = {"from": source, "to": target, "life_s": life_s, "purpose": purpose}
        more = {"token": token, "address": address, "user": user, "real_user": real_user, "application": application}
        wish.update({name: value for name, value in more.items() if value is not None})
        answer = self._ask("POST", "/v1/grants", wish, accept=(202,), idempotency_key=idempotency_key)
        return _grant(answer)

    def approve_grant(self, grant_id: str) -> Grant:
        """Gives what somebody else asked for. Takes an administrator."""
        return _grant(self._ask("POST", "/v1/grants/" + quote(grant_id, safe="") + "/approve"))

    def end_grant(self, grant_id: str) -> None:
        """Ends a grant, or takes a wish back."""
        self._ask("DELETE", "/v1/grants/" + quote(grant_id, safe=""))

    def submit_transfer(
        self,
        src: str,
        dst: str,
        purpose: Optional[str] = None,
        remove_source: bool = False,
        ask_for_approval: bool = False,
        user: Optional[str] = None,
        idempotency_key: Optional[str] = None,
    ) -> Transfer:
        """Has the agent copy `src` to `dst`, or into it when that is a directory, and verify the copy.

        It goes on when this job ends, and after a restart of the agent. `remove_source` removes the source after all of
        it was verified; `ask_for_approval` has it wait for an administrator where the policy has no flow. Sent again
        with the same `idempotency_key`, it is the same transfer.
        """
        wish: Dict[str, Any] = {"src": src, "dst": dst}
        wish.update({"remove_source": remove_source, "ask_for_approval": ask_for_approval})
        wish.update({name: value for name, value in {"purpose": purpose, "user": user}.items() if value is not None})
        answer = self._ask("POST", "/v1/transfers", wish, accept=(202,), idempotency_key=idempotency_key)
        return _transfer(answer)

    def get_transfer(self, transfer_id: str) -> Transfer:
        """How a transfer goes."""
        return _transfer(self._ask("GET", _transfer_path(transfer_id)))

    def transfers(self) -> List[Transfer]:
        """The caller's transfers, newest first; everybody's for an administrator."""
        return _listed(self._ask("GET", "/v1/transfers"), "transfers", _transfer)

    def wait_for_transfer(
        self,
        transfer_id: str,
        timeout_s: Optional[float] = None,
        on_progress: Optional[Callable[[Transfer], None]] = None,
        poll_s: float = 1.0,
    ) -> Transfer:
        """Waits until a transfer is over, and says how it ended: look at `state`.

        `on_progress` is called with each look. Raises AgentError when it is not over within `timeout_s`; the transfer
        goes on. An agent that is restarted meanwhile is waited for, as long as `timeout_s` allows.
        """
        ends_s = None if timeout_s is None else time.monotonic() + timeout_s
        away_until_s = time.monotonic() + _AWAY_S
        while True:
            try:
                transfer = self.get_transfer(transfer_id)
                away_until_s = time.monotonic() + _AWAY_S
                if on_progress is not None:
                    on_progress(transfer)
                if transfer.is_over:
                    return transfer
            except AgentUnavailableError:
                if time.monotonic() > away_until_s:
                    raise
            if ends_s is not None and time.monotonic() + poll_s > ends_s:
                raise AgentError(f"the transfer {transfer_id} is not over after {timeout_s:g} s; it goes on")
            time.sleep(poll_s)

    def cancel_transfer(self, transfer_id: str) -> Transfer:
        """Ends a transfer that is not placed yet; the source is as it was."""
        return _transfer(self._ask("DELETE", _transfer_path(transfer_id)))

    def approve_transfer(self, transfer_id: str) -> Transfer:
        """Lets somebody else's transfer go on. Takes an administrator."""
        return _transfer(self._ask("POST", _transfer_path(transfer_id) + "/approve"))

    def get_receipt(self, transfer_id: str) -> bytes:
        """The signed receipt of a transfer that is done: keep these bytes as they are."""
        receipt = self._ask("GET", _transfer_path(transfer_id) + "/receipt")
        # A receipt is canonical JSON, of which there is exactly one spelling: this is what the agent signed.
        return json.dumps(receipt, sort_keys=True, separators=(",", ":")).encode("ascii") + b"\n"

    def issue_token(
        self,
        user: str,
        role: str,
        life_s: float,
        verbs: Optional[Sequence[str]] = None,
        paths: Optional[Sequence[str]] = None,
    ) -> Tuple[str, Token]:
        """A new token and what it is good for. Takes an administrator. Keep it in a file of mode 0600 at once."""
        wish: Dict[str, Any] = {"user": user, "role": role, "life_s": life_s}
        if verbs is not None:
            wish["verbs"] = list(verbs)
        if paths is not None:
            wish["paths"] = list(paths)
        answer = self._ask("POST", "/v1/tokens", wish, accept=(201,))
        return str(_member(answer, "token")), _token(answer)

    def tokens(self) -> List[Token]:
        """The tokens that are good. Takes an administrator."""
        return _listed(self._ask("GET", "/v1/tokens"), "tokens", _token)

    def revoke_token(self, name: str) -> None:
        """Ends a token at once. Takes an administrator."""
        self._ask("DELETE", "/v1/tokens/" + quote(name, safe=""))

    def _ask(
        self,
        method: str,
        target: str,
        question: Any = None,
        accept: Any = (200,),
        idempotency_key: Optional[str] = None,
    ) -> Dict[str, Any]:
        body = None if question is None else json.dumps(question).encode("utf-8")
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        if self.token_file is not None:
            headers["Authorization"] = "Bearer " + _read_token(self.token_file)
        connection = self._connection()
        try:
            connection.request(method, target, body, headers)
            with connection.getresponse() as response:
                content = response.read(_MAX_ANSWER_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise AgentUnavailableError(
                f"the agent at {self.address} does not answer: {_why(error)}",
                hint=_what_to_see_to(error),
            ) from error
        finally:
            connection.close()
        answer = _decode(content, response.status)
        # A health document that says "not live" is an answer, not a problem.
        if response.status in accept and "title" not in answer:
            return answer
        raise _problem(answer, response.status, response.getheader("Retry-After"))

    def _connection(self) -> http.client.HTTPConnection:
        if self.url is None:
            return _UnixConnection(self.socket_path, self.timeout_s)
        return http.client.HTTPSConnection(self._host, self._port, timeout=self.timeout_s, context=self._tls)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _https_address(url: str) -> Tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or parts.scheme != "https" or parts.path not in ("", "/") or parts.query or "@" in parts.netloc:
        raise AgentError("the agent's URL must be https://HOST:PORT, and nothing more")
    return host, port or 443


def _tls_context(ca_file: Optional[str], cert_file: Optional[str], key_file: Optional[str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if cert_file is not None:
            context.load_cert_chain(cert_file, key_file)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        named = ", ".join(name for name in (ca_file, cert_file, key_file) if name is not None)
        raise AgentError(f"the certificates in {named} cannot be used: {_why(error)}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _read_token(path: str) -> str:
    """Read for each question: a token may be replaced while a job runs."""
    try:
        # Through a link, too: that is how YARN puts a job's files into a container.
        with open(path, "rb") as file:  # noqa: PTH123 - one file, for callers with plain strings
            state = os.fstat(file.fileno())
            content = file.read(_MAX_TOKEN_BYTES + 1).strip()
    except OSError as error:
        raise AgentError(f"cannot read the token file {path}: {_why(error)}") from error
    if not stat.S_ISREG(state.st_mode) or state.st_mode & 0o077 or state.st_uid not in (0, os.geteuid()):
        raise AgentError(
            f"the token file {path} can be read or changed by others", hint="make it anew", command=f"chmod 0600 {path}"
        )
    text = content.decode("ascii", "replace")
    if not text or len(content) > _MAX_TOKEN_BYTES or not text.isprintable() or " " in text:
        raise AgentError(f"the token file {path} holds no token")
    return text


def _member(answer: Any, name: str) -> Any:
    """A member of an answer that has to be there: what answers may be another program, or an older agent."""
    if not isinstance(answer, dict) or name not in answer:
        raise AgentError("what answers is not Ringfence's agent, or one that knows less than this client")
    return answer[name]


def _listed(answer: Any, name: str, convert: Callable[[Any], _T]) -> List[_T]:
    found = _member(answer, name)
    if not isinstance(found, list):
        raise AgentError("what answers is not Ringfence's agent")
    return [convert(each) for each in found]


def _zone(answer: Any) -> Zone:
    return Zone(*[_member(answer, name) for name in Zone._fields])


def _finding(answer: Any) -> Finding:
    _member(answer, "message")
    return Finding(*[answer.get(name) for name in Finding._fields])


def _grant(answer: Any) -> Grant:
    names = {"source": "from", "target": "to"}
    return Grant(*[_member(answer, names.get(name, name)) for name in Grant._fields])


def _transfer(answer: Any) -> Transfer:
    return Transfer(*[_member(answer, name) for name in Transfer._fields])


def _transfer_path(transfer_id: str) -> str:
    return "/v1/transfers/" + quote(transfer_id, safe="")


def _token(answer: Any) -> Token:
    return Token(*[_member(answer, name) for name in Token._fields])


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _what_to_see_to(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "name the authority of its certificate (ca_file, or RINGFENCE_AGENT_CA_FILE), and a host that is in it"
    return "see whether it runs, and whether this user may reach it"


def _decode(content: bytes, status: int) -> Dict[str, Any]:
    if len(content) > _MAX_ANSWER_BYTES:
        raise AgentError(f"the agent's answer is larger than {_MAX_ANSWER_BYTES} bytes", status)
    try:
        answer = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):  # the latter: brackets in brackets, of whoever answers in the agent's place
        answer = None
    if not isinstance(answer, dict):
        raise AgentError(f"the agent answered {status} with something that is not JSON", status)
    return answer


def _problem(answer: Dict[str, Any], status: int, retry_after: Optional[str]) -> AgentError:
    message = _text(answer, "detail") or _text(answer, "title") or f"the agent answered {status}"
    # Nine digits: a larger number, and a digit that is not ASCII, int() refuses.
    waits = retry_after is not None and retry_after.isdecimal() and len(retry_after) < 10
    return AgentError(
        message,
        status,
        str(answer.get("type", "")).rpartition(":")[2] or None,
        _text(answer, "hint"),
        _text(answer, "command"),
        _text(answer, "rule"),
        int(retry_after) if waits and retry_after is not None else None,
    )


def _text(answer: Dict[str, Any], name: str) -> Optional[str]:
    found = answer.get(name)
    return found if isinstance(found, str) else None
