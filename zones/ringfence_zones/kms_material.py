"""A KMS client that handles what `kms_client` never touches: key material and opened DEKs.

For two things only: taking keys over from a KMS that gives them out (the operation GET, and READ on each key), and
proving that two KMSs hold the same keys, by letting both open the same EDEKs. Everything secret is a `Secret`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

from ringfence_zones import kms_wire
from ringfence_zones.errors import KmsError, RingfenceError
from ringfence_zones.keys import KeyMetadata, KeyVersion, split_version_name
from ringfence_zones.kms_client import KmsClient
from ringfence_zones.secret import Secret

T = TypeVar("T")

# A key may be rolled between the two reads that its versions take.
_READS = 3


@dataclass(frozen=True, slots=True)
class Edek:
    """An encrypted DEK: which version opens it, its IV and its bytes."""

    key_name: str
    version_name: str
    iv: bytes
    material: bytes


class KmsMaterialClient(KmsClient):
    """One KMS as one user, with the calls that carry secrets."""

    def read_key(self, name: str) -> tuple[KeyMetadata, tuple[KeyVersion, ...]] | None:
        """A key and the material of all its versions, oldest first; None when there is no such key.

        Raises KmsRemoteError when the KMS does not give material out, KmsError for an answer that cannot be.
        """
        for _ in range(_READS):
            metadata = self.find_key(name)
            if metadata is None:
                return None
            body = self._read(f"key/{quote(name, safe='')}/_versions").body
            versions = tuple(_version(name, each) for each in _understood(kms_wire.decode_key_versions, body))
            if versions and versions[-1].version == metadata.versions - 1:
                return metadata, versions
        raise KmsError(f"the KMS at {self.uri.text} tells of other versions of key {name} each time it is asked")

    def generate_edek(self, name: str) -> Edek:
        """A new EDEK under the key's current version. Raises KmsRemoteError when the user may not."""
        parameters = [("eek_op", "generate"), ("num_keys", "1")]
        body = self._read(f"key/{quote(name, safe='')}/_eek", parameters).body
        made = _understood(kms_wire.decode_eek_list, body)
        inner = made[0].encrypted_key_version if len(made) == 1 else None
        if inner is None or inner.material is None or made[0].iv is None or made[0].version_name is None:
            raise KmsError(f"the KMS at {self.uri.text} made no EDEK of key {name}")
        material = _understood(kms_wire.decode_base64, inner.material)
        return Edek(name, made[0].version_name, _understood(kms_wire.decode_iv, made[0].iv), material)

    def open_edek(self, edek: Edek) -> Secret:
        """The DEK. Raises KmsRemoteError when the user may not, or the KMS has no such version."""
        text = kms_wire.encode_base64
        body = kms_wire.OpenEekBody(name=edek.key_name, iv=text(edek.iv), material=text(edek.material))
        path = f"{self.uri.path}/v1/keyversion/{quote(edek.version_name, safe='')}/_eek"
        # It changes nothing, so it may be repeated like a read.
        answer = self._checked(
            self._send("POST", path, params=[("eek_op", "decrypt")], body=kms_wire.encode(body), idempotent=True)
        )
        material = _understood(kms_wire.decode_key_version, answer.body).material
        if material is None:
            raise KmsError(f"the KMS at {self.uri.text} answered without a DEK")
        return Secret(_understood(kms_wire.decode_base64, material))


def _version(name: str, body: kms_wire.KeyVersionBody) -> KeyVersion:
    split = split_version_name(body.version_name or "")
    if split is None or split[0] != name:
        raise KmsError(f"the KMS sent something else than a version of key {name}")
    if body.material is None:
        raise KmsError(
            f"the KMS gives out no material of key {name}: Vault holds it (custody transit)",
            hint="such a key cannot move; copy the zone's data into a zone whose key is in custody envelope",
        )
    return KeyVersion(name, split[1], Secret(_understood(kms_wire.decode_base64, body.material)))


def _understood(decode: Callable[..., T], data: object) -> T:
    try:
        return decode(data)
    except KmsError:
        raise
    except RingfenceError as error:
        raise KmsError(f"the KMS sent an answer that is not its protocol: {error.message}") from error
