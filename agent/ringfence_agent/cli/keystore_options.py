"""Options by which commands find a key store and what opens it: as `kms serve` would, or named on the command line."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

import click

from ringfence_agent import process_hygiene
from ringfence_agent.cli.kms_options import config_option, keystore_option, root_key_option
from ringfence_agent.keystore.held import HeldVersion
from ringfence_agent.keystore.open import default_root_key, local_path, open_protected
from ringfence_agent.keystore.ownership import acting_as_owner
from ringfence_agent.keystore.protected_store import ProtectedStore
from ringfence_agent.keystore.protector import Protector
from ringfence_agent.keystore.protectors.file import FileProtector
from ringfence_agent.kms.audit.config import AuditBlock, audit_settings
from ringfence_agent.kms.config import Options, StoreSettings, default_file, load_store_settings
from ringfence_agent.kms.protector_config import FILE_ONLY, open_protectors
from ringfence_zones.cli.context import hadoop_conf_given
from ringfence_zones.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")

_FILE = click.Path(path_type=Path)


@dataclass(frozen=True)
class StorePlace:
    """Which store a command works on, as it was told."""

    options: Options

    @functools.cached_property
    def settings(self) -> StoreSettings:
        """From kms.yaml and the command's options. Raises ConfigError."""
        return load_store_settings(self.options)

    @functools.cached_property
    def backup_settings(self) -> StoreSettings:
        """As `settings`, for a command that opens a backup: there a root key file that is named will do, and
        `keystore` may be empty.
        """
        options = self.options
        is_alone = not (options.config or options.hadoop_conf or options.keystore or default_file().exists())
        if not is_alone or options.root_key is None:
            return self.settings
        return StoreSettings(
            keystore="",
            root_key=options.root_key,
            keystore_password_file=None,
            protectors=FILE_ONLY,
            backup=None,
            audit_directory=audit_settings(AuditBlock(), None).directory,
        )

    def at(self, uri: str | None) -> StorePlace:
        """The store at another URI, when one is given."""
        return self if uri is None else StorePlace(replace(self.options, keystore=uri))

    @contextmanager
    def opened(self) -> Iterator[ProtectedStore]:
        """The store that is there, with the rights of its owner; none is made."""
        process_hygiene.forbid_core_dumps()
        found = self.settings
        with acting_as_owner(found.keystore, found.protectors.vault):
            path = local_path(found.keystore)
            if path is not None and not path.exists():
                raise ConfigError(f"there is no key store {path}", hint="check --keystore")
            protectors = open_protectors(found.protectors)
            password, vault = found.keystore_password_file, found.protectors.vault
            store = open_protected(found.keystore, found.root_key, False, password, protectors, vault)
            with closing(store):
                yield store

    def list_held(self) -> Sequence[HeldVersion]:
        """Every version that Vault holds, as the store that is there has it on record, those of deleted keys too."""
        with self.opened() as store, store.snapshot() as snapshot:
            return snapshot.held


def protectors_of(settings: StoreSettings) -> list[Protector]:
    """All that were named, the root key file first. Raises ConfigError and what `open_protectors` does."""
    opened = open_protectors(settings.protectors)
    if not opened.with_file:
        return list(opened.others)
    return [FileProtector.from_file(root_key_of(settings)), *opened.others]


def root_key_of(settings: StoreSettings) -> Path:
    """The root key file of a store, whether it is there or not. Raises ConfigError when none is named."""
    root_key, path = settings.root_key, local_path(settings.keystore) if settings.keystore else None
    if root_key is None and path is not None:
        root_key = default_root_key(path)
    if root_key is None:
        raise ConfigError("no root key file is named", hint="name it with --root-key FILE")
    return root_key


def store_options(command: Callable[P, R]) -> Callable[..., R]:
    """The options that say which store; the command gets them as `place`."""

    @config_option
    @keystore_option
    @root_key_option
    @click.option("--keystore-password-file", type=_FILE, metavar="FILE", help="password for a database server")
    @functools.wraps(command)
    def with_place(
        *args: object,
        config: Path | None,
        keystore: str | None,
        root_key: Path | None,
        keystore_password_file: Path | None,
        **rest: object,
    ) -> R:
        options = Options(
            config=config,
            hadoop_conf=hadoop_conf_given(),
            keystore=keystore,
            root_key=root_key,
            keystore_password_file=keystore_password_file,
        )
        return cast("Callable[..., R]", command)(*args, place=StorePlace(options), **rest)

    return with_place
