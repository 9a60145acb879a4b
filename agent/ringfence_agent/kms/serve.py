"""Puts the KMS together: what the master prepares before the fork, what each worker opens after it.

Before: settings, listening sockets, the cookies' root secret. After: the key store, caches, the audit log. A reload
(SIGHUP) starts new workers, which read `kms-acls.xml` afresh; other settings need a restart. SIGUSR1 reopens the
audit files.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.metadata import version

from ringfence_agent import process_hygiene
from ringfence_agent.http.listening import Listener, TcpListener, listen_tcp, listen_unix
from ringfence_agent.http.outbox import Recorded
from ringfence_agent.http.supervisor import Supervisor
from ringfence_agent.http.worker import WorkerContext
from ringfence_agent.keystore.open import open_keystore
from ringfence_agent.kms.access import AccessRules
from ringfence_agent.kms.acl_file import AclFile
from ringfence_agent.kms.admin_access import AdminAccess, read_token
from ringfence_agent.kms.app import KmsApplication
from ringfence_agent.kms.audit import AuditLog
from ringfence_agent.kms.auth_simple import TOKEN_TYPE, UserNameMechanism
from ringfence_agent.kms.authentication import CallAuthenticator
from ringfence_agent.kms.call import Call, Kms
from ringfence_agent.kms.caller import Caller, Identity
from ringfence_agent.kms.config import Settings
from ringfence_agent.kms.cookie import CookieAttributes, CookieSigner, RollingSecrets
from ringfence_agent.kms.groups import Groups
from ringfence_agent.kms.key_cache import KeyCache
from ringfence_agent.kms.remote_exception import render_server_error
from ringfence_agent.kms.sessions import Sessions
from ringfence_agent.kms.store_access import StoreAccess
from ringfence_zones.errors import AuthenticationError, ConfigError
from ringfence_zones.secret import Secret

_log = logging.getLogger(__name__)

_TICK_S = 1.0
# One user whom the directory cannot find quickly must not hold up the next, nor the ACL file.
_LOOKUP_THREADS = 4
_COOKIE_ROOT_BYTES = 32


def serve(settings: Settings) -> None:
    """Serves until SIGTERM. Prints one line on standard output when every worker answers. Raises RingfenceError."""
    process_hygiene.forbid_core_dumps()
    tls = settings.tls.open() if settings.tls is not None else None
    tcp = listen_tcp(settings.host, settings.port, slots=settings.workers)
    listeners: list[Listener] = [tcp]
    try:
        listeners += _admin_listeners(settings)
        cookie_root = settings.signature_secret or Secret(secrets.token_bytes(_COOKIE_ROOT_BYTES))
        supervisor = Supervisor(
            functools.partial(open_application, settings, cookie_root),
            listeners,
            workers=settings.workers,
            limits=settings.limits,
            render_error=render_server_error,
            drain_timeout_s=settings.drain_s,
            tls=tls,
            on_ready=lambda: _announce(tcp, "http" if tls is None else "https"),
        )
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    supervisor.run()


def _admin_listeners(settings: Settings) -> list[Listener]:
    try:
        return [listen_unix(settings.admin_socket)]
    except ConfigError as error:
        if settings.admin_socket_named:
            raise
        _log.warning("there is no admin socket: %s; name another place with --admin-socket", error.message)
        return []


def _announce(tcp: TcpListener, scheme: str) -> None:
    host = f"[{tcp.host}]" if ":" in tcp.host else tcp.host
    sys.stdout.write(f"ready kms://{scheme}@{host}:{tcp.port}/kms\n")
    sys.stdout.flush()


@asynccontextmanager
async def open_application(settings: Settings, cookie_root: Secret, context: WorkerContext) -> AsyncIterator[Recorded]:
    """One worker's application, from opening its store to closing it."""
    async with AsyncExitStack() as stack:
        # What may wait for a directory server or a file server must not hold up the store, nor the audit log's disk.
        lookups = _executor(stack, "lookups", _LOOKUP_THREADS)
        audit_thread = _executor(stack, "audit")
        audit = AuditLog(settings.audit, context.slot, audit_thread)
        stack.callback(audit.close)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, audit.reopen)
        opened = open_keystore(settings.keystore, settings.root_key, settings.init)
        store = StoreAccess(opened, context.generation, context.token_generation, audit.require_writable)
        stack.callback(store.close)
        acl_file = AclFile(settings.acl_directory)
        groups = Groups(settings.groups, lookups, time.monotonic)
        access = AccessRules(acl_file.load(), groups.of, key_authorization=settings.key_authorization)
        keys = KeyCache(store, time.monotonic, settings.key_memory_s)
        token = read_token(settings.admin_token_file) if settings.admin_token_file is not None else None
        kms = Kms(store, keys, access, settings.defaults, version("ringfence"), audit)
        authenticator = _authenticator(settings, cookie_root)
        ticker = asyncio.create_task(_tick(access, keys, acl_file, lookups, audit))
        stack.push_async_callback(_cancel, ticker)
        application = KmsApplication(kms, authenticator, AdminAccess(token))
        yield Recorded(application, application.commit)


def _executor(stack: AsyncExitStack, name: str, threads: int = 1) -> Executor:
    executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
    stack.callback(executor.shutdown)
    return executor


def _authenticator(settings: Settings, cookie_root: Secret) -> CallAuthenticator:
    now_ms = _epoch_ms()
    rolling = RollingSecrets(cookie_root, settings.session_s, fixed=settings.signature_secret is not None)
    signer = CookieSigner(rolling, TOKEN_TYPE, settings.session_s, now_ms)
    attributes = CookieAttributes(settings.cookie_path, settings.cookie_domain)
    sessions = Sessions(signer, Identity.CLAIMED, now_ms, attributes)
    return CallAuthenticator(sessions, UserNameMechanism(sessions), _NoTokens())


class _NoTokens:
    """Until tokens are served."""

    def verify(self, _call: Call, _url_string: bytes) -> Caller:
        raise AuthenticationError("Authentication required")


def _epoch_ms() -> Callable[[], int]:
    return lambda: time.time_ns() // 1_000_000


async def _tick(access: AccessRules, keys: KeyCache, acl_file: AclFile, lookups: Executor, audit: AuditLog) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(_TICK_S)
        access.forget()
        keys.drop_old()
        audit.tick()
        changed = await loop.run_in_executor(lookups, acl_file.find_changed)
        if changed is not None:
            access.use_acls(changed)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
