"""Raw HTTP: operation ACLs, blacklists, key ACLs, the default and the whitelist (`servers.ACLS`)."""

from __future__ import annotations

import base64

from wire import Wire

_IV = base64.b64encode(bytes(16)).decode()
_OPEN = {"iv": _IV, "material": _IV}
_OPERATIONS = {
    "create": ("POST", "keys", {"name": "by-{user}"}),
    "create-material": ("POST", "keys", {"name": "given-by-{user}", "length": 128, "material": _IV}),
    "names": ("GET", "keys/names", None),
    "metadata": ("GET", "key/{key}/_metadata", None),
    "metadata-of-many": ("GET", "keys/metadata?key={key}", None),
    "current": ("GET", "key/{key}/_currentversion", None),
    "version": ("GET", "keyversion/{key}%400", None),
    "versions": ("GET", "key/{key}/_versions", None),
    "generate": ("GET", "key/{key}/_eek?eek_op=generate&num_keys=1", None),
    "decrypt": ("POST", "keyversion/{key}%400/_eek?eek_op=decrypt", {"name": "{key}", **_OPEN}),
    "reencrypt": ("POST", "keyversion/{key}%400/_eek?eek_op=reencrypt", {"name": "{key}", **_OPEN}),
    "batch": ("POST", "key/{key}/_reencryptbatch", []),
    "roll": ("POST", "key/{key}", {}),
    "roll-material": ("POST", "key/{key}", {"material": _IV}),
    "invalidate": ("POST", "key/{key}/_invalidatecache", None),
    "delete": ("DELETE", "key/{key}", None),
}


def _everything(kms: Wire, user: str, key: str, *, without: tuple[str, ...] = ()) -> None:
    for step, (method, target, body) in _OPERATIONS.items():
        if step in without:
            continue
        filled = body
        if isinstance(body, dict):
            filled = {k: v.format(user=user.lower(), key=key) if isinstance(v, str) else v for k, v in body.items()}
        shown = kms.call(step, method, target.format(key=key), filled, user=user, record=step != "names")
        if step == "names" and shown.status != 200:
            kms.note(step, {"status": str(shown.status)})


def nobody(kms: Wire) -> None:
    kms.create("acl-nobody")
    _everything(kms, "nobody", "acl-nobody")


def nobody_on_an_absent_key(kms: Wire) -> None:
    _everything(kms, "nobody", "absent")


def one_operation_each(kms: Wire) -> None:
    """Users named like operations may do just that."""
    kms.create("acl-each")
    for user in ("CREATE", "GET", "GET_METADATA", "GET_KEYS", "GENERATE_EEK", "DECRYPT_EEK", "ROLLOVER", "DELETE"):
        wire = Wire(kms.server, kms.tls)
        _everything(wire, user, "acl-each", without=("delete",) if user == "DELETE" else ())
        kms.steps.update({f"{user}-{step}": record for step, record in wire.steps.items()})
    kms.call("DELETE-delete", "DELETE", "key/acl-each", user="DELETE")


def by_group(kms: Wire) -> None:
    kms.create("acl-group")
    _everything(kms, "gina", "acl-group")


def blacklisted(kms: Wire) -> None:
    kms.create("acl-black")
    _everything(kms, "boss", "acl-black")


def blacklisted_by_group(kms: Wire) -> None:
    kms.create("acl-black-group")
    _everything(kms, "greta", "acl-black-group")


def key_acl(kms: Wire) -> None:
    """`key.acl.guarded.*` lets each of three users do one thing, and alice nothing."""
    kms.call("create-by-alice", "POST", "keys", {"name": "guarded"})
    kms.call("create-by-maker", "POST", "keys", {"name": "guarded"}, user="maker")
    for user in ("alice", "reader", "writer", "wanda", "maker"):
        wire = Wire(kms.server, kms.tls)
        _everything(wire, user, "guarded", without=("create", "create-material", "names", "roll-material"))
        kms.steps.update({f"{user}-{step}": record for step, record in wire.steps.items()})


def key_acl_by_name_attribute(kms: Wire) -> None:
    """`key.acl.name` puts a key under another name's entries."""
    body = {"name": "under-guarded", "attributes": {"key.acl.name": "guarded"}}
    kms.call("create-by-alice", "POST", "keys", body)
    kms.call("create-by-maker", "POST", "keys", body, user="maker")
    kms.call("metadata-by-reader", "GET", "key/under-guarded/_metadata", user="reader")
    kms.call("metadata-by-alice", "GET", "key/under-guarded/_metadata")
    kms.call("generate-by-writer", "GET", "key/under-guarded/_eek?eek_op=generate", user="writer")
    kms.call("generate-by-alice", "GET", "key/under-guarded/_eek?eek_op=generate")
    kms.call("current-by-alice", "GET", "key/under-guarded/_currentversion")


def key_acl_partial(kms: Wire) -> None:
    """A key with an entry for READ alone: the other operations have no default left."""
    kms.call("create", "POST", "keys", {"name": "partial.one"})
    kms.call("create-by-maker", "POST", "keys", {"name": "partial.one"}, user="maker")
    _everything(kms, "maker", "partial.one", without=("create", "create-material", "names", "roll-material"))


def many_with_one_denied(kms: Wire) -> None:
    kms.create("acl-open")
    kms.call("create", "POST", "keys", {"name": "guarded.two"}, user="maker", record=False)
    kms.call("both", "GET", "keys/metadata?key=acl-open&key=guarded.two", user="alice")
    kms.call("alone", "GET", "keys/metadata?key=acl-open", user="alice")


def impersonation(kms: Wire) -> None:
    """Of users who have no entry at all."""
    kms.call("refused", "GET", "key/absent?doAs=bob", user="writer")
    kms.call("refused-options", "OPTIONS", "key/absent?doAs=bob", user="writer")
    kms.call("self", "GET", "key/absent?doAs=writer", user="writer")
    kms.call("empty", "GET", "key/absent?doAs=", user="writer")
    kms.call("lower-case", "GET", "key/absent?doas=bob", user="writer")
    kms.call("anonymous", "GET", "key/absent?doAs=bob", user=None)
