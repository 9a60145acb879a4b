"""Transit's data path: encrypt, decrypt and rewrap, one item or a batch.

A batch with a bad item answers 400 with results (encrypt, decrypt), 200 (rewrap), or the caller's own
`partial_failure_response_code`; an item that is no object, or lacks its main field, fails the batch with 500.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vault_double.backend import Call, decode_base64, encode_base64
from vault_double.transit_keys import (
    KEY_BYTES,
    TransitError,
    TransitInternalError,
    TransitKey,
    new_version,
)
from vault_double.wire import RefusedError, Reply, in_multierror

_MIXED = "context should be set either in all the request blocks or in none"


@dataclass(slots=True)
class Item:
    """One item of a batch; `error` once it failed."""

    main: str
    context: str = ""
    key_version: int = 0
    associated_data: str = ""
    reference: str = ""
    decoded_context: bytes = b""
    error: str = ""
    is_internal: bool = False
    result: dict[str, Any] | None = None


def encrypt(call: Call) -> Reply:
    items = _items(call, "plaintext", "missing plaintext to encrypt", empty_is_bad=False)
    for item in items:
        _attempt(item, lambda item: decode_base64(item.main))
    _decode_contexts(items)
    key = _key_for_encrypt(call, has_context=bool(items[0].context))

    def seal(item: Item) -> dict[str, Any]:
        text = key.encrypt(decode_base64(item.main), item.decoded_context, item.key_version, _aad(item))
        return {"ciphertext": text, "key_version": item.key_version or key.latest}

    for item in items:
        _attempt(item, seal)
    return _answer(call, items, failed={})


def decrypt(call: Call) -> Reply:
    items = _items(call, "ciphertext", "missing ciphertext to decrypt", empty_is_bad=True)
    _decode_contexts(items)
    key = get_key(call, "encryption key not found")
    for item in items:
        _attempt(
            item, lambda item: {"plaintext": encode_base64(key.decrypt(item.main, item.decoded_context, _aad(item)))}
        )
    return _answer(call, items, failed={"plaintext": ""})


def rewrap(call: Call) -> Reply:
    items = _items(call, "ciphertext", "missing ciphertext to decrypt", empty_is_bad=True, is_rewrap=True)
    _decode_contexts(items)
    key = get_key(call, "encryption key not found")

    def again(item: Item) -> dict[str, Any]:
        plaintext = key.decrypt(item.main, item.decoded_context)
        text = key.encrypt(plaintext, item.decoded_context, item.key_version)
        return {"ciphertext": text, "key_version": item.key_version or key.latest}

    for item in items:
        _attempt(item, again)
    return _answer(call, items, failed={}, always_200=True)


def make_data_key(call: Call) -> dict[str, Any]:
    kind = call.names["kind"]
    if kind not in ("plaintext", "wrapped"):
        raise RefusedError(400, "Invalid path, must be 'plaintext' or 'wrapped'")
    bits = call.number("bits", 256)
    if bits not in (128, 256, 512):
        raise RefusedError(400, "invalid bit length")
    key, plaintext = get_key(call, "encryption key not found"), secrets.token_bytes(bits // 8)
    item = Item("", call.text("context"), 0, call.text("associated_data"))
    _decode_contexts([item])
    _attempt(item, lambda item: {"ciphertext": key.encrypt(plaintext, item.decoded_context, 0, _aad(item))})
    data = _single(item) | {"key_version": key.latest}
    return data | ({"plaintext": encode_base64(plaintext)} if kind == "plaintext" else {})


def find_key(call: Call) -> TransitKey | None:
    key: TransitKey | None = call.store.get(f"keys/{call.name}")
    return key


def get_key(call: Call, missing: str) -> TransitKey:
    key = find_key(call)
    if key is None:
        raise RefusedError(400, missing)
    return key


def key_exists(call: Call) -> bool:
    """Tells an encrypt that would create the key from one that would not."""
    return find_key(call) is not None


def _key_for_encrypt(call: Call, *, has_context: bool) -> TransitKey:
    key = find_key(call)
    if key is not None:
        return key
    kind = call.text("type", "aes256-gcm96")
    if call.operation != "create" or (call.store.get("config/keys") or {}).get("disable_upsert"):
        raise RefusedError(400, "encryption key not found")
    if kind not in KEY_BYTES:
        raise RefusedError(400, f"unknown key type {kind}")
    version = new_version(kind, call.core.clock.now())
    key = TransitKey(call.name, kind, {1: version}, derived=has_context)
    call.store.put(f"keys/{call.name}", key)
    return key


def _items(call: Call, main: str, missing: str, *, empty_is_bad: bool, is_rewrap: bool = False) -> list[Item]:
    batch = call.data.get("batch_input")
    call.number("partial_failure_response_code")
    if batch is None:
        if main not in call.data or (empty_is_bad and not call.text(main)):
            raise RefusedError(400, missing)
        return [Item(call.text(main), call.text("context"), call.number("key_version"), call.text("associated_data"))]
    if not isinstance(batch, list):
        raise _unreadable(f"source data must be an array or slice, got {_go_type(batch)}")
    if not batch:
        raise RefusedError(400, "missing batch input to process")
    read = _read_rewrap_item if is_rewrap else _read_item
    items = [read(index, item, main) for index, item in enumerate(batch)]
    for item in items:
        if bool(item.context) != bool(items[0].context):
            raise RefusedError(400, _MIXED)
        if empty_is_bad and not item.main:
            item.error = missing
    return items


def _read_item(index: int, item: Any, main: str) -> Item:
    if not isinstance(item, dict):
        raise _unreadable(f"[{index}] expected a map, got '{_go_type(item)}'")
    # A null ciphertext passes for an empty one; a null plaintext does not.
    value = "" if main == "ciphertext" and main in item and item[main] is None else item.get(main)
    if not isinstance(value, str):
        raise _unconvertible(index, main, value)
    read = Item(value)
    for name in ("context", "associated_data", "reference"):
        value = item.get(name)
        if value is not None and not isinstance(value, str):
            raise _unconvertible(index, name, value)
        setattr(read, name, value or "")
    version = item.get("key_version")
    if version is not None and (isinstance(version, bool) or not isinstance(version, int)):
        raise _unconvertible(index, "key_version", version)
    read.key_version = version or 0
    return read


def _read_rewrap_item(index: int, item: Any, main: str) -> Item:
    # A laxer reader than the other two's: a number passes for a string, null and nothing for an empty one.
    item = {} if item is None else item
    if not isinstance(item, dict):
        raise _unreadable(f"[{index}] expected a map, got '{_go_type(item)}'")
    read = Item("")
    for name, slot in ((main, "main"), ("context", "context"), ("reference", "reference")):
        value = item.get(name)
        if isinstance(value, bool | list | dict):
            raise _unconvertible(index, name, value)
        setattr(read, slot, "" if value is None else str(value))
    version = item.get("key_version")
    if version is not None and (isinstance(version, bool) or not isinstance(version, int)):
        raise _unconvertible(index, "key_version", version)
    read.key_version = version or 0
    return read


def _decode_contexts(items: list[Item]) -> None:
    def decode(item: Item) -> None:
        item.decoded_context = decode_base64(item.context)

    for item in items:
        _attempt(item, decode)


def _attempt(item: Item, step: Callable[[Item], Any]) -> None:
    if item.error:
        return
    try:
        result = step(item)
    except TransitInternalError as error:
        item.error, item.is_internal = str(error), True
    except (TransitError, ValueError) as error:
        item.error = str(error)
    else:
        item.result = result if isinstance(result, dict) else None


def _aad(item: Item) -> bytes | None:
    if not item.associated_data:
        return None
    try:
        return decode_base64(item.associated_data)
    except ValueError as error:
        raise TransitInternalError(f"unable to get associated_data's associated_data: {error}") from None


def _single(item: Item) -> dict[str, Any]:
    if item.error:
        raise RefusedError(500 if item.is_internal else 400, item.error)
    return item.result or {}


def _answer(call: Call, items: list[Item], failed: dict[str, Any], *, always_200: bool = False) -> Reply:
    if call.data.get("batch_input") is None:
        return Reply(_single(items[0]))
    results = [
        (failed | {"error": item.error} if item.error else item.result or {}) | {"reference": item.reference}
        for item in items
    ]
    reply = Reply({"batch_results": results})
    if always_200 and any(item.is_internal for item in items):
        raise RefusedError(500, next(item.error for item in items if item.is_internal))
    if not always_200 and any(item.error for item in items):
        reply.status = 400 if any(item.error and not item.is_internal for item in items) else 500
        if call.has("partial_failure_response_code") and not all(item.error for item in items):
            wished = call.number("partial_failure_response_code")
            if 1 <= wished <= 599:
                reply.status = wished
            else:
                reply.warnings.append(
                    "invalid HTTP response code override from partial_failure_response_code, "
                    f"reverting to {reply.status}"
                )
    return reply


def _unreadable(detail: str) -> RefusedError:
    return RefusedError(500, in_multierror(f"failed to parse batch input: {detail}"))


def _unconvertible(index: int, name: str, value: Any) -> RefusedError:
    wanted = "int" if name == "key_version" else "string"
    return _unreadable(f"'[{index}].{name}' expected type '{wanted}', got unconvertible type '{_go_type(value)}'")


def _go_type(value: Any) -> str:
    names = {str: "string", bool: "bool", int: "json.Number", float: "json.Number", list: "[]interface {}"}
    return "<nil>" if value is None else names.get(type(value), "map[string]interface {}")
