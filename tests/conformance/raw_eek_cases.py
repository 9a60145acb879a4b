"""Raw HTTP: EDEKs made, opened and re-encrypted, and everything that can be wrong about them."""

from __future__ import annotations

import base64
from typing import Any

from wire import Wire

# Reference vectors made by Hadoop's own classes: KEK, IV, EDEK.
_KEK = base64.b64encode(bytes(range(16))).decode()
_NEXT_KEK = base64.b64encode(bytes(range(0xF0, 0x100))).decode()
_IV = base64.b64encode(bytes.fromhex("ffeeddccbbaa99887766554433221100")).decode()
_EDEK = base64.b64encode(bytes.fromhex("2010d301afbd43b58f10737ce4e93b39")).decode()


def _body(name: str | None, iv: object = _IV, material: object = _EDEK) -> dict[str, object]:
    return {"name": name, "iv": iv, "material": material}


def _entry(version: object, iv: object = _IV, material: object = _EDEK, inner: object = "EEK") -> dict[str, Any]:
    return {
        "versionName": version,
        "iv": iv,
        "encryptedKeyVersion": {"name": None, "versionName": inner, "material": material},
    }


def generate(kms: Wire) -> None:
    kms.create("eek-generate", length=256)
    kms.call("one", "GET", "key/eek-generate/_eek?eek_op=generate")
    kms.call("three", "GET", "key/eek-generate/_eek?num_keys=3&eek_op=generate")
    kms.call("none", "GET", "key/eek-generate/_eek?eek_op=generate&num_keys=0")
    kms.call("negative", "GET", "key/eek-generate/_eek?eek_op=generate&num_keys=-1")
    kms.call("plus-sign", "GET", "key/eek-generate/_eek?eek_op=generate&num_keys=%2B1")
    many = kms.call("500", "GET", "key/eek-generate/_eek?eek_op=generate&num_keys=500", record=False).json
    kms.note("500", {"count": str(len(many)), "different": str(len({entry["iv"] for entry in many}))})
    kms.call(
        "with-json-type", "GET", "key/eek-generate/_eek?eek_op=generate", headers={"Content-Type": "application/json"}
    )


def generate_refused(kms: Wire) -> None:
    kms.create("eek-refused")
    kms.call("absent-key", "GET", "key/absent/_eek?eek_op=generate&num_keys=1")
    kms.call("no-eek-op", "GET", "key/eek-refused/_eek?num_keys=1")
    kms.call("wrong-eek-op", "GET", "key/eek-refused/_eek?eek_op=decrypt")
    kms.call("eek-op-in-capitals", "GET", "key/eek-refused/_eek?eek_op=GENERATE")
    kms.call("num-keys-word", "GET", "key/eek-refused/_eek?eek_op=generate&num_keys=x")
    kms.call("num-keys-empty", "GET", "key/eek-refused/_eek?eek_op=generate&num_keys=")
    kms.call("num-keys-too-large-for-java", "GET", "key/eek-refused/_eek?eek_op=generate&num_keys=9999999999")


def vectors(kms: Wire) -> None:
    kms.create("eek-vectors", material=_KEK)
    kms.call("decrypt", "POST", "keyversion/eek-vectors%400/_eek?eek_op=decrypt", _body("eek-vectors"), exact=True)
    kms.call(
        "same-version", "POST", "keyversion/eek-vectors%400/_eek?eek_op=reencrypt", _body("eek-vectors"), exact=True
    )
    kms.call("roll", "POST", "key/eek-vectors", {"material": _NEXT_KEK}, exact=True)
    kms.call("reencrypt", "POST", "keyversion/eek-vectors%400/_eek?eek_op=reencrypt", _body("eek-vectors"), exact=True)
    batch = [_entry("eek-vectors@0"), _entry("eek-vectors@1")]
    kms.call("batch", "POST", "key/eek-vectors/_reencryptbatch", batch, exact=True)
    kms.call("empty-batch", "POST", "key/eek-vectors/_reencryptbatch", [])


