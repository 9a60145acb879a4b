"""Options by which commands find a key store and what opens it: as `kms serve` would, or named on the command line."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from ringfence_agent.cli.kms_options import config_option, keystore_option, root_key_option
from ringfence_agent.keystore.open import default_root_key, local_path, open_protected
from ringfence_agent.keystore.protector import Protector
from ringfence_agent.keystore.protectors.file import FileProtector
from ringfence_agent.keystore.sql.store import SqlKeyStore
from ringfence_agent.kms.config import Options, default_file, load_store_settings
from ringfence_agent.kms.keeping_config import BackupSettings
from ringfence_agent.kms.protector_config import ProtectorSettings, open_protectors
from ringfence_zones.cli.context import hadoop_conf_given
from ringfence_zones.errors import ConfigError

R = TypeVar("R")

_NO_AUDIT = Path("/var/log/ringfence/kms.audit.d")


@dataclass(frozen=True, slots=True)
class FoundStore:
    """A key store that was named, whether it is there or not. `uri` is empty when only a root key file was."""

    uri: str
    root_key: Path | None
    password_file: Path | None
    settings: ProtectorSettings
    backup: BackupSettings | None
    audit_directory: Path

    def open(self) -> SqlKeyStore:
        """The store that is there. Raises what `open_keystore` does; makes none."""
        path = local_path(self.uri)
        if path is not None and not path.exists():
            raise ConfigError(f"there is no key store {path}", hint="check --keystore")
        return open_protected(self.uri, self.root_key, False, self.password_file, open_protectors(self.settings))

    def protectors(self) -> list[Protector]:
        """All that were named, the root key file first. Raises ConfigError and what `open_protectors` does."""
        opened = open_protectors(self.settings)
        others = list(opened.others)
        return [FileProtector.from_file(self._root_key_file()), *others] if opened.with_file else others

    def _root_key_file(self) -> Path:
        if self.root_key is not None:
            return self.root_key
        path = local_path(self.uri)
        if path is None:
            raise ConfigError("no root key file is named", hint="name it with --root-key FILE")
        return default_root_key(path)


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What the command line says."""

    config: Path | None
    keystore: str | None
    root_key: Path | None
    password_file: Path | None

    def find(self, *, uri: str | None = None, needs_store: bool = True) -> FoundStore:
        """The store, at `uri` when that is given. Without `needs_store` a root key file alone will do.

        Raises ConfigError.
        """
        keystore, hadoop_conf = uri or self.keystore, hadoop_conf_given()
        nothing_else = self.config is None and hadoop_conf is None and not default_file().exists()
        if not needs_store and keystore is None and nothing_else and self.root_key is not None:
            return FoundStore("", self.root_key, None, ProtectorSettings(), None, _NO_AUDIT)
        options = Options(
            config=self.config,
            hadoop_conf=hadoop_conf,
            keystore=keystore,
            root_key=self.root_key,
            keystore_password_file=self.password_file,
        )
        found = load_store_settings(options)
        return FoundStore(
            found.keystore,
            found.root_key,
            found.keystore_password_file,
            found.protectors,
            found.backup,
            found.audit_directory,
        )


def store_options(command: Callable[..., R]) -> Callable[..., R]:
    """Adds the options, which a command receives as `store`."""

    @functools.wraps(command)
    def wrapper(*args: Any, config: Path | None, keystore: str | None, **others: Any) -> R:
        root_key, password_file = others.pop("root_key"), others.pop("keystore_password_file")
        return command(*args, store=StoreOptions(config, keystore, root_key, password_file), **others)

    decorated: Callable[..., R] = wrapper
    for option in (
        click.option(
            "--keystore-password-file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="password for a database server, mode 0600",
        ),
        root_key_option,
        keystore_option,
        config_option,
    ):
        decorated = option(decorated)
    return decorated
