"""What has changed on a node since it was set up: an OVERWRITE reconfiguration, a package update, a helpful hand.

It reads the journal, the files and systemd, asks the KMS and the NameNode, and changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from ringfence_bootstrap.journal import DONE, Journal
from ringfence_bootstrap.node import places
from ringfence_bootstrap.node.configuration import KEY_SERVER, RINGFENCE_KMS, NodeConfig
from ringfence_bootstrap.node.facts import PROVIDER_PATH, find_provider_path
from ringfence_bootstrap.node.key_server import find_server_problems
from ringfence_bootstrap.node.keytab import find_stale_copy
from ringfence_bootstrap.takeover.key_commands import ringfence_command
from ringfence_bootstrap.takeover.services import is_masked
from ringfence_zones.client_config import read_http_access
from ringfence_zones.errors import InstallError, RingfenceError
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.hadoop_conf import read_hadoop_conf
from ringfence_zones.hadoop_xml import read_document, read_properties
from ringfence_zones.http_session import HttpAccess
from ringfence_zones.kms_client import KmsClient
from ringfence_zones.namenodes import find_live_value, namenode_addresses

_TIMEOUT_S = 300
_AGAIN = "ringfence uninstall --yes"


def find_drift(conf: Path, config: NodeConfig) -> list[Finding]:
    """Raises ConfigError for files that cannot be read at all."""
    journal = Journal(places.JOURNALS / "set-up.json")
    found = journal.find() if places.JOURNALS.is_dir() else None
    if found is None or found[0] != DONE:
        state = "was not begun" if found is None else f"is {found[0]}"
        return [
            Finding(
                severity=Severity.ERROR,
                rule=Rule.NODE_UNFINISHED,
                path=str(places.STATUS),
                message=f"the set-up of this node {state}",
                hint="the status and the unit's log say what it waits for or why it failed",
                command=f"journalctl -u {places.WAITER_UNIT}",
            )
        ]
    undo = dict(journal.begun())
    if config.mode == KEY_SERVER:
        return [*_our_files(config, undo), *find_server_problems()]
    files = [*_hadoop_files(conf, undo), *_our_files(config, undo)]
    if "kms-keytab" in undo:
        files += find_stale_copy(Path(undo["kms-keytab"]["source"]))
    return [*files, *_stock_unit(undo), *_hardening(undo, conf), *_services(conf, config)]


def _hadoop_files(conf: Path, undo: Mapping[str, Any]) -> Iterator[Finding]:
    for name, path in (("core-site", conf / "core-site.xml"), ("ssl-client", conf / "ssl-client.xml")):
        if name not in undo:
            continue
        known = read_properties(read_document(path)) if path.exists() else {}
        for each, value in undo[name]["values"].items():
            now = known[each].value if each in known else None
            if now != value:
                yield Finding(
                    severity=Severity.ERROR,
                    rule=Rule.NODE_OVERWRITTEN,
                    path=str(path),
                    message=f"{each} is {'not set' if now is None else now}, and the set-up wrote {value}",
                    hint="a reconfiguration of the cluster wrote the file anew: undo the set-up and run the bootstrap"
                    " action again, or give the value by a classification",
                    command=_AGAIN,
                )


def _our_files(config: NodeConfig, undo: Mapping[str, Any]) -> Iterator[Finding]:
    written = {
        "client": places.CLIENT_CONFIG,
        "kms-unit": places.UNITS / places.KMS_UNIT,
        "kms-settings": places.KMS_SETTINGS,
        "kms-config": places.KMS_CONFIG,
        "kms-tls": places.KMS_CONFIG,
        "trust-store": places.TRUST_STORE,
    } | {f"file-{number}": each.path for number, each in enumerate(config.files)}
    for name, path in written.items():
        if name not in undo:
            continue
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
        if digest != undo[name]["digest"]:
            yield Finding(
                severity=Severity.WARN,
                rule=Rule.NODE_OVERWRITTEN,
                path=str(path),
                message="the file is gone" if digest is None else "the file is not as the set-up wrote it",
                hint="put it back, or undo the set-up and run the bootstrap action again",
                command=_AGAIN,
            )


def _stock_unit(undo: Mapping[str, Any]) -> Iterator[Finding]:
    unit = _exchanged_unit() if "takeover" in undo else None
    if unit is not None and not is_masked(unit):
        yield Finding(
            severity=Severity.ERROR,
            rule=Rule.NODE_STOCK_UNIT,
            path=str(places.UNITS / unit),
            message=f"{unit} is not masked any more: whoever starts it has two key servers, with different keys",
            hint="stop and mask it again",
            command=f"systemctl stop {unit}",
        )


def _hardening(undo: Mapping[str, Any], conf: Path) -> list[Finding]:
    """What `ringfence kms harden check` finds: it knows what it wrote. Raises InstallError when it does not run."""
    if "harden" not in undo:
        return []
    command = [ringfence_command(), "kms", "harden", "check", "--json", "--hadoop-conf", str(conf)]
    command += ["--state-dir", str(places.HARDENING_STATE)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
        found = json.loads(done.stdout)["findings"]
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
        raise InstallError("ringfence kms harden check did not say what it found", hint="run it by itself") from error
    findings = []
    for each in found:
        rule = Rule.find_rule(each["rule"])
        assert rule is not None  # the same installation wrote it
        texts = {name: each[name] for name in ("path", "message", "hint", "key", "command") if name in each}
        findings.append(Finding(severity=Severity(each["severity"]), rule=rule, **texts))
    return findings


def _exchanged_unit() -> str | None:
    try:
        found = json.loads((places.TAKEOVER_STATE / "takeover.json").read_text())
        return str(found["details"]["stock"]["unit"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _services(conf: Path, config: NodeConfig) -> Iterator[Finding]:
    uri = find_provider_path(conf)
    if uri is None:
        yield _provider(conf, f"core-site.xml names no KMS: {PROVIDER_PATH} is not set")
        return
    access = read_http_access(conf, os.environ, config.login())
    problem = _kms_problem(uri, config, access)
    if problem is not None:
        yield Finding(
            severity=Severity.ERROR,
            rule=Rule.KMS_UNREACHABLE,
            path=uri,
            message=problem,
            hint="is its service running, and does the network let this node through?",
            command=f"systemctl status {places.KMS_UNIT}" if config.mode == RINGFENCE_KMS else None,
        )
    for address in namenode_addresses(read_hadoop_conf(conf, "core-site.xml", "hdfs-site.xml")):
        live = find_live_value(address, PROVIDER_PATH, access)
        if live is not None and live.value != uri:
            yield _provider(
                conf, f"the NameNode {address.rpc} has {live.value or 'none'}, and core-site.xml says {uri}"
            )


def _provider(conf: Path, message: str) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        rule=Rule.NODE_PROVIDER,
        path=str(conf / "core-site.xml"),
        message=message,
        hint="the NameNode reads core-site.xml when it starts: restart it on its own node",
        command="systemctl restart hadoop-hdfs-namenode",
    )


def _kms_problem(uri: str, config: NodeConfig, access: HttpAccess) -> str | None:
    try:
        with closing(KmsClient(uri, config.superuser, access=access)) as client:
            client.list_key_names()
            is_ours = client.find_ringfence_status() is not None
    except RingfenceError as error:
        return error.message
    return "another KMS than ours answers there" if config.mode == RINGFENCE_KMS and not is_ours else None
