"""A KMS that authenticates by Kerberos, and raw HTTP requests with real tickets."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from http_serving import Answer, RawClient
from kdc import Kdc
from kms_serving import OPEN_ACLS, KmsPlace, RunningKms, call

from ringfence_zones.gssapi import Initiator

PREFIX = "hadoop.kms.authentication."


def kerberos_site(keytab: Path, **more: str) -> dict[str, str]:
    """kms-site.xml of a KMS with Kerberos; names in `more` are below `hadoop.kms.authentication.`."""
    site = {
        "type": "kerberos",
        "kerberos.keytab": str(keytab),
        "kerberos.principal": "HTTP/localhost",
        "kerberos.name.rules": "DEFAULT",
        **more,
    }
    return {PREFIX + name: value for name, value in site.items()}


@dataclass
class KerberosKms:
    """A running server and the realm its callers are in."""

    kms: RunningKms
    kdc: Kdc

    @property
    def place(self) -> KmsPlace:
        return self.kms.place

    def full(self, user: str) -> str:
        return f"{user}@{self.kdc.realm.name}"

    @contextmanager
    def initiator(self, user: str, service: str = "HTTP", binding: bytes | None = None) -> Iterator[Initiator]:
        """One SPNEGO exchange of a user with a ticket of its own."""
        environment = self.kdc.kinit(user)
        with (
            mock.patch.dict(os.environ, environment),
            Initiator(service, "localhost", cache=environment["KRB5CCNAME"], binding=binding) as initiator,
        ):
            yield initiator

    def negotiate(self, user: str, service: str = "HTTP") -> str:
        """The Authorization header of a user."""
        with self.initiator(user, service) as initiator:
            return negotiate_header(initiator.first_token())

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        user: str | None = None,
        client: RawClient | None = None,
    ) -> Answer:
        """One request on a connection of its own; `user` proves itself by a new token."""
        proof = {} if user is None else {"Authorization": self.negotiate(user)}
        connection = client or self.kms.connect()
        try:
            return call(connection, method, path, body, user=None, query=query, headers={**proof, **(headers or {})})
        finally:
            if client is None:
                connection.socket.close()

    def cookie(self, user: str) -> str:
        """The Cookie header of a new session."""
        return cookie_of(self.ask("OPTIONS", "/kms/v1/", user=user))


def negotiate_header(token: bytes) -> str:
    return f"Negotiate {base64.b64encode(token).decode()}"


def cookie_of(answer: Answer) -> str:
    header = answer.header("Set-Cookie")
    assert header is not None and header.startswith('hadoop.auth="'), answer
    return header.partition(";")[0]


@contextmanager
def serving_kerberos(
    directory: Path,
    kdc: Kdc,
    *,
    workers: int = 2,
    site: Mapping[str, str] | None = None,
    acls: Mapping[str, str] = OPEN_ACLS,
    core: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[KerberosKms]:
    """The real server with a keytab for `HTTP/localhost`; `site` is added to its kms-site.xml."""
    keytab = kdc.keytab("HTTP/localhost")
    place = KmsPlace.make(directory, acls=acls, site={**kerberos_site(keytab), **(site or {})}, core=core)
    with place.serving(workers, environment={**kdc.environment, **(environment or {})}) as running:
        yield KerberosKms(running, kdc)
