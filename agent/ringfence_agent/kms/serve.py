"""Puts the KMS together: what the master prepares before the fork, what each worker opens after it.

Before: settings, listening sockets, the cookies' root secret. After: the key store, caches, the audit log. A reload
(SIGHUP) starts new workers, which read `kms-acls.xml` afresh; other settings need a restart. SIGUSR1 reopens the
audit files.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING

from ringfence_agent import process_hygiene
from ringfence_agent.flow.grants import PURPOSE as GRANT_PURPOSE
from ringfence_agent.flow.place import open_flow_memory
from ringfence_agent.flow.stamp import PURPOSE as STAMP_PURPOSE
from ringfence_agent.flow.stamp import Stamps
from ringfence_agent.http.listening import Listener, TcpListener, listen_tcp, listen_unix
from ringfence_agent.http.outbox import Recorded
from ringfence_agent.http.supervisor import Supervisor
from ringfence_agent.http.worker import WorkerContext
from ringfence_agent.keystore.backup.place import BackupPlace
from ringfence_agent.keystore.backup.places import parse_place
from ringfence_agent.keystore.interface import OpenStore
from ringfence_agent.keystore.open import is_shared, local_path, open_keystore
from ringfence_agent.kms.app import KmsApplication
from ringfence_agent.kms.audit.log import AuditLog
from ringfence_agent.kms.authentication import kerberos as auth_kerberos
from ringfence_agent.kms.authentication import simple as auth_simple
from ringfence_agent.kms.authentication.admin_access import AdminAccess, read_token
from ringfence_agent.kms.authentication.authenticator import CallAuthenticator, Mechanism
from ringfence_agent.kms.authentication.caller import Identity
from ringfence_agent.kms.authentication.config import AuthenticationSettings
from ringfence_agent.kms.authentication.cookie import CookieAttributes, CookieSigner, RollingSecrets
from ringfence_agent.kms.authentication.delegation_tokens import DelegationTokens
from ringfence_agent.kms.authentication.proxy_users import ProxyUsers
from ringfence_agent.kms.authentication.sessions import Sessions
from ringfence_agent.kms.authorization.access import AccessRules
from ringfence_agent.kms.authorization.acl_file import AclFile
from ringfence_agent.kms.authorization.groups import Groups
from ringfence_agent.kms.config import Settings, is_loopback
from ringfence_agent.kms.custody.open import open_transit
from ringfence_agent.kms.flow_control import FlowControl
from ringfence_agent.kms.freshness import Freshness
from ringfence_agent.kms.grant_keeper import GrantKeeper
from ringfence_agent.kms.key_cache import KeyCache
from ringfence_agent.kms.kms import Kms
from ringfence_agent.kms.lease_desk import LeaseDesk
from ringfence_agent.kms.monitoring.health import HealthCheck
from ringfence_agent.kms.monitoring.metrics import MetricsTable
from ringfence_agent.kms.monitoring.pages import Monitoring, ServerFacts
from ringfence_agent.kms.monitoring.transit_health import TransitHealth
from ringfence_agent.kms.protector_config import open_protectors
from ringfence_agent.kms.remote_exception import render_server_error
from ringfence_agent.kms.repeated_change import DIGEST_PURPOSE, RepeatedChanges
from ringfence_agent.kms.store_access import StoreAccess
from ringfence_agent.kms.store_keeper import StoreKeeper
from ringfence_agent.kms.store_record import StoreRecord
from ringfence_agent.kms.waiting import WaitingApplication
from ringfence_agent.leases.place import open_lease_book
from ringfence_agent.spnego.settings import KerberosSettings
from ringfence_agent.vault.settings import VaultSettings
from ringfence_zones.errors import ConfigError, ProtectorUnavailableError, RingfenceError, StoreUnreachableError
from ringfence_zones.secret import Secret

if TYPE_CHECKING:
    # A server without TLS does without `cryptography`'s certificates, and one without Vault without its login.
    from ringfence_agent.http.tls import ServerTls
    from ringfence_agent.vault.renewal import TokenKeeper

_log = logging.getLogger(__name__)

_TICK_S = 1.0
_COOKIE_PURPOSE = "hadoop.auth cookies"
# One user whom the directory cannot find quickly must not hold up the next, nor the ACL file.
_LOOKUP_THREADS = 4
_CLEARING_S = 60.0


def serve(settings: Settings) -> None:
    """Serves until SIGTERM. Prints one line on standard output when every worker answers. Raises RingfenceError."""
    process_hygiene.forbid_core_dumps()
    tls = settings.tls.open() if settings.tls is not None else None
    tcp = listen_tcp(settings.host, settings.port, slots=settings.workers)
    listeners: list[Listener] = [tcp]
    # Each slot has two processes while a reload replaces one.
    table, record = MetricsTable(2 * settings.workers), StoreRecord()
    facts = _facts(settings, tcp, tls)
    try:
        listeners += _admin_listeners(settings)
        supervisor = Supervisor(
            functools.partial(open_application, settings, table, record, facts),
            listeners,
            workers=settings.workers,
            limits=settings.limits,
            render_error=render_server_error,
            drain_timeout_s=settings.drain_s,
            tls=tls,
            on_crash=table.count_crash,
            on_ready=lambda: _announce(tcp, "http" if tls is None else "https"),
        )
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    supervisor.run()


def _facts(settings: Settings, tcp: TcpListener, tls: ServerTls | None) -> ServerFacts:
    return ServerFacts(
        address=_address(tcp),
        scheme="http" if tls is None else "https",
        only_loopback=is_loopback(tcp.host),
        authentication=settings.authentication.type,
        revocation_bound_s=settings.revocation_bound_s,
        service_name=settings.service_name,
        metrics_access=settings.metrics_access,
        protectors=settings.protectors.names,
        certificate_not_after_s=lambda: None if tls is None else tls.not_after_s,
    )


def _admin_listeners(settings: Settings) -> list[Listener]:
    try:
        return [listen_unix(settings.admin_socket)]
    except ConfigError as error:
        if settings.admin_socket_named:
            raise
        _log.warning("there is no admin socket: %s; name another place with --admin-socket", error.message)
        return []


def _announce(tcp: TcpListener, scheme: str) -> None:
    sys.stdout.write(f"ready kms://{scheme}@{_address(tcp)}/kms\n")
    sys.stdout.flush()


def _address(tcp: TcpListener) -> str:
    host = f"[{tcp.host}]" if ":" in tcp.host else tcp.host
    return f"{host}:{tcp.port}"


@asynccontextmanager
async def open_application(
    settings: Settings, table: MetricsTable, record: StoreRecord, facts: ServerFacts, context: WorkerContext
) -> AsyncIterator[Recorded]:
    """One worker's application, from opening its store to closing it.

    A store whose protector or database server is away is waited for (`waiting`), but not by the successor of a worker
    that may serve.
    """
    async with AsyncExitStack() as stack:
        audit = AuditLog(settings.audit, context.slot, _executor(stack, "audit"))
        stack.callback(audit.close)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, audit.reopen)
        if settings.vault is not None and settings.vault.agent_socket is None:
            stack.callback(_keep_token(settings.vault).stop)
        open_store = _store_opener(settings)
        serve = functools.partial(_serving, settings, table, record, facts, context, audit)
        try:
            opened = open_store()
        except (ProtectorUnavailableError, StoreUnreachableError) as error:
            if settings.init or context.is_successor:
                raise
            waiting = WaitingApplication(audit, error)
            opening = asyncio.create_task(waiting.run(open_store, serve, _executor(stack, "opening")))
            stack.push_async_callback(_cancel, opening)
            yield waiting.recorded
        else:
            yield await stack.enter_async_context(serve(opened))


def _store_opener(settings: Settings) -> Callable[[], OpenStore]:
    """Opens the store as often as it is tried; its protectors are made once."""
    protectors = functools.cache(lambda: open_protectors(settings.protectors))
    return lambda: open_keystore(
        settings.keystore,
        settings.root_key,
        settings.init,
        settings.keystore_password_file,
        protectors(),
        settings.vault,
    )


@asynccontextmanager
async def _serving(
    settings: Settings,
    table: MetricsTable,
    record: StoreRecord,
    facts: ServerFacts,
    context: WorkerContext,
    audit: AuditLog,
    opened: OpenStore,
) -> AsyncIterator[Recorded]:
    """The application on an open store, which it closes."""
    async with AsyncExitStack() as stack:
        store = StoreAccess(
            opened,
            context.generation,
            context.token_generation,
            audit.require_writable,
            is_shared=is_shared(settings.keystore),
        )
        stack.callback(store.close)
        # What may wait for a directory server or a file server must not hold up the store, nor the audit log's disk.
        lookups = _executor(stack, "lookups", _LOOKUP_THREADS)
        acl_file = AclFile(settings.acl_directory)
        groups = Groups(settings.groups, lookups, time.monotonic)
        access = AccessRules(acl_file.load(), groups.of, key_authorization=settings.key_authorization)
        keys = KeyCache(store, time.monotonic, settings.key_memory_s)
        token = read_token(settings.admin_token_file) if settings.admin_token_file is not None else None
        authentication = settings.authentication
        short_name = _short_names(authentication.kerberos)
        tokens = _tokens(settings, store, short_name)
        freshness = Freshness(store, keys, access, time.monotonic, settings.revocation_bound_s, record.find_distrust)
        repeated = RepeatedChanges(store, opened.derive_secret(DIGEST_PURPOSE))
        stack.push_async_callback(repeated.close)
        metrics = table.worker(context.process, context.slot)
        stack.callback(metrics.end)
        store.on_work = metrics.store
        keeper = _keeper(settings, opened, record, _executor(stack, "keeping"), metrics.add)
        stack.push_async_callback(keeper.close)
        transit, transit_changes = None, None
        if settings.vault is not None:
            transit, transit_changes = open_transit(settings.vault, settings.workers, metrics.transit_call, stack)
        held = TransitHealth(store, transit.prove if transit is not None else None, time.monotonic)
        grant_tags = opened.derive_secret(GRANT_PURPOSE)
        flows = FlowControl(
            lambda: open_flow_memory(
                settings.keystore, settings.keystore_password_file, bytes.fromhex(opened.store_id), grant_tags
            ),
            _executor(stack, "flows"),
            Stamps(opened.derive_secret(STAMP_PURPOSE)),
            access,
            groups.of,
            freshness.catch_up,
            metrics.add,
            settling_s=settings.revocation_bound_s if is_shared(settings.keystore) else 0.0,
            remembered_s=settings.revocation_bound_s,
        )
        stack.push_async_callback(flows.close)
        leases = LeaseDesk(
            lambda: open_lease_book(settings.keystore, settings.keystore_password_file), _executor(stack, "leases")
        )
        stack.push_async_callback(leases.close)
        health = HealthCheck(store, audit, time.monotonic, find_distrust=record.find_distrust, held=held)
        monitoring = Monitoring(facts, metrics, health, audit, keeper, transit.gauges if transit is not None else dict)
        kms = Kms(
            store,
            keys,
            access,
            settings.defaults,
            version("ringfence"),
            audit,
            tokens,
            authentication.type,
            freshness,
            repeated,
            monitoring,
            keeper,
            flows,
            leases,
            settings.grant_lifetime_s,
            transit,
            transit_changes,
        )
        cookie_root = opened.derive_secret(_COOKIE_PURPOSE)
        proofs = _executor(stack, "proofs")
        authenticator = _authenticator(authentication, cookie_root, tokens, proofs, secure=settings.tls is not None)
        proxies = ProxyUsers(authentication.proxy_rules, groups.of, short_name)
        ticker = asyncio.create_task(_tick(kms, acl_file, lookups))
        stack.push_async_callback(_cancel, ticker)
        stack.push_async_callback(_cancel, asyncio.create_task(tokens.keep_clean()))
        stack.push_async_callback(_cancel, asyncio.create_task(keeper.run()))
        grant_keeper = GrantKeeper(flows, store, access, audit)
        stack.push_async_callback(_cancel, asyncio.create_task(grant_keeper.run()))
        upkeep = asyncio.create_task(_keep_up(freshness, repeated, settings.revocation_bound_s))
        stack.push_async_callback(_cancel, upkeep)
        application = KmsApplication(kms, authenticator, AdminAccess(token, settings.admin_users, groups.of), proxies)
        yield Recorded(monitoring.watch(application), application.commit, monitoring.serving)


def _executor(stack: AsyncExitStack, name: str, threads: int = 1) -> Executor:
    executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
    stack.callback(executor.shutdown)
    return executor


def _keeper(
    settings: Settings, store: OpenStore, record: StoreRecord, executor: Executor, count: Callable[[str], None]
) -> StoreKeeper:
    keeping = settings.keeping
    place: BackupPlace | None = None
    risks = []
    if keeping.backup is not None and keeping.backup.after_changes:
        place = parse_place(keeping.backup.to, keeping.backup.s3)
        path = local_path(settings.keystore)
        if path is not None and place.is_beside(path):
            risks.append(f"backups go to {place.label}, on the key store's own disk: they are lost with it")
    return StoreKeeper(store, record, keeping, place, executor, risks, count)


def _keep_token(vault: VaultSettings) -> TokenKeeper:
    """Logged in, if that can be done now; if not, what needs Vault says so. Workers share one token."""
    from ringfence_agent.vault.renewal import TokenKeeper  # noqa: PLC0415 -- the extra `vault`

    keeper = TokenKeeper(vault)
    keeper.turn()
    keeper.start()
    return keeper


def _short_names(kerberos: KerberosSettings | None) -> Callable[[str], str]:
    """From full to short names. Under simple authentication a name is what it is."""
    return auth_simple.plain_name if kerberos is None else kerberos.open_names().short_name


def _tokens(settings: Settings, store: StoreAccess, short_name: Callable[[str], str]) -> DelegationTokens:
    authentication = settings.authentication
    identity = Identity.CLAIMED if authentication.kerberos is None else Identity.TOKEN
    keep_ms = int(settings.revocation_bound_s * 1000 / 2)
    return DelegationTokens(store, authentication.token_lifetimes, identity, short_name, _epoch_ms(), keep_ms)


def _authenticator(
    settings: AuthenticationSettings,
    cookie_root: Secret,
    tokens: DelegationTokens,
    executor: Executor,
    *,
    secure: bool,
) -> CallAuthenticator:
    now_ms = _epoch_ms()
    kerberos = settings.kerberos
    fixed = settings.signature_secret
    rolling = RollingSecrets(fixed or cookie_root, settings.session_s, fixed=fixed is not None)
    token_type = auth_simple.TOKEN_TYPE if kerberos is None else auth_kerberos.TOKEN_TYPE
    signer = CookieSigner(rolling, token_type, settings.session_s, now_ms, settings.idle_s)
    attributes = CookieAttributes(settings.cookie_path, settings.cookie_domain, secure, settings.cookie_persistent)
    identity = Identity.CLAIMED if kerberos is None else Identity.KERBEROS
    sessions = Sessions(signer, identity, now_ms, attributes, settings.idle_s)
    mechanism: Mechanism = auth_simple.UserNameMechanism(sessions)
    if kerberos is not None:
        acceptor, names = kerberos.open_acceptor(), kerberos.open_names()
        mechanism = auth_kerberos.NegotiateMechanism(sessions, acceptor, names, executor)
    return CallAuthenticator(sessions, mechanism, tokens, token_in_query=settings.token_in_query)


def _epoch_ms() -> Callable[[], int]:
    return lambda: time.time_ns() // 1_000_000


async def _tick(kms: Kms, acl_file: AclFile, lookups: Executor) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(_TICK_S)
        kms.access.forget()
        kms.keys.drop_old()
        kms.audit.tick()
        kms.monitoring.tick(time.monotonic(), kms.access, kms.keys)
        changed = await loop.run_in_executor(lookups, acl_file.find_changed)
        if changed is not None:
            kms.access.use_acls(changed)


async def _keep_up(freshness: Freshness, repeated: RepeatedChanges, bound_s: float) -> None:
    """Looks at the store several times within the bound; clears up what nobody will ask for again."""
    interval_s = min(_TICK_S, bound_s / 4)
    next_clearing_s = 0.0
    failing = False
    while True:
        try:
            await freshness.catch_up()
            repeated.remove_due()
            if time.monotonic() >= next_clearing_s:
                next_clearing_s = time.monotonic() + _CLEARING_S
                await repeated.remove_old()
            failing = False
        except RingfenceError as error:
            if not failing:
                _log.warning("the key store cannot be looked at: %s", error.message)
            failing = True
        await asyncio.sleep(interval_s)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
