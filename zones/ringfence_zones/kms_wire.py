"""The JSON of Hadoop's KMS REST dialect, to and from values: one place for the server and the client.

Source of the format: `org.apache.hadoop.crypto.key.kms.server.KMSJSONReader/Writer`, `KMSUtil` and
`KMSClientProvider`, as Hadoop 3.4.2 puts them on the wire.

Rules:

1. Base64 goes out URL-safe without padding. What comes in may use either alphabet, padded or not: Java clients
   send the standard alphabet with padding in most bodies and the URL-safe one in `_reencryptbatch`.
2. Unknown fields are ignored, as Hadoop does; a field of another type is an error.
3. `created` and token expiries are numbers above 2^31 and `length` and `versions` below: Java clients cast them.
4. No struct here prints its fields: some of them are key material.
"""

from __future__ import annotations

import binascii
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from ringfence_zones.errors import InputError, MalformedJsonError
from ringfence_zones.keys import IV_BYTES, KeyMetadata

# KeyProviderCryptoExtension.EEK and .EK: the version names of an encrypted and of an opened DEK.
EEK = "EEK"
EK = "EK"

_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_TO_URL_SAFE = bytes.maketrans(b"+/", b"-_")


class _Body(msgspec.Struct, frozen=True, gc=False):
    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class CreateKeyBody(_Body, frozen=True, gc=False, omit_defaults=True):
    """`POST keys`. `length` is in bits, 0 or absent for the server's default; `material` is base64."""

    name: str | None = None
    cipher: str | None = None
    length: int | None = None
    material: str | None = None
    description: str | None = None
    attributes: dict[str, str] | None = None


class RollKeyBody(_Body, frozen=True, gc=False, omit_defaults=True):
    """`POST key/NAME`; `material` is base64, absent for random material."""

    material: str | None = None


class OpenEekBody(_Body, frozen=True, gc=False):
    """`POST keyversion/NAME@N/_eek` for decrypt and reencrypt: key name, IV and EDEK (base64)."""

    name: str | None = None
    iv: str | None = None
    material: str | None = None


class InnerEekBody(_Body, frozen=True, gc=False, rename="camel"):
    """The EDEK inside an `EncryptedKeyVersionBody`. The NameNode sends `name` as null."""

    version_name: str | None = None
    material: str | None = None
    name: str | None = None


class EncryptedKeyVersionBody(_Body, frozen=True, gc=False, rename="camel"):
    """What generate and reencrypt answer, and what `_reencryptbatch` takes a list of."""

    version_name: str | None = None
    iv: str | None = None
    encrypted_key_version: InnerEekBody | None = None


class KeyVersionBody(_Body, frozen=True, gc=False, rename="camel"):
    """A key version, and an opened DEK; `material` is base64 or null."""

    name: str | None = None
    version_name: str | None = None
    material: str | None = None


class PublishBody(_Body, frozen=True):
    """`PUT /ringfence/v1/policy`, Ringfence's own: the policy stays JSON text until the policy module reads it."""

    expected_revision: int
    policy: msgspec.Raw


class LeaseBody(_Body, frozen=True):
    """`PUT /ringfence/v1/leases/NAME`, Ringfence's own."""

    holder: str
    ttl_s: float


class GrantBody(_Body, frozen=True, rename={"source": "from", "target": "to"}):
    """`PUT /ringfence/v1/grants/ID`, Ringfence's own: see `grants.GrantRequest`."""

    user: str
    source: str
    target: str
    lifetime_s: float
    purpose: str
    approver: str
    token: int | None = None
    address: str | None = None
    real_user: str | None = None


class _MetadataBody(_Body, frozen=True, gc=False):
    # Every field has a default because "no such key" is `{}`.
    name: str | None = None
    cipher: str | None = None
    length: int = 0
    description: str | None = None
    attributes: dict[str, str] | None = None
    created: int = 0
    versions: int = 0


