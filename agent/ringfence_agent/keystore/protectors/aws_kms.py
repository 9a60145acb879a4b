"""A KMS key of AWS as a root of trust: every seal is a ciphertext that KMS made and nobody else opens.

Rules:

1. Everything is bound by an encryption context to the cluster, the key's name, its version and a purpose. It stands in
   clear in the log of AWS (CloudTrail), where it says which zone key was opened, when and by whom; no secret is in it.
2. The key is one ARN from start to end. An alias is looked up once, when the protector is opened: pointing it
   elsewhere changes nothing for a server that runs, and a later start does not follow it for what was sealed before.
3. Only keys that kms.yaml names are asked, whatever a slot says. So who can write to the store's database cannot make
   the server take a root of their own making.
4. What KMS gave is kept as it came and never looked into.

    body of a slot = JSON, keys sorted, no spaces: {"ciphertext": base64, "cluster": text, "form": 1, "key": ARN}
    contexts       = ringfence:cluster, ringfence:key, ringfence:version, ringfence:purpose; of material the purpose
                     `zone-key`, of a store's root `store-root` with the store's id (hex) as key and version 0
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ringfence_agent.keystore.protector import MaterialBinding, Materials
from ringfence_agent.keystore.protectors.aws_kms_answers import MAX_CIPHERTEXT_BYTES
from ringfence_agent.keystore.protectors.aws_kms_api import AwsKms
from ringfence_agent.keystore.protectors.aws_kms_config import AwsKmsSettings
from ringfence_agent.keystore.protectors.aws_kms_errors import Call, Reason, wrong_key
from ringfence_agent.keystore.sealing import SealBrokenError
from ringfence_zones.aws_names import find_key_arn
from ringfence_zones.errors import ProtectorRefusedError
from ringfence_zones.secret import Secret

SCHEME = "aws-kms"
_log = logging.getLogger(__name__)

_FORM = 1
# An ARN, a cluster's name and a ciphertext in base64.
_MAX_SLOT_BYTES = 2 * MAX_CIPHERTEXT_BYTES
_ROOT_BYTES = 32


@dataclass(frozen=True, slots=True)
class _Slot:
    """What a slot's body holds."""

    key: str
    cluster: str
    ciphertext: bytes


class AwsKmsMaterials:
    """Seals and opens material with one KMS key: see `keystore.protector.Materials`."""

    def __init__(self, kms: AwsKms, key: str, cluster: str) -> None:
        self._kms = kms
        self._key = key
        self._cluster = cluster

    def __repr__(self) -> str:
        return f"<AwsKmsMaterials {self._key}>"

    def seal(self, items: Sequence[tuple[MaterialBinding, Secret]]) -> list[bytes]:
        """See Materials. One call of AWS's for each item, several at a time."""
        return self._kms.encrypt(self._key, [(material, self._context(binding)) for binding, material in items])

    def open(self, items: Sequence[tuple[MaterialBinding, bytes]]) -> list[Secret]:
        """See Materials. One call of AWS's for each item, several at a time."""
        return self._kms.decrypt(self._key, [(sealed, self._context(binding)) for binding, sealed in items])

    def can_reseal(self, source: Materials) -> bool:
        """See ResealingMaterials: those of another KMS key of the same region and cluster."""
        return (
            isinstance(source, AwsKmsMaterials)
            and (source._kms.region, source._cluster) == (self._kms.region, self._cluster)
            and source._key != self._key
        )

    def reseal(self, source: Materials, items: Sequence[tuple[MaterialBinding, bytes]]) -> list[bytes]:
        """See ResealingMaterials. By ReEncrypt: no plaintext leaves KMS."""
        assert isinstance(source, AwsKmsMaterials), "asked first"
        contexts = [(sealed, self._context(binding)) for binding, sealed in items]
        return self._kms.re_encrypt(source._key, self._key, contexts)

    def _context(self, binding: MaterialBinding) -> dict[str, str]:
        return encryption_context(self._cluster, binding.key_name, binding.version, "zone-key")


