"""What a sandbox with Kerberos or TLS has beside its configuration: a realm with keytabs, certificates, Java's stores.

Made once, when the sandbox is made. Services are `hdfs/localhost` (NameNode and DataNode), `HTTP/localhost` (the KMS
and every web page); users are those of the sandbox, each with a keytab, because there are no passwords to type.
"""

from __future__ import annotations

import base64
import os
import secrets
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ringfence_bootstrap.sandbox.kdc import Realm
from ringfence_bootstrap.sandbox.readiness import Access
from ringfence_bootstrap.sandbox.state import Layout, State

USERS = ("hdfs", "etl", "analyst", "masker")
_SERVICES = ("hdfs/localhost", "HTTP/localhost")


def realm_of(layout: Layout, state: State) -> Realm:
    """The realm of a sandbox with Kerberos."""
    return Realm(layout.kdc, state.ports.kdc)


def make_realm(layout: Layout, state: State) -> None:
    """The realm with its principals and keytabs; no KDC needs to run. Raises SandboxError without MIT Kerberos."""
    realm = realm_of(layout, state)
    realm.create(max_life_s=state.ticket_lifetime_s)
    for principal in (*_SERVICES, *USERS):
        realm.add_principal(principal)
    for user in USERS:
        realm.keytab(user, (user,))
    realm.keytab("services", _SERVICES)
    realm.keytab("kms", ("HTTP/localhost",))
    layout.ticket_cache("hdfs").parent.mkdir(mode=0o700)


def get_ticket(layout: Layout, state: State, user: str) -> dict[str, str]:
    """A new ticket in the user's cache, and the environment that uses it. The KDC must run."""
    return realm_of(layout, state).kinit(user, layout.keytab(user), layout.ticket_cache(user))


def make_certificates(layout: Layout, state: State) -> str:
    """The authority, one certificate for localhost and Java's two stores in `tls/`; the stores' password."""
    # cryptography belongs to an extra: a sandbox without TLS does not ask for it.
    from ringfence_bootstrap.sandbox.certificates import CertificateAuthority  # noqa: PLC0415

    authority = CertificateAuthority.make(layout.tls, "Ringfence sandbox CA")
    password, java_home = secrets.token_urlsafe(24), Path(state.java_home)
    authority.make_key_store(authority.issue_server(), layout.tls / "server.jks", password, java_home)
    authority.make_trust_store(layout.tls / "trust.jks", password, java_home)
    return password


@contextmanager
def superuser_access(layout: Layout, state: State) -> Iterator[Access]:
    """How this process asks the sandbox's daemons as `hdfs`; with Kerberos the KDC must run."""
    context = ssl.create_default_context(cafile=str(layout.authority)) if state.tls else None
    if not state.kerberos:
        yield Access(state.ports, kms_tls=context)
        return
    from ringfence_zones.gssapi import Initiator  # noqa: PLC0415 - loads Kerberos's library

    tickets = get_ticket(layout, state, "hdfs")

    def authorize() -> str:
        with Initiator("HTTP", "localhost", cache=tickets["KRB5CCNAME"]) as initiator:
            return f"Negotiate {base64.b64encode(initiator.first_token()).decode()}"

    with _environment(KRB5_CONFIG=tickets["KRB5_CONFIG"]):
        yield Access(state.ports, kms_tls=context, web_tls=context, authorize=authorize)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """The library reads its configuration's place from the process's environment and from nowhere else."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