class RemoteException(_Body, frozen=True, gc=False, rename="camel"):
    """An error as Hadoop's servers send it; `java_class_name` decides what the Java client throws and retries."""

    message: str | None = None
    exception: str | None = None
    java_class_name: str | None = None


class _RemoteExceptionBody(_Body, frozen=True, gc=False):
    remote_exception: RemoteException = msgspec.field(name="RemoteException")


_T = TypeVar("_T")

_CREATE_KEY = msgspec.json.Decoder(CreateKeyBody)
_ROLL_KEY = msgspec.json.Decoder(RollKeyBody)
_OPEN_EEK = msgspec.json.Decoder(OpenEekBody)
_EEK_LIST = msgspec.json.Decoder(list[EncryptedKeyVersionBody])
_ANY = msgspec.json.Decoder(Any)
_PUBLISH = msgspec.json.Decoder(PublishBody)
_LEASE = msgspec.json.Decoder(LeaseBody)
_GRANT = msgspec.json.Decoder(GrantBody)
_KEY_VERSION = msgspec.json.Decoder(KeyVersionBody)
_KEY_VERSIONS = msgspec.json.Decoder(list[KeyVersionBody])
_METADATA = msgspec.json.Decoder(_MetadataBody)
_METADATA_LIST = msgspec.json.Decoder(list[_MetadataBody])
_NAMES = msgspec.json.Decoder(list[str])
_REMOTE_EXCEPTION = msgspec.json.Decoder(_RemoteExceptionBody)
_ENCODER = msgspec.json.Encoder()


