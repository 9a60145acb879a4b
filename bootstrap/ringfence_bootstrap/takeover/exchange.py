"""The takeover of a stock KMS, and the return to it: what each step does and undoes.

Both are runs of `journal`: stop at any point, by an error or by a dead machine, and the KMS that served before serves
again. Both do the slow things while the old KMS still serves, and repeat them once it has stopped for what came in
between: a receipt makes the second pass short. Keys that were made on the new KMS before something failed are carried
back by the undo.

Keys that Vault holds (custody `transit`) can go nowhere. A return is refused while there are any, before it changes
anything; one that is made after that look ends it like any failure. When a takeover is rolled back they stay in our key
store: the stock KMS never had them, and it has to serve again.

Keys move by `ringfence key import` and `key export`, run as commands: this component never touches key material, but
for the DEKs of the proof. Neither service's own configuration files are edited: ours reads the stock KMS's as they are.
"""

from __future__ import annotations

import json
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence_bootstrap.journal import Step, Undo
from ringfence_bootstrap.takeover.key_commands import KeyCommands
from ringfence_bootstrap.takeover.key_file import beside, put_back, put_in_place
from ringfence_bootstrap.takeover.proof import Collected, find_differences
from ringfence_bootstrap.takeover.services import Service, service_from_json
from ringfence_bootstrap.takeover.trial import trial_server
from ringfence_zones.cli.render import listed
from ringfence_zones.durable_file import replace_file
from ringfence_zones.errors import InstallError, KmsError
from ringfence_zones.kms_material import KmsMaterialClient
from ringfence_zones.kms_uri import is_loopback, parse_kms_uri

ANSWER_TIMEOUT_S = 90.0
"""A stock KMS takes six seconds to start, ten times that on a busy machine."""
_POLL_S = 0.1

Connect = Callable[[str], list[KmsMaterialClient]]
"""One client of the KMS at an address for each user that proves."""


