"""A node's whole way: install (by the bootstrap action), set up (by the waiter, later), uninstall.

Each of the first two is a run of `journal` with a journal of its own, and both may be repeated at any time: what a run
that died left is rolled back first, what is done is left alone. Uninstalling rolls both back, the last first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence_bootstrap.journal import DONE, ROLLED_BACK, RUNNING, Journal, Step, locked, roll_back, run
from ringfence_bootstrap.node import places
from ringfence_bootstrap.node.changes import Backups, directory_step, file_step, write_owned
from ringfence_bootstrap.node.configuration import KEY_SERVER, NodeConfig, parse_node_config
from ringfence_bootstrap.node.facts import (
    NodeFacts,
    Provisioning,
    find_kms_conf,
    hadoop_conf,
    is_emr_node,
    read_node_facts,
)
from ringfence_bootstrap.node.key_server import KeyServerSetUp, check_machine, key_server_facts
from ringfence_bootstrap.node.keytab import find_stock_keytab
from ringfence_bootstrap.node.setting_up import SetUp, unit_step
from ringfence_bootstrap.node.status import DONE as SET_UP
from ringfence_bootstrap.node.status import FAILED, WAITING, WORKING, StatusFile, failure
from ringfence_bootstrap.node.systemctl import is_known, systemctl
from ringfence_bootstrap.node.waiting import Waiting, provisioning_waits_for
from ringfence_zones.errors import ConfigError, InstallError, RingfenceError

Say = Callable[[str], None]

_FINISH = places.STATE / "finish-uninstall"
_FINISH_SCRIPT = """#!/bin/sh
# The end of `ringfence uninstall`, for when it was killed in the middle of its own files.
rm -rf {home}
rm -rf {state}
"""


def _install_journal() -> Journal:
    return Journal(places.JOURNALS / "install.json")


def _set_up_journal() -> Journal:
    return Journal(places.JOURNALS / "set-up.json")


def install(config: NodeConfig, text: str, say: Say) -> bool:
    """What can be done before Hadoop is there; then the waiter is started. False when it was done before.

    Raises ConfigError when this node was installed with another configuration, and the errors of `journal.run`.
    """
    if config.mode == KEY_SERVER:
        check_machine()
    elif not is_emr_node():
        raise ConfigError(
            "this machine is no node of an EMR cluster: there is no /mnt/var/lib/info",
            hint="mode: key-server is for a machine of your own; `ringfence kms takeover` for other clusters",
        )
    is_new = not _was_installed(text)
    if is_new:
        with locked(places.JOURNALS):
            places.STATE.chmod(0o755)  # the status in it is for everybody
            journal = _install_journal()
            found = journal.find()
            if found is not None and found[0] == RUNNING:
                roll_back(journal, _install_steps(str(found[1]["config"])), "an earlier install was interrupted", say)
            run(journal, {"config": text}, _install_steps(text), say)
            StatusFile(places.STATUS, config.status).write(WAITING, _facts(config), waiting_for="the waiter")
    systemctl("start", "--no-block", places.WAITER_UNIT)
    return is_new


def _was_installed(text: str) -> bool:
    """Without the lock, which the waiter may hold: what is done is not changed but by uninstalling."""
    found = _install_journal().find() if places.JOURNALS.is_dir() else None
    if found is None or found[0] != DONE:
        return False
    if found[1]["config"] != text:
        raise ConfigError(
            "this node was set up with another bootstrap.yaml",
            hint="return it to what it was first, then run the bootstrap action again",
            command="ringfence uninstall --yes",
        )
    return True


def _install_steps(text: str) -> list[Step]:
    backups = Backups(places.JOURNALS / "install-files")
    return [
        directory_step("settings", places.SETTINGS, 0o755),
        file_step("configuration", places.BOOTSTRAP_CONFIG, text.encode, backups),
        unit_step("waiter-unit", places.WAITER_UNIT, backups),
        Step(
            "enable",
            f"enabling {places.WAITER_UNIT}",
            lambda: _systemctl("enable", places.WAITER_UNIT),
            lambda _undo: _disable(places.WAITER_UNIT),
        ),
    ]


def _systemctl(*arguments: str) -> None:
    systemctl(*arguments)


def _disable(unit: str) -> None:
    if is_known(unit):
        systemctl("disable", unit)


def set_up(config: NodeConfig, text: str, say: Say) -> bool:
    """Waits for EMR and Hadoop, then changes the node. False when it was done before.

    The status object says how far it is. Raises InstallError when something did not come in time, RefusedError for a
    node that the mode does not fit, and the errors of `journal.run`.
    """
    status = StatusFile(places.STATUS, config.status)
    try:
        with locked(places.JOURNALS):
            journal = _set_up_journal()
            found = journal.find()
            if found is not None and found[0] == DONE:
                return False
            if found is not None and found[0] == RUNNING:
                _undo_set_up(journal, found[1], "an earlier set-up was interrupted", say)
        # Not while it waits: that may be an hour.
        prepared = _wait(config, status, say)
        with locked(places.JOURNALS):
            status.write(WORKING, prepared.facts, mode=config.mode)
            keytab = prepared.keytab if isinstance(prepared, SetUp) else None
            facts = prepared.facts.to_json()
            details = {"config": text, "facts": facts, "kms_keytab": None if keytab is None else str(keytab)}
            run(journal, details, prepared.steps(), say)
            steps = [name for name, _ in reversed(journal.begun())]
            status.write(SET_UP, prepared.facts, mode=config.mode, warnings=prepared.warnings(), steps=steps)
    except RingfenceError as error:
        status.write(FAILED, _facts(config), mode=config.mode, error=failure(error))
        raise
    return True


def _facts(config: NodeConfig) -> NodeFacts:
    return key_server_facts() if config.mode == KEY_SERVER else read_node_facts()


def _wait(config: NodeConfig, status: StatusFile, say: Say) -> SetUp | KeyServerSetUp:
    def waits(missing: str) -> None:
        say(f"waiting for {missing}")
        status.write(WAITING, read_node_facts(), mode=config.mode, waiting_for=missing)

    waiting = Waiting(waits)
    if config.mode != KEY_SERVER:
        hint = "see /mnt/var/log/provision-node on this node, and its stderr"
        waiting.until(provisioning_waits_for, config.wait.provisioning, hint)
    facts = _facts(config)
    prepared = _prepare(config, facts, say, _keytab(config, facts))
    prepared.check()
    for warning in prepared.warnings():
        say(f"note: {warning}")
    prepared.wait(waiting)
    return prepared


def _keytab(config: NodeConfig, facts: NodeFacts) -> Path | None:
    return find_stock_keytab(config, find_kms_conf()) if facts.is_primary else None


def _prepare(
    config: NodeConfig, facts: NodeFacts, say: Say, keytab: Path | None, *, delete_keys: bool = False
) -> SetUp | KeyServerSetUp:
    backups = Backups(places.JOURNALS / "set-up-files")
    if config.mode == KEY_SERVER:
        return KeyServerSetUp(config, facts, backups, say, delete_keys)
    return SetUp(config, facts, hadoop_conf(), backups, say, keytab)


def _prepare_again(details: Mapping[str, Any], say: Say, *, delete_keys: bool = False) -> SetUp | KeyServerSetUp:
    """The set-up of a journal."""
    facts = NodeFacts(**details["facts"], provisioning=Provisioning.SUCCESSFUL)
    found = details.get("kms_keytab")
    keytab = None if found is None else Path(found)
    return _prepare(parse_node_config(details["config"]), facts, say, keytab, delete_keys=delete_keys)


def _undo_set_up(journal: Journal, details: Mapping[str, Any], why: str, say: Say) -> str:
    return roll_back(journal, _prepare_again(details, say).steps(), why, say)


@dataclass(frozen=True, slots=True)
class Installed:
    """What `uninstall` would undo: names of steps in the order in which they are undone."""

    set_up: tuple[str, ...]
    install: tuple[str, ...]


def find_installed() -> Installed | None:
    """None when this node was never set up, or is not any more."""
    if not places.JOURNALS.is_dir():
        return None
    found = []
    for journal in (_set_up_journal(), _install_journal()):
        state = journal.find()
        found.append(tuple(name for name, _ in journal.begun()) if state is not None else ())
    return Installed(*found)


def check_uninstall(*, delete_keys: bool) -> None:
    """Raises ConfigError when a key server's only copy of keys would go without `delete_keys`."""
    journal = _set_up_journal()
    found = journal.find()
    if found is None or found[0] == ROLLED_BACK:
        return
    prepared = _prepare_again(found[1], lambda _text: None, delete_keys=delete_keys)
    if isinstance(prepared, KeyServerSetUp):
        prepared.check_uninstall(dict(journal.begun()))