def encode_base64(data: bytes) -> str:
    """URL-safe, no padding, as the KMS writes it."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL_SAFE).rstrip(b"=").decode("ascii")


def decode_base64(text: str) -> bytes:
    """Either alphabet, with or without padding. Raises InputError on anything else.

    Java's decoder skips characters outside the alphabet; here they are an error, for a damaged EDEK opens to a
    wrong DEK without one. The text itself is never in the message.
    """
    try:
        # What Java's clients send is whole and standard, and then this sees that it is: half the cost of what follows.
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        return _decode_lenient(text)


def _decode_lenient(text: str) -> bytes:
    try:
        characters = text.encode("ascii").rstrip(b"=")
        data = binascii.a2b_base64(characters.translate(_TO_STANDARD) + b"==")
    except (binascii.Error, UnicodeEncodeError):
        raise InputError("a base64 value is malformed") from None
    # Skipped characters leave fewer bytes than their count promises; one skipped beside whole groups is caught by %.
    if len(data) != len(characters) * 3 // 4 or len(characters) % 4 == 1:
        raise InputError("a base64 value is malformed")
    return data


def decode_iv(text: str) -> bytes:
    """A base64 IV. Raises MalformedJsonError unless it is 16 bytes long."""
    iv = decode_base64(text)
    if len(iv) != IV_BYTES:
        raise MalformedJsonError(f"an IV must be {IV_BYTES} bytes long, not {len(iv)}")
    return iv


def encode(value: Any) -> bytes:
    """Compact JSON of a struct of this module, or of plain JSON values."""
    return _ENCODER.encode(value)


def decode_create_key(data: bytes) -> CreateKeyBody:
    """The body of `POST keys`. Raises MalformedJsonError."""
    return _decode(_CREATE_KEY, data)


def decode_roll_key(data: bytes) -> RollKeyBody:
    """The body of `POST key/NAME`. Raises MalformedJsonError."""
    return _decode(_ROLL_KEY, data)


def decode_open_eek(data: bytes) -> OpenEekBody:
    """The body of decrypt and reencrypt. Raises MalformedJsonError."""
    return _decode(_OPEN_EEK, data)


def decode_eek_list(data: bytes) -> list[EncryptedKeyVersionBody]:
    """The body of `_reencryptbatch`, or the answer of generate. Raises MalformedJsonError."""
    return _decode(_EEK_LIST, data)


def decode_json(data: bytes) -> Any:
    """Any JSON as plain values. Raises MalformedJsonError."""
    return _decode(_ANY, data)


def decode_publish(data: bytes) -> PublishBody:
    """The body of a publication. Raises MalformedJsonError."""
    return _decode(_PUBLISH, data)


def decode_lease(data: bytes) -> LeaseBody:
    """What a lease is asked for with. Raises MalformedJsonError."""
    return _decode(_LEASE, data)


def decode_grant(data: bytes) -> GrantBody:
    """What a grant is asked for with. Raises MalformedJsonError."""
    return _decode(_GRANT, data)


def decode_key_version(data: bytes) -> KeyVersionBody:
    """The answer of create, roll and decrypt. Raises MalformedJsonError."""
    return _decode(_KEY_VERSION, data)


def decode_key_versions(data: bytes) -> list[KeyVersionBody]:
    """The answer of `_versions`. Raises MalformedJsonError."""
    return _decode(_KEY_VERSIONS, data)


def decode_names(data: bytes) -> list[str]:
    """The answer of `keys/names`. Raises MalformedJsonError."""
    return _decode(_NAMES, data)


def decode_metadata(data: bytes) -> KeyMetadata | None:
    """The answer of `_metadata`; None for `{}`, which is how a KMS says "no such key". Raises MalformedJsonError."""
    return _metadata_value(_decode(_METADATA, data))


def decode_metadata_list(data: bytes) -> list[KeyMetadata | None]:
    """The answer of `keys/metadata`, in the order asked for. Raises MalformedJsonError."""
    return [_metadata_value(body) for body in _decode(_METADATA_LIST, data)]


def decode_remote_exception(data: bytes) -> RemoteException | None:
    """The error in a body, None when the body is something else (HTML, empty, another JSON)."""
    try:
        return _REMOTE_EXCEPTION.decode(data).remote_exception
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def encode_remote_exception(java_class: str, message: str) -> bytes:
    """`{"RemoteException": ...}` with the first line of `message`, as `HttpExceptionUtils` writes it."""
    lines = message.splitlines()
    return encode(
        {
            "RemoteException": {
                "message": lines[0] if lines else "",
                "exception": java_class.rpartition(".")[2],
                "javaClassName": java_class,
            }
        }
    )


def metadata_json(metadata: KeyMetadata | None) -> dict[str, Any]:
    """A key's metadata as the KMS shows it, `{}` for no such key."""
    if metadata is None:
        return {}
    return {
        "name": metadata.name,
        "cipher": metadata.cipher,
        "length": metadata.length_bits,
        "description": metadata.description,
        "attributes": dict(metadata.attributes),
        "created": metadata.created_ms,
        "versions": metadata.versions,
    }


def key_version_json(key_name: str, version_name: str, material: bytes | None) -> dict[str, Any]:
    """A key version; `material` is null unless it is given."""
    return {
        "name": key_name,
        "versionName": version_name,
        "material": None if material is None else encode_base64(material),
    }


def encrypted_key_version_json(key_name: str, version_name: str, iv: bytes, edek: bytes) -> dict[str, Any]:
    """An EDEK with everything needed to open it."""
    return {
        "versionName": version_name,
        "iv": encode_base64(iv),
        "encryptedKeyVersion": {"name": key_name, "versionName": EEK, "material": encode_base64(edek)},
    }


def _metadata_value(body: _MetadataBody) -> KeyMetadata | None:
    if body.name is None:
        return None
    return KeyMetadata(
        name=body.name,
        cipher=body.cipher or "",
        length_bits=body.length,
        created_ms=body.created,
        versions=body.versions,
        description=body.description,
        attributes=MappingProxyType(dict(body.attributes or {})),
    )


def _decode(decoder: msgspec.json.Decoder[_T], data: bytes) -> _T:
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        # msgspec names the expected type and the path to the field, never the value.
        raise MalformedJsonError(f"the JSON does not have the expected shape: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedJsonError("the body is not well-formed JSON") from None
