"""Raw HTTP: creating, reading, rolling and deleting keys; the names a key may have."""

from __future__ import annotations

import base64
from urllib.parse import quote

import normal_form
from wire import Wire

# TestKMS.testSpecialKeyNames
SPECIAL_NAME = 'key %^[\n{]}|"<>\\'
_MATERIAL = base64.b64encode(bytes(range(16))).decode()


def create_with_defaults(kms: Wire) -> None:
    kms.call("create", "POST", "keys", {"name": "defaults"})
    kms.call("metadata", "GET", "key/defaults/_metadata")
    kms.call("again", "POST", "keys", {"name": "defaults"})


def create_with_everything(kms: Wire) -> None:
    body = {
        "name": "everything",
        "cipher": "AES/CTR/NoPadding",
        "length": 256,
        "description": "größe & <co>",
        "attributes": {"b": "2", "a": "1"},
    }
    kms.call("create", "POST", "keys", body)
    kms.call("metadata", "GET", "key/everything/_metadata")
    kms.call("key", "GET", "key/everything")


def create_with_material(kms: Wire) -> None:
    kms.call("create", "POST", "keys", {"name": "given", "length": 128, "material": _MATERIAL}, exact=True)
    kms.call("current", "GET", "key/given/_currentversion", exact=True)
    kms.call("version", "GET", "keyversion/given%400", exact=True)
    kms.call("versions", "GET", "key/given/_versions", exact=True)
    url_safe = base64.urlsafe_b64encode(b"\xff\xfe" * 8).rstrip(b"=").decode()
    kms.call("roll", "POST", "key/given", {"material": url_safe}, exact=True)


def create_refused(kms: Wire) -> None:
    kms.call("no-name", "POST", "keys", {"length": 128})
    kms.call("null-name", "POST", "keys", {"name": None})
    kms.call("empty-name", "POST", "keys", {"name": ""})
    kms.call("length-100", "POST", "keys", {"name": "bad-length", "length": 100})
    kms.call("length-192", "POST", "keys", {"name": "length-192", "length": 192})
    kms.call("length-0", "POST", "keys", {"name": "length-zero", "length": 0})
    kms.call("material-of-other-length", "POST", "keys", {"name": "bad-material", "length": 256, "material": _MATERIAL})
    kms.call("unknown-cipher", "POST", "keys", {"name": "bad-cipher", "cipher": "ROT13"})
    kms.call("upper-case", "POST", "keys", {"name": "UPPER"})


def create_from_odd_json(kms: Wire) -> None:
    kms.call("broken", "POST", "keys", b"{nonsense")
    kms.call("empty", "POST", "keys", b"")
    kms.call("list", "POST", "keys", b"[]")
    kms.call("text", "POST", "keys", b'"text"')
    kms.call("null", "POST", "keys", b"null")
    kms.call("number-as-name", "POST", "keys", {"name": 7})
    kms.call("text-as-length", "POST", "keys", {"name": "odd-json", "length": "128"})
    kms.call("unknown-member", "POST", "keys", {"name": "odd-json", "colour": "red"})
    kms.call("not-utf-8", "POST", "keys", b'{"name": "\xff"}')


def location(kms: Wire) -> None:
    """Where a create says the key is; no known client reads it."""
    for step, name in (("plain", "located"), ("blank", "lo cated"), ("others", "lo/c@t+e;d")):
        made = kms.call(step, "POST", "keys", {"name": name}, record=False)
        kms.note(step, {"location": normal_form.text(kms.server, made.headers.get("Location", "absent"))})


def metadata_of_absent_keys(kms: Wire) -> None:
    kms.call("key", "GET", "key/absent")
    kms.call("metadata", "GET", "key/absent/_metadata")
    kms.call("current", "GET", "key/absent/_currentversion")
    kms.call("versions", "GET", "key/absent/_versions")
    kms.call("version", "GET", "keyversion/absent%400")
    kms.call("version-without-at", "GET", "keyversion/absent")


def metadata_of_many(kms: Wire) -> None:
    kms.create("many-1", description="first")
    kms.create("many-2", length=256)
    kms.call("both", "GET", "keys/metadata?key=many-2&key=many-1")
    kms.call("with-an-absent-one", "GET", "keys/metadata?key=many-1&key=absent&key=many-2")
    kms.call("none", "GET", "keys/metadata")
    kms.call("twice", "GET", "keys/metadata?key=many-1&key=many-1")
    kms.call("blank-as-plus", "GET", "keys/metadata?key=many+1")


def names(kms: Wire) -> None:
    kms.create("listed")
    listed = kms.call("names", "GET", "keys/names", record=False).json
    kms.note("names", {"listed": str("listed" in listed), "texts": str(all(isinstance(name, str) for name in listed))})


