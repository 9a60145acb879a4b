"""Raw cases on both key servers with Kerberos and TLS; who asks is proven with MIT's own library."""

from __future__ import annotations

import base64
from collections.abc import Callable

import differences
import pytest
from certificates import Certificates
from differences import Tally
from kdc import Kdc
from key_servers import KeyServer
from raw_kerberos_cases import KerberosWire
from settings import PRINCIPALS
from table import KERBEROS_CASES, ROWS

from ringfence_zones.gssapi import Initiator

pytestmark = [pytest.mark.cluster, pytest.mark.long]

Negotiate = Callable[[str], str]


@pytest.fixture(scope="module")
def negotiate(kdc: Kdc) -> Negotiate:
    """A user's `Authorization` header for localhost, made from a ticket cache of theirs."""
    caches = {user: kdc.kinit(user)["KRB5CCNAME"] for user in PRINCIPALS}

    def header(user: str) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KRB5_CONFIG", kdc.environment["KRB5_CONFIG"])
            with Initiator("HTTP", "localhost", cache=caches[user]) as initiator:
                return "Negotiate " + base64.b64encode(initiator.first_token()).decode()

    return header


@pytest.mark.parametrize("name", KERBEROS_CASES)
def test_both_servers_answer_alike_with_kerberos(
    secure_servers: tuple[KeyServer, KeyServer],
    certificates: Certificates,
    negotiate: Negotiate,
    tally: Tally,
    name: str,
) -> None:
    recorded = []
    for server in secure_servers:
        wire = KerberosWire(server, certificates.client_context(), negotiate=negotiate)
        KERBEROS_CASES[name](wire)
        recorded.append(wire.steps)
    found = differences.find_differences(*recorded)
    tally.add("raw-kerberos", len(recorded[0]), len(found))
    complaints = differences.judge(name, found, ROWS)
    assert not complaints, "\n".join(complaints)
