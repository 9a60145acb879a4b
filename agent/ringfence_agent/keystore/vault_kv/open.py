"""From the URI of a store in Vault to an open key store, making store and root key together when told to.

The rules of `sql.server_open`, for it is a store that instances share. The head is what makes a store, and its first
version is written by check-and-set: of several instances that start together one makes the store, and the others, which
have another root key file, are told to fetch its. Documents without a head are no place for a new store.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ringfence_agent.keystore.local_files import check_directory, directory_locked
from ringfence_agent.keystore.protector import Protector, Protectors
from ringfence_agent.keystore.protectors.file import FileProtector, new_root_key_text, read_root_key
from ringfence_agent.keystore.rows.header import new_header, open_header
from ringfence_agent.keystore.rows.kinds import SCHEMA_VERSION
from ringfence_agent.keystore.vault_kv.address import VaultKvAddress
from ringfence_agent.keystore.vault_kv.documents import VaultDocuments
from ringfence_agent.keystore.vault_kv.head import Head, read_unproven_header
from ringfence_agent.keystore.vault_kv.rows import HEAD
from ringfence_agent.keystore.vault_kv.store import VaultKvKeyStore
from ringfence_agent.vault.control import VaultControl
from ringfence_agent.vault.open import open_control
from ringfence_agent.vault.settings import VaultSettings
from ringfence_zones.durable_file import install_durably, prepared_name, sync, write_new_file
from ringfence_zones.errors import (
    ConfigError,
    KeyStoreError,
    ProtectorRefusedError,
    StoreUnavailableError,
    WrongRootKeyError,
)


class VaultKvPlace:
    """Where a store is, with the control plane by which it is reached."""

    def __init__(self, control: VaultControl, address: VaultKvAddress) -> None:
        self.label = self.place = address.label
        self._address = address
        self._control = control

    def documents(self) -> VaultDocuments:
        """The documents, with nothing seen of them yet. Closing them closes the connections."""
        return VaultDocuments(self._control, self._address)

    def close(self) -> None:
        """Closes the connections."""
        self._control.close()


def open_vault_keystore(
    address: VaultKvAddress, settings: VaultSettings, root_key: Path | None, protectors: Protectors, *, init: bool
) -> VaultKvKeyStore:
    """Raises ConfigError for files and settings, ProtectorUnavailableError when Vault cannot be asked, and what
    `open_documents` raises.
    """
    if protectors.with_file and root_key is None:
        raise ConfigError(
            f"key store {address.label} is shared, and no root key file is named",
            hint="name it with --root-key FILE, or root_key_file in kms.yaml; it is the same file on every instance."
            " Or have the store opened by Vault too: protector: [vault-transit]",
        )
    control = open_control(settings)
    place = VaultKvPlace(control, address)
    try:
        _reach(control, address)
        if root_key is None or not protectors.with_file:
            if not is_there(place):
                _create_without_file(place, protectors.others, init=init)
            return open_documents(place, protectors.others)
        if not root_key.exists() or prepared_name(root_key).exists() or not is_there(place):
            _create(place, root_key, init=init)
        return open_documents(place, [FileProtector.from_file(root_key), *protectors.others])
    except BaseException:
        place.close()
        raise


def _reach(control: VaultControl, address: VaultKvAddress) -> None:
    """Raises ProtectorUnavailableError when Vault cannot be asked: a server waits for that, as for a protector."""
    with suppress(ProtectorRefusedError):  # told by whoever asks for the documents
        control.kv.find(f"{address.prefix}/{HEAD}")


def open_documents(place: VaultKvPlace, protectors: Sequence[Protector]) -> VaultKvKeyStore:
    """The store that is there, verified. Raises ConfigError without one, WrongRootKeyError, StoreTamperedError,
    StoreUnavailableError, KeyStoreError, and what protectors raise.
    """
    documents = place.documents()
    raw = documents.find_raw(HEAD)
    if raw is None:
        raise _no_store(place, "a new store")
    version, header = read_unproven_header(documents, raw)
    records = open_header(place, header, protectors, version)
    documents.use_root(records.protection.root)
    documents.check(raw)
    store = VaultKvKeyStore(documents, records)
    store.verify()
    return store


def is_there(place: VaultKvPlace) -> bool:
    """Whether a store is there."""
    return place.documents().find_raw(HEAD) is not None


def create(place: VaultKvPlace, protector: Protector) -> bool:
    """Makes a store with one slot, this protector's. False when somebody else was first. Raises StoreTamperedError for
    documents without a head.
    """
    documents = place.documents()
    require_empty(documents)
    header, records = new_header(protector)
    documents.use_root(records.protection.root)
    return documents.write(HEAD, Head(version=0, format=SCHEMA_VERSION, header=header).to_body(), 0)


def require_empty(documents: VaultDocuments) -> None:
    """Raises StoreTamperedError for documents without a head."""
    there = [name for name in documents.list_all() if name != HEAD]
    if there:
        raise documents.tampered(f"it has {there[0]}, but no head")


def _create_without_file(place: VaultKvPlace, protectors: Sequence[Protector], *, init: bool) -> None:
    """A store that others than a root key file open."""
    if not init:
        raise _no_store(place, "a new store")
    create(place, protectors[0])


def _no_store(place: VaultKvPlace, what: str) -> ConfigError:
    return ConfigError(
        f"{place.label} holds no key store", hint=f"check --keystore; to make {what}, start once with --init"
    )


def _create(place: VaultKvPlace, root_key: Path, *, init: bool) -> None:
    """Makes both, finishes or clears up an interrupted creation, or says why it cannot."""
    check_directory(root_key.parent, "root key file")
    try:
        with directory_locked(root_key.parent):
            _create_locked(place, root_key, init=init)
    except OSError as exc:
        raise StoreUnavailableError(
            f"the root key of key store {place.label} could not be made: {exc.strerror}"
            f" ({exc.filename or root_key.parent})",
            hint=f"see to space and permissions in {root_key.parent}, then start again",
        ) from exc


def _create_locked(place: VaultKvPlace, root_key: Path, *, init: bool) -> None:
    prepared = prepared_name(root_key)
    match (is_there(place), root_key.exists()):
        case (False, False) if init:
            prepared.unlink(missing_ok=True)
            write_new_file(prepared, new_root_key_text())
            sync(root_key.parent)
            # Should the write's outcome be unknown, the file stays: it may be the only root key of a store.
            if not create(place, FileProtector(read_root_key(prepared), root_key)):
                prepared.unlink()
                raise _fetch_root_key(place, root_key)
            install_durably(prepared, root_key)
        case (False, False):
            raise _no_store(place, "a new store and its root key")
        case (True, False) if prepared.exists() and _opens(place, prepared):
            install_durably(prepared, root_key)
        case (True, True):
            prepared.unlink(missing_ok=True)
        case (True, False):
            raise _fetch_root_key(place, root_key)
        case _:
            raise ConfigError(
                f"root key file {root_key} is there, but {place.label} holds no key store",
                hint="restore the store from its backup, or correct --keystore; only if no zone was ever made with"
                " it, move the root key file away and make both with --init",
            )


def _fetch_root_key(place: VaultKvPlace, root_key: Path) -> ConfigError:
    return ConfigError(
        f"key store {place.label} is there, but its root key file {root_key} is not",
        hint="copy the root key file from another instance, or restore it from its backup;"
        " without it no key of the store can be opened",
    )


def _opens(place: VaultKvPlace, root_key: Path) -> bool:
    try:
        open_documents(place, [FileProtector.from_file(root_key)])
    except (ConfigError, WrongRootKeyError, KeyStoreError):
        return False
    return True
