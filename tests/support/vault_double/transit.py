"""The Transit engine's paths."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Any

from vault_double import transit_crypt, transit_lifecycle
from vault_double.backend import NAME, Backend, Call, decode_base64, encode_base64, route
from vault_double.wire import RefusedError

_ITEM_FIELDS = "name plaintext ciphertext context associated_data batch_input"
_KEY_FIELDS = (
    "name type derived convergent_encryption exportable allow_plaintext_backup context auto_rotate_period key_size"
)
_MAX_RANDOM_BYTES = 128 << 10


def random_bytes(call: Call) -> dict[str, Any]:
    count = int(call.names.get("bytes") or call.number("bytes", 32))
    if count < 1:
        raise RefusedError(400, "'bytes' cannot be less than 1")
    if count > _MAX_RANDOM_BYTES:
        raise RefusedError(400, f'"bytes" should be less than {_MAX_RANDOM_BYTES}')
    data, form = secrets.token_bytes(count), call.text("format", "base64")
    if form not in ("hex", "base64"):
        raise RefusedError(400, f'unsupported encoding format "{form}"; must be "hex" or "base64"')
    return {"random_bytes": data.hex() if form == "hex" else encode_base64(data)}


def hmac_data(call: Call) -> dict[str, Any]:
    key = transit_crypt.get_key(call, "encryption key not found")
    tag = _hmac(key.versions[key.latest].hmac_key, call)
    return {"hmac": f"vault:v{key.latest}:{encode_base64(tag)}"}


def verify_hmac(call: Call) -> dict[str, Any]:
    key = transit_crypt.get_key(call, "encryption key not found")
    number, _, tag = call.text("hmac").removeprefix("vault:v").partition(":")
    version = key.visible_versions().get(int(number) if number.isdigit() else 0)
    if version is None:
        raise RefusedError(400, "invalid HMAC to verify: version is too new")
    return {"valid": hmac.compare_digest(_hmac(version.hmac_key, call), decode_base64(tag))}


def _hmac(key: bytes, call: Call) -> bytes:
    algorithm = (call.names.get("algorithm") or call.text("algorithm", "sha2-256")).replace("sha2-", "sha")
    try:
        return hmac.new(key, decode_base64(call.text("input")), getattr(hashlib, algorithm)).digest()
    except (AttributeError, ValueError) as error:
        raise RefusedError(400, f"unable to compute HMAC: {error}") from None


def hash_data(call: Call) -> dict[str, Any]:
    algorithm = (call.names.get("algorithm") or call.text("algorithm", "sha2-256")).replace("sha2-", "sha")
    try:
        digest = getattr(hashlib, algorithm)(decode_base64(call.text("input"))).digest()
    except (AttributeError, ValueError) as error:
        raise RefusedError(400, f"unable to decode input: {error}") from None
    return {"sum": digest.hex() if call.text("format", "hex") == "hex" else encode_base64(digest)}


def read_keys_config(call: Call) -> dict[str, Any]:
    return {"disable_upsert": bool((call.store.get("config/keys") or {}).get("disable_upsert"))}


def write_keys_config(call: Call) -> dict[str, Any]:
    config = {"disable_upsert": call.flag("disable_upsert", default=read_keys_config(call)["disable_upsert"])}
    call.store.put("config/keys", config)
    return config


def read_cache_config(call: Call) -> dict[str, Any]:
    return {"size": call.store.get("config/cache") or 0}


def write_cache_config(call: Call) -> dict[str, Any]:
    size = call.number("size")
    if size < 0 or 0 < size < 10:
        raise RefusedError(400, "size must be 0 or a value greater or equal to 10")
    call.store.put("config/cache", size)
    return {"size": size}


_LIFE = transit_lifecycle
TRANSIT = Backend(
    (
        route(
            f"encrypt/{NAME}",
            f"{_ITEM_FIELDS} type convergent_encryption key_version partial_failure_response_code",
            exists=transit_crypt.key_exists,
            update=transit_crypt.encrypt,
        ),
        route(f"decrypt/{NAME}", f"{_ITEM_FIELDS} partial_failure_response_code", update=transit_crypt.decrypt),
        route(f"rewrap/{NAME}", "name ciphertext context key_version batch_input", update=transit_crypt.rewrap),
        route(
            f"datakey/(?P<kind>[^/]+)/{NAME}",
            "name context bits nonce associated_data plaintext",
            update=transit_crypt.make_data_key,
        ),
        route("keys/?", list=_LIFE.list_keys),
        route(f"keys/{NAME}", _KEY_FIELDS, update=_LIFE.create_key, read=_LIFE.read_key, delete=_LIFE.delete_key),
        route(f"keys/{NAME}/rotate", "name", update=_LIFE.rotate_key),
        route(
            f"keys/{NAME}/config",
            "name min_decryption_version min_encryption_version deletion_allowed exportable allow_plaintext_backup "
            "auto_rotate_period",
            update=_LIFE.configure_key,
        ),
        route(f"keys/{NAME}/trim", "name min_available_version", update=_LIFE.trim_key),
        route(f"keys/{NAME}/soft-delete", "name", delete=_LIFE.soft_delete_key),
        route(f"keys/{NAME}/soft-delete-restore", "name", update=_LIFE.restore_soft_deleted),
        route(f"keys/{NAME}/import", None, update=_LIFE.import_key),
        route(f"keys/{NAME}/import_version", None, update=_LIFE.import_version),
        route("wrapping_key", read=_LIFE.read_wrapping_key),
        route(f"export/(?P<kind>[^/]+)/{NAME}(?:/(?P<version>[^/]+))?", read=_LIFE.export_key),
        route(f"backup/{NAME}", read=_LIFE.back_up_key),
        route(f"restore(?:/{NAME})?", "name backup force", update=_LIFE.restore_key),
        route("random(?:/(?P<bytes>[0-9]+))?", "bytes format source", update=random_bytes),
        route("hash(?:/(?P<algorithm>[^/]+))?", None, update=hash_data),
        route(f"hmac/{NAME}(?:/(?P<algorithm>[^/]+))?", None, update=hmac_data),
        route(f"verify/{NAME}(?:/(?P<algorithm>[^/]+))?", None, update=verify_hmac),
        route("config/keys", "disable_upsert", read=read_keys_config, update=write_keys_config),
        route("cache-config", "size", read=read_cache_config, update=write_cache_config),
    )
)
