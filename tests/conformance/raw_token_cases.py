"""Raw HTTP: operations on delegation tokens, tokens in a header, `doAs`."""

from __future__ import annotations

from typing import Any

from wire import Wire


def _issue(kms: Wire, user: str = "alice", query: str = "&renewer=alice") -> str:
    reply = kms.call("", "GET", f"/kms/v1/?op=GETDELEGATIONTOKEN{query}", user=user, record=False)
    token: dict[str, Any] = reply.json["Token"]
    return str(token["urlString"])


def issue(kms: Wire) -> None:
    for step, query in (
        ("plain", "op=GETDELEGATIONTOKEN"),
        ("lower-case", "op=getdelegationtoken&renewer=yarn"),
        ("service", "op=GETDELEGATIONTOKEN&renewer=yarn&service=kms%3A%2F%2Fhttp%40localhost%3A9600%2Fkms"),
        ("empty-renewer", "op=GETDELEGATIONTOKEN&renewer="),
    ):
        reply = kms.call(step, "GET", f"/kms/v1/?{query}", record=False)
        body = reply.json
        kms.note(
            step,
            {
                "status": str(reply.status),
                "type": reply.headers.get("Content-Type", "absent"),
                "shape": f"{list(body)} {list(body.get('Token', {}))}",
                "cookie": str(any(name.lower() == "set-cookie" for name in reply.headers)),
            },
        )


def operations_refused(kms: Wire) -> None:
    token = _issue(kms)
    for operation in ("GETDELEGATIONTOKEN", "RENEWDELEGATIONTOKEN", "CANCELDELEGATIONTOKEN"):
        for method in ("GET", "PUT", "POST", "OPTIONS"):
            if (operation, method) == ("GETDELEGATIONTOKEN", "GET"):
                continue
            kms.call(f"{operation}-{method}", method, f"/kms/v1/?op={operation}")
    kms.call("unknown-operation", "GET", "/kms/v1/?op=NOTHING")
    kms.call("renew-empty", "PUT", "/kms/v1/?op=RENEWDELEGATIONTOKEN&token=")
    kms.call("cancel-empty", "PUT", "/kms/v1/?op=CANCELDELEGATIONTOKEN&token=")
    kms.call("cancel-junk", "PUT", "/kms/v1/?op=CANCELDELEGATIONTOKEN&token=junk")
    kms.call("renew-cut", "PUT", f"/kms/v1/?op=RENEWDELEGATIONTOKEN&token={token[:20]}")
    kms.call("on-a-key's-path", "GET", "/kms/v1/keys/names?op=RENEWDELEGATIONTOKEN")


def anonymous(kms: Wire) -> None:
    token = _issue(kms)
    for method, target in (
        ("GET", "op=GETDELEGATIONTOKEN"),
        ("OPTIONS", "op=GETDELEGATIONTOKEN"),
        ("PUT", f"op=RENEWDELEGATIONTOKEN&token={token}"),
    ):
        kms.call(f"{method}-{target[3:8]}", method, f"/kms/v1/?{target}", user=None)
    kms.call("cancel", "PUT", f"/kms/v1/?op=CANCELDELEGATIONTOKEN&token={token}", user=None)
    kms.call("cancel-again", "PUT", f"/kms/v1/?op=CANCELDELEGATIONTOKEN&token={token}", user=None)


def renew(kms: Wire) -> None:
    token = _issue(kms)
    kms.call("by-renewer", "PUT", f"/kms/v1/?op=RENEWDELEGATIONTOKEN&token={token}")
    kms.call("by-another", "PUT", f"/kms/v1/?op=RENEWDELEGATIONTOKEN&token={token}", user="bob")
    kms.call("cancel-by-another", "PUT", f"/kms/v1/?op=CANCELDELEGATIONTOKEN&token={token}", user="bob")
    kms.call("cancel", "PUT", f"/kms/v1/?op=CANCELDELEGATIONTOKEN&token={token}")
    kms.call("renew-cancelled", "PUT", f"/kms/v1/?op=RENEWDELEGATIONTOKEN&token={token}")


def use(kms: Wire) -> None:
    token = _issue(kms)
    header = {"X-Hadoop-Delegation-Token": token}
    kms.call("header", "GET", "key/absent", user=None, headers=header)
    kms.call("header-lower-case", "GET", "key/absent", user=None, headers={"x-hadoop-delegation-token": token})
    kms.call("header-and-user", "GET", "keys/metadata", user="nobody", headers=header)
    kms.call("query", "GET", f"key/absent?delegation={token}", user=None)
    kms.call("options", "OPTIONS", "key/absent", user=None, headers=header)
    kms.call("fetch-another", "GET", "/kms/v1/?op=GETDELEGATIONTOKEN", user=None, headers=header)
    kms.call("junk", "GET", "key/absent", user=None, headers={"X-Hadoop-Delegation-Token": "junk"})
    kms.call("junk-and-user", "GET", "key/absent", headers={"X-Hadoop-Delegation-Token": "junk"})
    kms.call("cut", "GET", "key/absent", user=None, headers={"X-Hadoop-Delegation-Token": token[:20]})
    kms.call("do-as-is-ignored", "GET", "key/absent?doAs=stranger", user=None, headers=header)


def proxy_users(kms: Wire) -> None:
    kms.create("proxied")
    for step, target in (
        ("by-user", "key/proxied?doAs=bob"),
        ("options", "key/proxied?doAs=bob"),
        ("lower-case", "key/proxied?doas=bob"),
        ("not-listed", "key/proxied?doAs=stranger"),
        ("oneself", "key/proxied?doAs=alice"),
        ("without-rights", "key/proxied?doAs=carol"),
        ("twice", "key/proxied?doAs=bob&doAs=stranger"),
        ("token", "?op=GETDELEGATIONTOKEN&doAs=stranger"),
    ):
        kms.call(step, "OPTIONS" if step == "options" else "GET", target)
    kms.call("by-group", "GET", "key/proxied?doAs=gina", user="maker")
    kms.call("not-in-the-group", "GET", "key/proxied?doAs=bob", user="maker")
    kms.call("from-a-wrong-host", "GET", "key/proxied?doAs=bob", user="reader")
    session = kms.call("session", "GET", "key/proxied?doAs=bob").session
    kms.call("session-is-the-callers", "GET", "key/proxied?doAs=carol", user=None, headers=session)