def base64_spellings(kms: Wire) -> None:
    kms.create("eek-base64", material=_KEK)
    path = "keyversion/eek-base64%400/_eek?eek_op=decrypt"
    iv, edek = base64.b64decode(_IV), base64.b64decode(_EDEK)
    url_safe, bare = base64.urlsafe_b64encode(iv).decode(), _IV.rstrip("=")
    kms.call("url-safe", "POST", path, _body("eek-base64", url_safe), exact=True)
    kms.call("unpadded", "POST", path, _body("eek-base64", bare), exact=True)
    kms.call("longer", "POST", path, _body("eek-base64", _IV, base64.b64encode(edek * 3).decode()), exact=True)
    kms.call("empty-edek", "POST", path, _body("eek-base64", _IV, ""), exact=True)
    kms.call("line-break", "POST", path, _body("eek-base64", _IV, _EDEK[:8] + "\r\n" + _EDEK[8:]), exact=True)
    kms.call("outside-the-alphabet", "POST", path, _body("eek-base64", _IV, "***" + _EDEK), exact=True)
    kms.call("one-character", "POST", path, _body("eek-base64", _IV, "A"), exact=True)


def decrypt_refused(kms: Wire) -> None:
    kms.create("eek-k1")
    kms.create("eek-k2")
    path = "keyversion/eek-k1%400/_eek"
    kms.call("no-eek-op", "POST", path, _body("eek-k1"))
    kms.call("wrong-eek-op", "POST", f"{path}?eek_op=generate", _body("eek-k1"))
    for operation in ("decrypt", "reencrypt"):
        query = f"?eek_op={operation}"
        kms.call(f"{operation}-other-key", "POST", path + query, _body("eek-k2"))
        kms.call(f"{operation}-no-key", "POST", path + query, {"iv": _IV, "material": _EDEK})
        kms.call(f"{operation}-no-iv", "POST", path + query, {"name": "eek-k1", "material": _EDEK})
        kms.call(f"{operation}-no-material", "POST", path + query, {"name": "eek-k1", "iv": _IV})
        kms.call(f"{operation}-short-iv", "POST", path + query, _body("eek-k1", "AAAA"))
        kms.call(f"{operation}-unknown-version", "POST", f"keyversion/eek-k1%407/_eek{query}", _body("eek-k1"))
        kms.call(f"{operation}-absent-key", "POST", f"keyversion/absent%400/_eek{query}", _body("absent"))
        kms.call(f"{operation}-not-a-version", "POST", f"keyversion/eek-k1/_eek{query}", _body("eek-k1"))
        kms.call(f"{operation}-number-as-iv", "POST", path + query, _body("eek-k1", 5))
        kms.call(f"{operation}-broken-json", "POST", path + query, b"{")
        kms.call(f"{operation}-empty-body", "POST", path + query, b"")


def batch_refused(kms: Wire) -> None:
    kms.create("eek-batch")
    kms.create("eek-other")
    path = "key/eek-batch/_reencryptbatch"
    kms.call("absent-key", "POST", "key/absent/_reencryptbatch", [_entry("absent@0")])
    kms.call("absent-key-empty", "POST", "key/absent/_reencryptbatch", [])
    kms.call("unknown-version", "POST", path, [_entry("eek-batch@9")])
    kms.call("other-key", "POST", path, [_entry("eek-other@0")])
    kms.call("no-version", "POST", path, [_entry(None)])
    kms.call("no-iv", "POST", path, [_entry("eek-batch@0", None)])
    kms.call("short-iv", "POST", path, [_entry("eek-batch@0", "AAAA")])
    kms.call("no-material", "POST", path, [_entry("eek-batch@0", _IV, None)])
    kms.call("wrong-inner-version", "POST", path, [_entry("eek-batch@0", inner="EK")])
    kms.call("no-inner", "POST", path, [{"versionName": "eek-batch@0", "iv": _IV}])
    kms.call("object", "POST", path, {})
    kms.call("list-of-texts", "POST", path, ["text"])
    kms.call("empty-body", "POST", path, b"")
    kms.call("broken-json", "POST", path, b"[{")
