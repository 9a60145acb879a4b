"""Raw HTTP against servers with Kerberos and TLS: SPNEGO, sessions, tokens; `user.name` means nothing."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wire import Reply, Wire

_LIST = "keys/metadata"


@dataclass
class KerberosWire(Wire):
    """A wire whose cases can prove who they are. `negotiate` gives an `Authorization` header, new for each call."""

    negotiate: Callable[[str], str] = lambda _user: ""

    def proven(self, step: str, method: str, target: str, body: Any = None, *, user: str = "alice") -> Reply:
        """One request with a fresh ticket exchange."""
        headers = {"Authorization": self.negotiate(user)}
        return self.call(step, method, target, body, user=None, headers=headers)


def anonymous(kms: KerberosWire) -> None:
    kms.call("get", "GET", _LIST, user=None)
    kms.call("options", "OPTIONS", _LIST, user=None)
    kms.call("user-name", "GET", _LIST)
    kms.call("options-user-name", "OPTIONS", _LIST)
    kms.call("post", "POST", "keys", {"name": "claimed"})


def negotiated(kms: KerberosWire) -> None:
    first = kms.proven("get", "GET", _LIST)
    kms.proven("options", "OPTIONS", _LIST)
    kms.call("session", "GET", _LIST, user=None, headers=first.session)
    kms.call("session-with-user", "GET", _LIST, user="bob", headers=first.session)
    kms.proven("user-name-of-another", "GET", f"{_LIST}?user.name=bob")
    kms.proven("denied", "GET", "keys/names", user="nobody")
    kms.proven("create", "POST", "keys", {"name": "proven", "length": 128})
    kms.proven("delete", "DELETE", "key/proven")


def refused_exchanges(kms: KerberosWire) -> None:
    for step, header in (
        ("junk", "Negotiate " + base64.b64encode(b"junk").decode()),
        ("not-base64", "Negotiate !!!"),
        ("no-token", "Negotiate"),
        ("basic", "Basic " + base64.b64encode(b"alice:alice").decode()),
        ("ntlm", "Negotiate TlRMTVNTUAABAAAA"),
    ):
        kms.call(step, "GET", _LIST, user=None, headers={"Authorization": header})


def replayed(kms: KerberosWire) -> None:
    header = {"Authorization": kms.negotiate("alice")}
    kms.call("first", "GET", _LIST, user=None, headers=header)
    kms.call("second", "GET", _LIST, user=None, headers=header)


def sessions_refused(kms: KerberosWire) -> None:
    session = kms.proven("login", "OPTIONS", _LIST).session["Cookie"]
    simple = session.replace("t=kerberos-dt", "t=simple-dt")
    for step, cookie in (("forged", session.replace("u=alice", "u=bob")), ("of-another-type", simple)):
        kms.call(step, "GET", _LIST, user=None, headers={"Cookie": cookie})
        kms.call(f"{step}-with-user", "GET", _LIST, headers={"Cookie": cookie})


def tokens(kms: KerberosWire) -> None:
    kms.call("anonymous", "GET", "/kms/v1/?op=GETDELEGATIONTOKEN", user=None)
    kms.call("claimed", "GET", "/kms/v1/?op=GETDELEGATIONTOKEN")
    header = {"Authorization": kms.negotiate("alice")}
    issued = kms.call("", "GET", "/kms/v1/?op=GETDELEGATIONTOKEN&renewer=bob", user=None, headers=header, record=False)
    names = sorted(name.lower() for name in issued.headers if name.lower() in ("set-cookie", "www-authenticate"))
    kms.note("issued", {"status": str(issued.status), "headers": " ".join(names)})
    token = issued.json["Token"]["urlString"]
    kms.call("use", "GET", _LIST, user=None, headers={"X-Hadoop-Delegation-Token": token})
    kms.call("use-with-a-claim", "GET", _LIST, user="nobody", headers={"X-Hadoop-Delegation-Token": token})
    kms.proven("renew-by-owner", "PUT", f"/kms/v1/?op=RENEWDELEGATIONTOKEN&token={token}")
    kms.proven("renew", "PUT", f"/kms/v1/?op=RENEWDELEGATIONTOKEN&token={token}", user="bob")
    kms.call("renew-anonymous", "PUT", f"/kms/v1/?op=RENEWDELEGATIONTOKEN&token={token}", user=None)
    kms.call("cancel-anonymous", "PUT", f"/kms/v1/?op=CANCELDELEGATIONTOKEN&token={token}", user=None)
    kms.call("use-after", "GET", _LIST, user=None, headers={"X-Hadoop-Delegation-Token": token})


def impersonation(kms: KerberosWire) -> None:
    kms.proven("allowed", "GET", f"{_LIST}?doAs=bob")
    kms.proven("not-listed", "GET", f"{_LIST}?doAs=stranger")
    kms.proven("not-listed-options", "OPTIONS", f"{_LIST}?doAs=stranger")
    kms.proven("no-entry", "GET", f"{_LIST}?doAs=bob", user="writer")
    kms.proven("full-name", "GET", f"{_LIST}?doAs=bob/localhost")
    kms.proven("token", "GET", "/kms/v1/?op=GETDELEGATIONTOKEN&doAs=stranger")


def status_pages(kms: KerberosWire) -> None:
    """What lies beside the API asks for a proof too."""
    for step, target in (("jmx", "/kms/jmx"), ("conf", "/kms/conf"), ("stacks", "/kms/stacks")):
        answer = kms.call(step, "GET", target, user=None, record=False)
        kms.note(step, {"status": str(answer.status)})