class AwsKmsProtector:
    """Protects with one KMS key: see `keystore.protector.Protector`."""

    scheme = SCHEME

    def __init__(
        self, kms: AwsKms, key: str, cluster: str, *, alias: str | None = None, former_keys: Collection[str] = ()
    ) -> None:
        """`key` is the key's ARN; `alias` is what kms.yaml calls it, when that is something else."""
        self._kms = kms
        self._key = key
        self._cluster = cluster
        self._alias = alias
        self._expected = {key, *former_keys}
        self.label = f"AWS KMS key {key}"

    def __repr__(self) -> str:
        return f"<AwsKmsProtector {self._key}>"

    def seal_root(self, store_id: bytes, root: Secret) -> bytes:
        """See Protector."""
        (ciphertext,) = self._kms.encrypt(self._key, [(root, self._root_context(store_id))])
        body = {
            "ciphertext": base64.b64encode(ciphertext).decode(),
            "cluster": self._cluster,
            "form": _FORM,
            "key": self._key,
        }
        return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()

    def recognises(self, slot_body: bytes) -> bool:
        """See Protector. Says in the log when the slot's key is not the one that an alias names now."""
        slot = _find_slot(slot_body)
        if slot is None or slot.key == self._key:
            return slot is not None
        if self._alias is not None and slot.key not in self._expected:
            self._expected.add(slot.key)  # said once
            _log.warning(
                "%s names %s now, but a slot of this store was made with %s: if the alias was moved, write that key"
                " in aws_kms.former_keys until the store has moved too",
                self._alias,
                self._key,
                slot.key,
            )
        return False

    def open_root(self, store_id: bytes, slot_body: bytes) -> Secret:
        """See Protector."""
        slot = self._own_slot(slot_body)
        (root,) = self._kms.decrypt(self._key, [(slot.ciphertext, self._root_context(store_id))])
        if len(root) != _ROOT_BYTES:
            raise SealBrokenError
        return root

    def materials(self, slot_body: bytes) -> AwsKmsMaterials:
        """See Protector."""
        self._own_slot(slot_body)
        return AwsKmsMaterials(self._kms, self._key, self._cluster)

    def _own_slot(self, slot_body: bytes) -> _Slot:
        slot = _find_slot(slot_body)
        if slot is None:
            raise SealBrokenError
        if slot.key != self._key:
            raise wrong_key(Call("Decrypt", self._key, self._kms.region), "the store was protected with")
        if slot.cluster != self._cluster:
            raise ProtectorRefusedError(
                f"the store belongs to the cluster {slot.cluster!r}, but aws_kms.cluster is {self._cluster!r}",
                hint="the cluster's name is bound into everything that KMS sealed: write the one it was made with",
                reason=Reason.WRONG_CLUSTER,
            )
        return slot

    def _root_context(self, store_id: bytes) -> dict[str, str]:
        return encryption_context(self._cluster, store_id.hex(), 0, "store-root")


def encryption_context(cluster: str, key_name: str, version: int, purpose: str) -> dict[str, str]:
    """What a ciphertext is bound to, and what key policies can ask for (`kms:EncryptionContext:ringfence:cluster`)."""
    return {
        "ringfence:cluster": cluster,
        "ringfence:key": key_name,
        "ringfence:version": str(version),
        "ringfence:purpose": purpose,
    }


def open_aws_kms(settings: AwsKmsSettings) -> list[AwsKmsProtector]:
    """The protector of `settings.key`, then one for each former key.

    Asks AWS which key an alias or id is, and nothing about an ARN. Raises ConfigError, ProtectorUnavailableError,
    ProtectorRefusedError.
    """
    kms = AwsKms(settings)
    arn = find_key_arn(settings.key)
    is_pinned = arn is not None and not arn.is_alias
    key = settings.key if is_pinned else kms.describe(settings.key).arn
    alias = None if is_pinned else settings.key
    current = AwsKmsProtector(kms, key, settings.cluster, alias=alias, former_keys=settings.former_keys)
    former = [AwsKmsProtector(kms, each, settings.cluster) for each in settings.former_keys if each != key]
    return [current, *former]


def _find_slot(body: bytes) -> _Slot | None:
    """None for what this release did not write."""
    if len(body) > _MAX_SLOT_BYTES:
        return None
    try:
        fields = json.loads(body)
        if not isinstance(fields, dict) or fields.get("form") != _FORM:
            return None
        key, cluster, text = fields["key"], fields["cluster"], fields["ciphertext"]
        if not all(isinstance(each, str) for each in (key, cluster, text)):
            return None
        return _Slot(key, cluster, base64.b64decode(text, validate=True))
    except (ValueError, KeyError, RecursionError, binascii.Error):
        return None
