"""`key/NAME/_eek`, `keyversion/NAME@N/_eek` and `key/NAME/_reencryptbatch`: EDEKs made, opened and re-encrypted.

Source: `KMS.generateEncryptedKeys`, `handleEncryptedKeyOp` and `reencryptEncryptedKeys`. These are the hot
endpoints: with the key in memory they answer without leaving the event loop. What a key that Vault holds is needed for
waits for Vault, after every check, and for as long as the client does. Order of checks as in Hadoop: operation ACL,
then existence and belonging, then key ACL.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Sequence

from ringfence_agent.http.response import Response
from ringfence_agent.kms import eek
from ringfence_agent.kms.answers import json_ok
from ringfence_agent.kms.authorization.acls import KeyOperation, Operation
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.custody.envelope import EnvelopeKey
from ringfence_agent.kms.custody.held import TransitHeldKey
from ringfence_agent.kms.custody.transit import HeldEek, TransitCustody, in_slices
from ringfence_agent.kms.eek import MAX_GENERATE, EekCipher
from ringfence_agent.kms.flow_control import FlowControl
from ringfence_agent.kms.key_cache import CachedKey
from ringfence_agent.kms.kms import Kms
from ringfence_agent.kms.parameters import check_name, find_version, json_body, require, require_text
from ringfence_agent.kms.while_wanted import give_up_when_gone, while_wanted
from ringfence_agent.promise import Promise
from ringfence_zones import kms_wire
from ringfence_zones.errors import InputError, KeyMismatchError, KeyNotFoundError, KeyVersionNotFoundError
from ringfence_zones.keys import IV_BYTES, split_version_name
from ringfence_zones.kms_wire import EEK, EncryptedKeyVersionBody

_WRONG_EEK_OP = "IllegalArgumentException Wrong eek_op value, it must be generate or decrypt"
# A batch of the NameNode's size (1000) is done in slices, so that other requests are answered in between.
_SLICE = 200
# What Java's Integer.parseInt takes, in ASCII; int() would take blanks and underscores too.
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,10}")


def generate(kms: Kms, call: Call) -> Response | Awaitable[Response]:
    """`GET key/NAME/_eek?eek_op=generate&num_keys=N`."""
    name = call.key = require_text(call.name, "name")
    call.op = "GENERATE_EEK"
    if require(call.query.eek_op, "eekOp") != "generate":
        raise InputError(_WRONG_EEK_OP)
    count = _count(call.query.num_keys)
    call.count = max(count, 0)
    key = _key_for(kms, call, name, Operation.GENERATE_EEK)
    if not isinstance(key, EnvelopeKey):
        return while_wanted(call.request, _generate_held(kms, kms.get_transit(), call, key))
    cipher = key.current
    call.version = cipher.number
    if kms.flows.is_tracking and call.count:
        return _generate_noted(kms.flows, key.metadata.name, cipher, call.count)
    return json_ok(cipher.generate_json(count, kms.flows.untracked_ivs(key.metadata.name, call.count)))


async def _generate_noted(flows: FlowControl, zone: str, cipher: EekCipher, count: int) -> Response:
    return json_ok(cipher.generate_json(count, await flows.issue(zone, count)))


async def _generate_held(kms: Kms, transit: TransitCustody, call: Call, key: TransitHeldKey) -> Response:
    number = call.version = key.current.version
    words = key.words_of(number)
    zone, count = key.metadata.name, call.count or 0
    ivs = await kms.flows.issue(zone, count) if kms.flows.is_tracking else kms.flows.untracked_ivs(zone, count)
    made = await transit.generate(key, [ivs[at : at + IV_BYTES] for at in range(0, len(ivs), IV_BYTES)], call.user)
    return json_ok(b"[%b]" % b",".join([words.eek_json(iv, edek) for iv, edek in made]))


def _count(text: str | None) -> int:
    if not text:  # Hadoop takes an empty one for none
        return 1
    if not _WHOLE_NUMBER.fullmatch(text):
        raise InputError("num_keys must be a whole number")
    count = int(text)
    if count > MAX_GENERATE:
        raise InputError(f"num_keys={count} is more than the {MAX_GENERATE} EDEKs that one call makes: ask again")
    return count


def _key_for(kms: Kms, call: Call, name: str, operation: Operation) -> CachedKey:
    """The live key `name` when the user may use it for an operation that is also a key ACL."""
    known = kms.access.is_known(call, operation, name)
    if not known:
        kms.access.require_operation(call, call.op, name, operation)
    key = kms.keys.find(name)
    if key is None:
        raise KeyNotFoundError(name, f"No KeyVersion exists for key '{name}'")
    if not known:
        kms.access.require_key(call, name, key.acl_name, KeyOperation[operation.value])
        kms.access.remember(call, operation, name)
    return key


def open_eek(kms: Kms, call: Call) -> Response | Awaitable[Response]:
    """`POST keyversion/NAME@N/_eek` with `eek_op` decrypt or reencrypt."""
    version_name = require_text(call.name, "versionName")
    eek_op = require(call.query.eek_op, "eekOp")
    body = kms_wire.decode_open_eek(json_body(call.request))
    call.key = check_name(body.name)
    iv_text = require(body.iv, "iv")
    material = require(body.material, "material")
    if eek_op == "decrypt":
        call.op = "DECRYPT_EEK"
        key, number = _version_for(kms, call, version_name, body.name, Operation.DECRYPT_EEK)
    elif eek_op == "reencrypt":
        call.op = "REENCRYPT_EEK"
        key, number = _version_for(kms, call, version_name, body.name, Operation.GENERATE_EEK)
    else:
        raise InputError(_WRONG_EEK_OP)
    iv = kms_wire.decode_iv(iv_text)
    if eek_op == "decrypt" and kms.access.published.flows is not None:
        kms.flows.check(call, key.metadata.name, iv)
    if not isinstance(key, EnvelopeKey):
        call.version = number
        held = HeldEek(number, iv, kms_wire.decode_base64(material))
        if eek_op == "decrypt":
            return _open_held(kms.get_transit(), call, key, held)
        return while_wanted(call.request, _reencrypt_one_held(kms.get_transit(), call, key, held))
    cipher = key.find_cipher(number)
    assert cipher is not None, "the version was found above"
    call.version = number
    edek = kms_wire.decode_base64(material)
    if eek_op == "decrypt":
        return json_ok(cipher.decrypt_json(iv, edek))
    return json_ok(key.current.eek_json(iv, eek.reencrypt(cipher, key.current, iv, edek)))


def _open_held(transit: TransitCustody, call: Call, key: TransitHeldKey, held: HeldEek) -> Promise[Response]:
    words = key.words_of(held.number)
    opening = transit.open(key, held, call.user)
    give_up_when_gone(call.request, opening)
    return opening.then(lambda dek: json_ok(words.dek_json(dek.reveal())))


async def _reencrypt_one_held(transit: TransitCustody, call: Call, key: TransitHeldKey, held: HeldEek) -> Response:
    (edek,) = await transit.reencrypt(key, [held], call.user)
    return json_ok(key.words_of(key.current.version).eek_json(held.iv, edek))


def _version_for(
    kms: Kms, call: Call, version_name: str, key_name: str | None, operation: Operation
) -> tuple[CachedKey, int]:
    """The key version, when it belongs to the key named in the body and the user may use it."""
    known = key_name is not None and kms.access.is_known(call, operation, key_name)
    if not known:
        kms.access.require_operation(call, call.op, key_name, operation)
    found = find_version(kms.keys, version_name)
    if found is None:
        raise KeyVersionNotFoundError(version_name)
    key = found[0]
    if key.metadata.name != key_name:
        raise KeyMismatchError(version_name, key_name)
    if not known:
        kms.access.require_key(call, key_name, key.acl_name, KeyOperation[operation.value])
        kms.access.remember(call, operation, key_name)
    return found


def reencrypt_batch(kms: Kms, call: Call) -> Response | Awaitable[Response]:
    """`POST key/NAME/_reencryptbatch`: a list of EDEKs in, the same list under the current version out."""
    name = call.key = require_text(call.name, "name")
    call.op = "REENCRYPT_EEK_BATCH"
    bodies = kms_wire.decode_eek_list(json_body(call.request))
    call.count = len(bodies)
    if not bodies:
        kms.access.require_operation(call, call.op, name, Operation.GENERATE_EEK)
        return json_ok(b"[]")
    try:
        key = _key_for(kms, call, name, Operation.GENERATE_EEK)
    except KeyNotFoundError:
        # Hadoop looks for the entries' versions, never for the key itself.
        raise KeyVersionNotFoundError(require_text(bodies[0].version_name, "versionName")) from None
    if not isinstance(key, EnvelopeKey):
        return while_wanted(call.request, _reencrypt_held(kms.get_transit(), call, key, bodies))
    key.require({key.metadata.versions - 1, *_versions_in(key, bodies)})
    return _reencrypt_all(key, bodies)


async def _reencrypt_held(
    transit: TransitCustody, call: Call, key: TransitHeldKey, bodies: Sequence[EncryptedKeyVersionBody]
) -> Response:
    held = await in_slices(lambda body: _held_eek(*_entry(key, body)), bodies)
    edeks = await transit.reencrypt(key, held, call.user)
    words = key.words_of(key.current.version)
    pairs = list(zip(held, edeks, strict=True))
    entries = await in_slices(lambda pair: words.eek_json(pair[0].iv, pair[1]), pairs)
    return json_ok(b"[%b]" % b",".join(entries))


def _versions_in(key: EnvelopeKey, bodies: Sequence[EncryptedKeyVersionBody]) -> set[int]:
    """The versions of this key that a batch names; what else it names is refused entry by entry."""
    named = (split_version_name(body.version_name) for body in bodies if body.version_name)
    return {split[1] for split in named if split is not None and split[0] == key.metadata.name}


async def _reencrypt_all(key: EnvelopeKey, bodies: Sequence[EncryptedKeyVersionBody]) -> Response:
    # The key and its ciphers stay as they were at the start, whatever is committed meanwhile.
    entries: list[bytes] = []
    for start in range(0, len(bodies), _SLICE):
        if start:
            await asyncio.sleep(0)
        entries += [_reencrypt_one(key, body) for body in bodies[start : start + _SLICE]]
    return json_ok(b"[" + b",".join(entries) + b"]")


def _reencrypt_one(key: EnvelopeKey, body: EncryptedKeyVersionBody) -> bytes:
    number, iv_text, material = _entry(key, body)
    cipher = key.find_cipher(number)
    assert cipher is not None, "the version was found above"
    iv, edek = kms_wire.decode_iv(iv_text), kms_wire.decode_base64(material)
    if cipher is not key.current:
        edek = eek.reencrypt(cipher, key.current, iv, edek)
    return key.current.eek_json(iv, edek)


def _held_eek(number: int, iv_text: str, material: str) -> HeldEek:
    return HeldEek(number, kms_wire.decode_iv(iv_text), kms_wire.decode_base64(material))


def _entry(key: CachedKey, body: EncryptedKeyVersionBody) -> tuple[int, str, str]:
    """The number, IV and EDEK of an entry of a batch, when it is of this key."""
    version_name = require_text(body.version_name, "versionName")
    inner = body.encrypted_key_version
    if inner is None:
        raise InputError("Parameter 'encryptedKeyVersion' cannot be null")
    if inner.version_name != EEK:
        raise InputError(f"encryptedKey version name must be '{EEK}', but found '{inner.version_name}'")
    split = split_version_name(version_name)
    if split is None or split[0] != key.metadata.name:
        raise KeyMismatchError(version_name, key.metadata.name)
    if split[1] not in key.numbers:
        raise KeyVersionNotFoundError(version_name)
    return split[1], require(body.iv, "iv"), require(inner.material, "material")