def uninstall(say: Say, *, delete_keys: bool = False) -> str:
    """The node as it was before the bootstrap action; what people should know afterwards.

    Raises what `check_uninstall` raises, and NotRolledBackError: then the same call goes on where this one stopped.
    """
    check_uninstall(delete_keys=delete_keys)
    if is_known(places.WAITER_UNIT):
        systemctl("stop", places.WAITER_UNIT)
    told = ""
    with locked(places.JOURNALS):
        set_up_journal, install_journal = _set_up_journal(), _install_journal()
        found = set_up_journal.find()
        if found is not None and found[0] != ROLLED_BACK:
            steps = _prepare_again(found[1], say, delete_keys=delete_keys).steps()
            told += roll_back(set_up_journal, steps, "uninstalling", say)
        found = install_journal.find()
        if found is not None and found[0] != ROLLED_BACK:
            steps = _install_steps(str(found[1]["config"]))
            told += roll_back(install_journal, steps, "uninstalling", say)
        _remove_ourselves()
    return told.removeprefix("; ")


def _remove_ourselves() -> None:
    """The last of it: this program's own files. Whatever dies, the script that is left finishes it."""
    write_owned(
        _FINISH,
        _FINISH_SCRIPT.format(home=places.HOME, state=places.STATE).encode(),
        0o700,
        None,
    )


def finish_uninstall() -> None:
    """Does not return: this process becomes the script that removes its files. Raises InstallError."""
    try:
        os.execv("/bin/sh", ["/bin/sh", str(_FINISH)])  # noqa: S606 - our own script, of fixed paths
    except OSError as error:
        raise InstallError(f"cannot run {_FINISH}: {error.strerror}") from error
