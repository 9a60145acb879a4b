"""The proof that two KMSs hold the same keys: both open the same EDEKs, and the DEKs are equal.

Three kinds of EDEK for each key: one that the first KMS generated, one made here for every version (any bytes open
to some DEK, so equal DEKs mean equal keys), and those of real files. DEKs stay in this process's memory.

Whoever proves needs DECRYPT_EEK on the key. A key that nobody named may open is told as not proven, never as proven.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from ringfence_zones.errors import KmsRemoteError
from ringfence_zones.keys import IV_BYTES, KeyMetadata, version_name
from ringfence_zones.kms_material import Edek, KmsMaterialClient
from ringfence_zones.secret import Secret


@dataclass(frozen=True, slots=True)
class FileEdek:
    """The EDEK of a file in a zone."""

    path: str
    edek: Edek


@dataclass(frozen=True, slots=True)
class Proof:
    """An EDEK and what it opens to; `about` says where it came from."""

    about: str
    edek: Edek
    dek: Secret
    prover: KmsMaterialClient


@dataclass(frozen=True, slots=True)
class Collected:
    """Proofs, and the keys for which there is none."""

    proofs: tuple[Proof, ...]
    unproven: tuple[str, ...]

    @property
    def file_count(self) -> int:
        """How many are of real files."""
        return sum(proof.about.startswith("/") for proof in self.proofs)


def collect(provers: Sequence[KmsMaterialClient], keys: Sequence[KeyMetadata], files: Iterable[FileEdek]) -> Collected:
    """Opens EDEKs of every version of every key with the KMS that `provers` (one per user) call."""
    by_key: dict[str, list[FileEdek]] = {}
    for file in files:
        by_key.setdefault(file.edek.key_name, []).append(file)
    proofs: list[Proof] = []
    unproven: list[str] = []
    for key in keys:
        of_key = _prove(provers, key, by_key.get(key.name, []))
        proofs += of_key
        if not of_key:
            unproven.append(key.name)
    return Collected(tuple(proofs), tuple(unproven))


def find_differences(collected: Collected, elsewhere: Sequence[KmsMaterialClient]) -> list[str]:
    """What another KMS opens otherwise, or not at all: one sentence each. `elsewhere` has a client for each prover."""
    by_user = {client.user: client for client in elsewhere}
    differences = []
    for proof in collected.proofs:
        try:
            opened = by_user[proof.prover.user].open_edek(proof.edek)
        except KmsRemoteError as error:
            differences.append(f"{proof.about} (key version {proof.edek.version_name}): {error.message}")
            continue
        if opened != proof.dek:
            differences.append(f"{proof.about} (key version {proof.edek.version_name}) opens to another DEK")
    return differences


def _prove(provers: Sequence[KmsMaterialClient], key: KeyMetadata, files: Sequence[FileEdek]) -> list[Proof]:
    for prover in provers:
        try:
            return _prove_as(prover, key, files)
        except KmsRemoteError as error:
            if error.status != HTTPStatus.FORBIDDEN:
                raise
    return []


def _prove_as(prover: KmsMaterialClient, key: KeyMetadata, files: Sequence[FileEdek]) -> list[Proof]:
    proofs = []
    for number in range(key.versions):
        edek = _made_up(key, number)
        try:
            proofs.append(Proof(f"a made-up EDEK of key {key.name}", edek, prover.open_edek(edek), prover))
        except KmsRemoteError as error:
            # A key that was made again has no versions of its first life; the last is always there.
            if error.status == HTTPStatus.FORBIDDEN or number == key.versions - 1:
                raise
    wanted = [(file.path, file.edek) for file in files]
    try:
        wanted.append((f"a generated EDEK of key {key.name}", prover.generate_edek(key.name)))
    except KmsRemoteError as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
    return [*proofs, *(Proof(about, edek, prover.open_edek(edek), prover) for about, edek in wanted)]


def _made_up(key: KeyMetadata, version: int) -> Edek:
    material = secrets.token_bytes(key.length_bits // 8)
    return Edek(key.name, version_name(key.name, version), secrets.token_bytes(IV_BYTES), material)
