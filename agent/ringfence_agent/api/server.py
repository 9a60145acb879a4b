"""Puts the agent's API on its sockets: the Unix socket always, and TCP with TLS when agent.yaml names an address.

One HTTP server, one application and one gate serve both; what differs is how a caller is proven (`identify`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fastapi import APIRouter

from ringfence_agent.api import token_routes
from ringfence_agent.api.access import AccessRules, Accounts, Members
from ringfence_agent.api.app import create_app
from ringfence_agent.api.asgi import AsgiBridge
from ringfence_agent.api.browsers import BrowserGuard
from ringfence_agent.api.gate import LARGE_BODY_BYTES, Rates, core_problem
from ringfence_agent.api.identify import Identifier
from ringfence_agent.api.tokens import TokenBook
from ringfence_agent.api.view import ClusterView
from ringfence_agent.config import STEP_USER, AgentConfig, MembersBlock
from ringfence_agent.http.limits import Limits
from ringfence_agent.http.listening import Listener, TcpListener, listen_tcp, parse_listen
from ringfence_agent.http.server import HttpServer
from ringfence_agent.http.service import HttpService
from ringfence_agent.spnego.negotiate import Negotiator
from ringfence_agent.spnego.settings import kerberos_settings

TOKENS_FILE = "api-tokens.json"
# A question is two paths, a policy document the largest of what is taken; far below the key server's bounds. A Kerberos
# ticket with a directory's group list has 64 KiB, which only the network needs.
_HEAD_BYTES = 32 * 1024
_NETWORK_HEAD_BYTES = 96 * 1024
_PROVING_THREADS = 2


@dataclass(frozen=True, slots=True)
class Api:
    """The API, ready to serve. `tcp` is None without a listener of its own."""

    server: HttpServer
    tcp: TcpListener | None
    close: Callable[[], None]


def open_api(
    config: AgentConfig,
    unix: Listener,
    view: ClusterView,
    accounts: Accounts,
    trusted_uids: Iterable[int],
    routers: Sequence[APIRouter] = (),
) -> Api:
    """Opens what the settings name; `trusted_uids` are administrators.

    Raises ConfigError when a file, a keytab or the address cannot be used.
    """
    rules = AccessRules(
        viewers=Members.of(config.allowed_users, config.allowed_groups),
        operators=_members(config.operators),
        admins=_members(config.admins),
        delegate_users=config.delegate_users,
        never_admins=[STEP_USER],
        trusted_uids=trusted_uids,
        accounts=accounts,
    )
    tokens = TokenBook(config.state_dir / TOKENS_FILE) if config.tokens else None
    proving = ThreadPoolExecutor(_PROVING_THREADS, thread_name_prefix="proofs")
    identifier = Identifier(rules, accounts, tokens=tokens, negotiator=_negotiator(config, proving))
    own = [token_routes.router(tokens, view)] if tokens is not None else []
    rates = Rates(config.rates.requests, config.rates.changes)
    app = create_app(view, identifier, routers=[*own, *routers], rates=rates)
    service = HttpService(BrowserGuard(AsgiBridge(app), core_problem), _limits(config), core_problem)
    tls = config.tls.settings().open() if config.tls is not None else None
    tcp = None
    if config.listen is not None:
        tcp = listen_tcp(*parse_listen(config.listen), slots=1)
    # The server closes what it is given when it drains; the listeners' own say whether they are still ours.
    sockets = [one.dup() for listener in (unix, tcp) if listener is not None for one in listener.sockets_for(0)]

    def close() -> None:
        proving.shutdown(wait=False, cancel_futures=True)
        if tcp is not None:
            tcp.close()

    return Api(HttpServer(service, sockets, tls=tls), tcp, close)


def _negotiator(config: AgentConfig, proving: ThreadPoolExecutor) -> Negotiator | None:
    if config.spnego is None:
        return None
    kerberos = kerberos_settings(config.spnego)
    kerberos.check()
    return Negotiator(kerberos.open_acceptor(), kerberos.open_names(), proving)


def _limits(config: AgentConfig) -> Limits:
    return Limits(
        head_bytes=_HEAD_BYTES if config.spnego is None else _NETWORK_HEAD_BYTES,
        header_count=64,
        body_bytes=LARGE_BODY_BYTES,
        held_body_bytes=4 * LARGE_BODY_BYTES,
        body_timeout_s=10.0,
        connections=1024,
    )


def _members(block: MembersBlock) -> Members:
    return Members.of(block.users, block.groups)