@dataclass(frozen=True, slots=True)
class Places:
    """Everything that both directions need to know; what a journal remembers. `password_file` is the stock KMS's.

    `store_password` is the file with the password of the database server that holds our key store, `settings` one with
    what our KMS is to have beside what is written for it: the store's protectors, custody, backups, audit.
    """

    uri: str
    host: str
    port: int
    plain_http: bool
    kms_conf: Path
    stock_keystore: Path
    password_file: Path | None
    keystore: str
    root_key: Path | None
    store_password: Path | None
    config: Path
    state: Path
    stock: Service
    ours: Service
    settings: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """For the journal."""
        return {
            "uri": self.uri,
            "host": self.host,
            "port": self.port,
            "plain_http": self.plain_http,
            "kms_conf": str(self.kms_conf),
            "stock_keystore": str(self.stock_keystore),
            "password_file": _text(self.password_file),
            "keystore": self.keystore,
            "root_key": _text(self.root_key),
            "store_password": _text(self.store_password),
            "config": str(self.config),
            "state": str(self.state),
            "stock": self.stock.to_json(),
            "ours": self.ours.to_json(),
            "settings": _text(self.settings),
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Places:
        """From a journal."""
        return cls(
            uri=str(found["uri"]),
            host=str(found["host"]),
            port=int(found["port"]),
            plain_http=bool(found["plain_http"]),
            kms_conf=Path(found["kms_conf"]),
            stock_keystore=Path(found["stock_keystore"]),
            password_file=_path(found["password_file"]),
            keystore=str(found["keystore"]),
            root_key=_path(found["root_key"]),
            store_password=_path(found["store_password"]),
            config=Path(found["config"]),
            state=Path(found["state"]),
            stock=service_from_json(found["stock"]),
            ours=service_from_json(found["ours"]),
            settings=_path(found.get("settings")),
        )

    @property
    def keys(self) -> KeyCommands:
        """The commands that move keys between the two."""
        return KeyCommands(
            self.keystore, self.root_key, self.store_password, self.password_file, self.state, self.settings
        )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def takeover_steps(places: Places, collected: Collected, connect: Connect) -> list[Step]:
    """From the stock KMS to ours. `collected` was proven by the stock KMS."""
    # A new cluster's stock KMS makes its key store with its first key. One that tells of keys has to have it.
    has_none = not collected.proofs and not collected.unproven

    def bring() -> None:
        places.keys.bring(places.stock_keystore, may_be_missing=has_none)

    return [
        Step("import", "importing the keys", bring),
        Step(
            "configure",
            f"writing {places.config}",
            lambda: _write(places.config, config_text(places)),
            lambda undo: _restore(places.config, undo),
            lambda: _remember(places.config),
        ),
        Step("prove", "proving the keys on our KMS, beside the stock one", lambda: _prove(places, collected, connect)),
        Step(
            "stop-stock",
            f"stopping the stock KMS ({places.stock.describe()})",
            lambda: _stop(places, places.stock),
            lambda _undo: _start_again(places, places.stock, connect, ours=False),
        ),
        Step("import-again", "importing what was added meanwhile", bring),
        Step(
            "start-ours",
            f"starting our KMS ({places.ours.describe()}) on {places.uri}",
            lambda: _start(places, places.ours, connect, ours=True),
            lambda _undo: _give_back(places),
        ),
        Step(
            "verify",
            "verifying through the clients' own address",
            lambda: _verify(connect(places.uri), collected, ours=True),
        ),
    ]


def return_steps(places: Places, collected: Collected, connect: Connect, previous_config: Undo) -> list[Step]:
    """From ours back to the stock KMS. `collected` was proven by ours, `previous_config` is from the takeover."""
    export = _Export(places)
    return [
        Step("export", "exporting the keys", export.write_first, export.discard),
        Step(
            "stop-ours",
            f"stopping our KMS ({places.ours.describe()})",
            lambda: _stop(places, places.ours),
            lambda _undo: _start_again(places, places.ours, connect, ours=True),
        ),
        Step("export-again", "exporting what was added meanwhile", export.write_last, export.discard),
        Step(
            "key-store",
            f"putting the keys into {places.stock_keystore}",
            export.put_in_place,
            lambda undo: put_back(places.stock_keystore, Path(undo["backup"]), is_new=undo.get("is_new", False)),
            lambda: {"backup": str(export.backup), "is_new": not places.stock_keystore.exists()},
        ),
        Step(
            "start-stock",
            f"starting the stock KMS ({places.stock.describe()}) on {places.uri}",
            lambda: _start(places, places.stock, connect, ours=False),
            lambda _undo: _take_back(places),
        ),
        Step(
            "verify",
            "verifying through the clients' own address",
            lambda: _verify(connect(places.uri), collected, ours=False),
        ),
        Step(
            "configuration",
            f"putting {places.config} back as it was",
            lambda: _restore(places.config, previous_config),
            lambda undo: _restore(places.config, undo),
            lambda: _remember(places.config),
        ),
    ]


class _Export:
    """Our keys on their way into the stock KMS's key store: written while ours serves, again when it has stopped."""

    def __init__(self, places: Places, *, without_held: bool = False) -> None:
        self._keys = places.keys
        self._target = places.stock_keystore
        self._first, self._last = (beside(self._target, f"ringfence-{number}") for number in (1, 2))
        self.backup = beside(self._target, f"before-return-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        self._has_changes = False
        self._without_held = without_held
        # What was not written, for Vault holds it.
        self.left_out: tuple[str, ...] = ()

    def write_first(self) -> None:
        self.discard({})  # what a run that died left
        self._has_changes = False
        self._write(self._first, self._target)

    def write_last(self) -> None:
        self._write(self._last, self._first)

    def _write(self, target: Path, base: Path) -> None:
        written = self._keys.write(target, base if base.exists() else None, without_held=self._without_held)
        self._has_changes |= written.has_changes
        self.left_out = written.left_out

    def put_in_place(self) -> None:
        """A key store in which nothing changed stays as it is."""
        if self._has_changes:
            put_in_place(self._last, self._target, self.backup)
        self.discard({})

    def discard(self, _undo: Undo) -> None:
        for path in (self._first, self._last):
            path.unlink(missing_ok=True)


def config_text(places: Places) -> str:
    """Our KMS's configuration: the stock one's files as they are, and where the keys are now."""
    lines = [
        "# Written by ringfence kms takeover; ringfence kms return removes it.",
        "# Everything else is read from the stock KMS's own files: kms-site.xml, kms-acls.xml and core-site.xml.",
        f"hadoop_conf: {json.dumps(str(places.kms_conf))}",
        f"listen: {json.dumps(_listen(places.host, places.port))}",
        f"keystore: {json.dumps(places.keystore)}",
    ]
    if places.root_key is not None:
        lines.append(f"root_key_file: {json.dumps(str(places.root_key))}")
    if places.store_password is not None:
        lines.append(f"keystore_password_file: {json.dumps(str(places.store_password))}")
    if places.plain_http and not is_loopback(places.host):
        lines += ["# As the stock KMS was. Anybody on the network's way can read data keys.", "allow_plain_http: true"]
    return "\n".join(lines) + "\n" + _settings_text(places.settings)


def _settings_text(settings: Path | None) -> str:
    if settings is None:
        return ""
    try:
        return f"# From {settings}:\n{settings.read_text()}"
    except (OSError, ValueError) as error:
        raise InstallError(f"cannot read {settings}: {error}") from error


def _listen(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _prove(places: Places, collected: Collected, connect: Connect) -> None:
    with trial_server(places.config, _listen(places.host, 0), places.keystore, places.state) as port:
        here = parse_kms_uri(places.uri)
        uri = f"kms://{here.scheme}@{here.hosts[0]}:{port}{here.path}"
        _verify(connect(uri), collected, ours=True)


def _verify(clients: Sequence[KmsMaterialClient], collected: Collected, *, ours: bool) -> None:
    with _closing(clients):
        if (clients[0].find_ringfence_status() is not None) is not ours:
            raise InstallError(f"at {clients[0].uri.text} answers {'the stock' if ours else 'our'} KMS still")
        differences = find_differences(collected, clients)
    if differences:
        more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
        raise InstallError(f"{len(collected.proofs)} EDEKs were tried: {differences[0]}{more}")


def _stop(places: Places, service: Service) -> None:
    service.stop()
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while _listens(places):
        if time.monotonic() > deadline:
            raise InstallError(
                f"{service.describe()} was stopped, but port {places.port} is still taken",
                hint=f"ss -ltnp 'sport = :{places.port}' names who listens there",
            )
        time.sleep(_POLL_S)


def _listens(places: Places) -> bool:
    host = parse_kms_uri(places.uri).hosts[0]
    try:
        socket.create_connection((host, places.port), timeout=1).close()
    except OSError:
        return False
    return True


def _start(places: Places, service: Service, connect: Connect, *, ours: bool) -> None:
    service.start()
    clients = connect(places.uri)
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    with _closing(clients):
        while True:
            try:
                if (clients[0].find_ringfence_status() is not None) is ours:
                    return
                why = "another KMS answers"
            except KmsError as error:
                why = error.message
            if time.monotonic() > deadline:
                raise InstallError(f"{service.describe()} was started, but {why}", hint="look at its log")
            time.sleep(_POLL_S)


def _start_again(places: Places, service: Service, connect: Connect, *, ours: bool) -> None:
    """Undoes a stop, which may not have come to its command, or may still be under way.

    Whoever listens is the service itself, the other one is not started yet. It is stopped first: not every start
    command asks whether one is running, and two servers can share a port.
    """
    if _listens(places):
        _stop(places, service)
    _start(places, service, connect, ours=ours)


def _give_back(places: Places) -> str | None:
    """Our KMS stops, and what was made on it meanwhile goes into the stock KMS's key store, if it can."""
    _stop(places, places.ours)
    export = _Export(places, without_held=True)
    export.write_first()
    export.write_last()
    export.put_in_place()
    if not export.left_out:
        return None
    return (
        f"{listed('key', export.left_out)} held by Vault stayed in our key store: the stock KMS cannot have what Vault"
        " holds, and files written with it open again when our KMS serves"
    )


def _take_back(places: Places) -> None:
    """The stock KMS stops, and what was made on it meanwhile comes into our key store."""
    _stop(places, places.stock)
    # Our store has every key that went there; a stock KMS that got none and made none has no key store.
    places.keys.bring(places.stock_keystore, may_be_missing=True)


def _remember(path: Path) -> Undo:
    try:
        return {"previous": path.read_text(), "mode": stat.S_IMODE(path.stat().st_mode)}
    except FileNotFoundError:
        return {"previous": None}
    except (OSError, ValueError) as error:
        raise InstallError(f"cannot read {path}: {error}") from error


def _restore(path: Path, undo: Undo) -> None:
    if undo["previous"] is None:
        path.unlink(missing_ok=True)
    else:
        _write(path, undo["previous"], undo["mode"])


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    """Replaces a file in one step. It holds no secret, and the service's user must read it."""
    try:
        replace_file(path, text.encode(), mode)
    except OSError as error:
        raise InstallError(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def _closing(clients: Sequence[KmsMaterialClient]) -> Iterator[None]:
    try:
        yield
    finally:
        for client in clients:
            client.close()