def roll(kms: Wire) -> None:
    kms.create("rolled")
    kms.call("roll", "POST", "key/rolled", {})
    kms.call("current", "GET", "key/rolled/_currentversion")
    kms.call("versions", "GET", "key/rolled/_versions")
    kms.call("metadata", "GET", "key/rolled/_metadata")
    kms.call("old-version", "GET", "keyversion/rolled%400")
    kms.call("version-to-come", "GET", "keyversion/rolled%402")
    kms.call("material-of-other-length", "POST", "key/rolled", {"material": "AAAA"})
    kms.call("absent", "POST", "key/absent", {})
    kms.call("empty-body", "POST", "key/rolled", b"")
    kms.call("broken-body", "POST", "key/rolled", b"{")


def delete(kms: Wire) -> None:
    kms.create("deleted")
    kms.call("delete", "DELETE", "key/deleted")
    kms.call("metadata", "GET", "key/deleted/_metadata")
    kms.call("version", "GET", "keyversion/deleted%400")
    kms.call("invalidate", "POST", "key/deleted/_invalidatecache")
    kms.call("again", "DELETE", "key/deleted")
    kms.call("roll", "POST", "key/deleted", {})
    kms.call("generate", "GET", "key/deleted/_eek?eek_op=generate&num_keys=1")


def create_again_after_delete(kms: Wire) -> None:
    kms.create("phoenix")
    kms.call("delete", "DELETE", "key/phoenix")
    kms.call("create", "POST", "keys", {"name": "phoenix"})
    kms.call("metadata", "GET", "key/phoenix/_metadata")


def invalidate(kms: Wire) -> None:
    kms.create("invalidated")
    kms.call("post", "POST", "key/invalidated/_invalidatecache")
    kms.call("absent", "POST", "key/absent/_invalidatecache")
    kms.call("with-a-body", "POST", "key/invalidated/_invalidatecache", {})


def _name(kms: Wire, name: str, encoded: str | None = None) -> None:
    path = encoded or quote(name, safe="")
    kms.call("create", "POST", "keys", {"name": name})
    kms.call("metadata", "GET", f"key/{path}/_metadata")
    kms.call("key", "GET", f"key/{path}")
    kms.call("current", "GET", f"key/{path}/_currentversion")
    kms.call("version", "GET", f"keyversion/{path}%400")
    made = kms.call("generate", "GET", f"key/{path}/_eek?eek_op=generate&num_keys=1").json
    if isinstance(made, list):
        inner = made[0]["encryptedKeyVersion"]["material"]
        body = {"name": name, "iv": made[0]["iv"], "material": inner}
        kms.call("decrypt", "POST", f"keyversion/{path}%400/_eek?eek_op=decrypt", body)
    kms.call("roll", "POST", f"key/{path}", {})
    kms.call("metadata-of-list", "GET", f"keys/metadata?key={path}")
    kms.call("delete", "DELETE", f"key/{path}")


def name_special(kms: Wire) -> None:
    _name(kms, SPECIAL_NAME)


def name_with_percent(kms: Wire) -> None:
    _name(kms, "100%25")


def name_with_at(kms: Wire) -> None:
    _name(kms, "a@b")


def name_with_slash(kms: Wire) -> None:
    _name(kms, "dir/key")


def name_with_plain_slash(kms: Wire) -> None:
    _name(kms, "dir2/key", "dir2/key")


def name_with_blank(kms: Wire) -> None:
    _name(kms, "two words")


def name_with_plus(kms: Wire) -> None:
    _name(kms, "one+one")


def name_with_letters_beyond_ascii(kms: Wire) -> None:
    _name(kms, "größe-鍵-🔑")


def name_with_dots(kms: Wire) -> None:
    _name(kms, "a.b..c")


def name_with_semicolon(kms: Wire) -> None:
    _name(kms, "a;b=c")


def name_like_a_resource(kms: Wire) -> None:
    _name(kms, "_metadata")


def name_with_blank_is_not_plus(kms: Wire) -> None:
    kms.create("no plus")
    kms.call("plus", "GET", "key/no+plus/_metadata")
    kms.call("blank", "GET", "key/no%20plus/_metadata")


def name_long(kms: Wire) -> None:
    kms.call("create", "POST", "keys", {"name": "n" * 200})
    kms.call("metadata", "GET", f"key/{'n' * 200}/_metadata")


def name_of_nothing(kms: Wire) -> None:
    kms.call("key", "GET", "key/")
    kms.call("metadata", "GET", "key//_metadata")
    kms.call("version", "GET", "keyversion/")
    kms.call("delete", "DELETE", "key/")
    kms.call("roll", "POST", "key/", {})
