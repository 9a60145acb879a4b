"""What a provisioned node is changed by, as steps of one journal: by mode, and by what kind of node it is.

Rules:

1. The address that clients call is the one in the node's own core-site.xml. Over plain HTTP it stays as EMR wrote it.
2. With TLS its scheme changes: on every node core-site.xml is edited, and on a primary the NameNode is restarted once.
   The last step asks the NameNode itself; zones are made only after that.
3. Only a primary's KMS is exchanged. One of three primaries is refused: each would have a key store of its own.
4. Whatever fails, and a death in the middle, ends with the node as EMR left it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from ringfence_bootstrap.journal import Step
from ringfence_bootstrap.node import places
from ringfence_bootstrap.node.accounts import account_step
from ringfence_bootstrap.node.changes import Backups, directory_step, file_step, hadoop_step, write_owned
from ringfence_bootstrap.node.configuration import (
    CLIENTS_ONLY,
    HARDENED_STOCK_KMS,
    RINGFENCE_KMS,
    FileBlock,
    NodeConfig,
    TlsBlock,
    on_this_node,
)
from ringfence_bootstrap.node.exchange_step import HARDENING, TAKEOVER, Exchange
from ringfence_bootstrap.node.facts import (
    PROVIDER_PATH,
    NodeFacts,
    find_kms_conf,
    find_provider_path,
    get_provider_path,
)
from ringfence_bootstrap.node.fetching import fetch
from ringfence_bootstrap.node.keytab import keytab_step
from ringfence_bootstrap.node.systemctl import is_known, systemctl
from ringfence_bootstrap.node.truststore import make_trust_store, trust_properties
from ringfence_bootstrap.node.vault_login import logs_in, vault_login_step
from ringfence_bootstrap.node.waiting import Waiting, hdfs_waits_for, kms_waits_for
from ringfence_zones.cli.render import listed
from ringfence_zones.client_config import is_secure, read_http_access
from ringfence_zones.errors import ConfigError, InstallError, RefusedError, RingfenceError
from ringfence_zones.findings import Rule
from ringfence_zones.hadoop_conf import read_hadoop_conf
from ringfence_zones.http_session import HttpAccess
from ringfence_zones.kms_client import KmsClient
from ringfence_zones.namenodes import find_live_value, namenode_addresses
from ringfence_zones.tls_trust import TlsTrust

_NAMENODE_UNIT = "hadoop-hdfs-namenode.service"
_ANSWER_TIMEOUT_S = 120.0
_POLL_S = 0.2

BESIDE_JOBS = (
    "the key server runs on a primary node, beside jobs: whoever becomes root there (the hadoop user may, by sudo)"
    " reads its memory, its root key and its store. It protects the disks of the core nodes, their replacement and"
    " their images, and separates users whose jobs run without sudo; a pair of key servers off the cluster (mode"
    " clients-only) protects from the rest"
)
CLEAR_WIRE = (
    "clients call the KMS over plain HTTP, as EMR sets it up: whoever reads the cluster's network reads data keys; give"
    " the key server a certificate (kms.tls)"
)


@dataclass(frozen=True, slots=True)
class SetUp:
    """One node's set-up. `say` is told what is waited for; `keytab` is the stock KMS's, where ours needs a copy."""

    config: NodeConfig
    facts: NodeFacts
    conf: Path
    backups: Backups
    say: Callable[[str], None]
    keytab: Path | None = None

    def check(self) -> None:
        """Raises RefusedError for what this version does not set up, ConfigError without a login that it needs."""
        if self.config.mode in (RINGFENCE_KMS, HARDENED_STOCK_KMS) and self.facts.high_availability:
            raise RefusedError(
                "this cluster has three primary nodes, and setting up the KMS of each would leave three key stores that"
                " know nothing of each other",
                rule=Rule.NODE_SET_UP,
                hint="run a pair of key servers off the cluster and set mode: clients-only; or leave EMR's Ranger KMS"
                " as it is with mode: existing-kms",
            )
        if self.facts.is_primary and self.config.kerberos is None and is_secure_cluster(self.conf):
            raise ConfigError(
                "this cluster uses Kerberos, and bootstrap.yaml does not say who the set-up is to the KMS and to HDFS",
                hint="add kerberos: {principal: hdfs/_HOST@REALM, keytab: /etc/hdfs.keytab}; _HOST is the node's name",
            )

    def warnings(self) -> list[str]:
        """What this mode does not protect from on this node, for people."""
        told = []
        if self.config.mode == RINGFENCE_KMS and self.facts.is_primary:
            told.append(BESIDE_JOBS)
            if self.config.kms.tls is None:
                told.append(CLEAR_WIRE)
        elif self.config.mode == HARDENED_STOCK_KMS and self.facts.is_primary:
            told.append(BESIDE_JOBS)
        return told

    def steps(self) -> list[Step]:
        """Everything, in order."""
        if self.config.mode == RINGFENCE_KMS and self.facts.is_primary:
            # Files may be for the key server's user alone.
            steps = [*self._server(), *self._files(), self._client()]
            # After the files, which may be what it logs in with.
            steps += [vault_login_step()] if logs_in(self.config.kms.settings) else []
            steps += [self._exchange().step(), *self._tls_of_server(), *self._address()]
        elif self.config.hardened is not None and self.facts.is_primary:
            secrets = self.config.hardened.password_file.parent
            steps = [directory_step("secrets", secrets, 0o711), *self._files(), self._client()]
            # Core-site.xml and the NameNode change over with it.
            harden = self._hardening().step()
            steps.append(replace(harden, undo=lambda undo: self._with_hdfs(harden.undo(undo))))
        else:
            steps = [*self._files(), self._client(), *self._address()]
        if self.facts.is_primary:
            steps.append(Step("verify", "asking the NameNode for its key provider", self.verify))
        return steps

    def wait(self, waiting: Waiting) -> None:
        """For the services that the steps need. Raises InstallError."""
        if not self.facts.is_primary:
            return
        limits = self.config.wait
        # Of three primaries none may have a KMS.
        if self.config.mode != CLIENTS_ONLY or find_provider_path(self.conf) is not None:
            hint = "systemctl status hadoop-kms on this node, and its log below /var/log/hadoop-kms"
            waiting.until(lambda: kms_waits_for(self.conf, self.config.superuser, self._access), limits.kms, hint)
        waiting.until(
            lambda: hdfs_waits_for(self.conf, self._access), limits.hdfs, "see the log below /var/log/hadoop-hdfs"
        )
        self._check_keys()

    def _check_keys(self) -> None:
        """No key of the KMS that clients call now may be missing where they will call. Raises RefusedError."""
        clients, now = self.config.clients, find_provider_path(self.conf)
        if clients is None or now in (None, clients.uri):
            return
        missing = [name for name in self._key_names(str(now)) if name not in self._key_names(clients.uri)]
        if missing:
            raise RefusedError(
                f"{listed('key', missing)} of {now} {'is' if len(missing) == 1 else 'are'} not in {clients.uri}: files"
                " written with them could not be read any more",
                rule=Rule.NODE_SET_UP,
                hint="import them on a node of the key servers, and leave the hdfs-encryption-zones classification out",
                command=f"ringfence key import --from {now} --keystore URI",
            )

    def _key_names(self, uri: str) -> tuple[str, ...]:
        access = read_http_access(self.conf, os.environ, self.config.login())
        if uri.startswith("kms://https@") and self._ca_file() is not None:
            # client.yaml, which would say so, is not written yet.
            access = HttpAccess(access.kerberos, TlsTrust(self._fetched(self._ca_file()), self.conf))
        with closing(KmsClient(uri, self.config.superuser, access=access)) as client:
            return client.list_key_names()

    def _fetched(self, ca_file: Path | None) -> Path | None:
        """The authority as a file; one that the set-up fetches is fetched for this look."""
        block = next((each for each in self.config.files if each.path == ca_file), None)
        if block is None or ca_file is None or ca_file.exists():
            return ca_file
        path = self.backups.directory.parent / "authority.pem"
        write_owned(path, fetch(block.source, block.sha256), 0o600, None)
        return path

    # -- parts

    def _files(self) -> list[Step]:
        return [
            fetched_file_step(number, each, self.backups)
            for number, each in enumerate(self.config.files)
            if each.nodes == "all" or self.facts.is_primary
        ]

    def _server(self) -> list[Step]:
        steps = [
            account_step(places.KMS_USER, places.KMS_STATE, self.backups),
            directory_step("key-directory", places.KMS_STATE, 0o700, places.KMS_USER, private=True),
            directory_step("log-directory", places.KMS_LOGS, 0o750, places.KMS_USER, private=True),
            unit_step("kms-unit", places.KMS_UNIT, self.backups),
        ]
        if self.keytab is not None:
            steps.append(keytab_step(self.keytab))
        settings = self._settings()
        if settings:
            text = yaml.safe_dump(settings, sort_keys=False)
            steps.append(file_step("kms-settings", places.KMS_SETTINGS, text.encode, self.backups))
        return steps

    def _settings(self) -> dict[str, object]:
        """What our kms.yaml has beside what the takeover writes."""
        own = {} if self.keytab is None else {"keytab_file": str(places.KMS_KEYTAB)}
        return {**self.config.kms.settings, **own}

    def _client(self) -> Step:
        return file_step("client", places.CLIENT_CONFIG, lambda: self.client_text().encode(), self.backups)

    def client_text(self) -> str:
        """client.yaml of this node."""
        found: dict[str, object] = {}
        if self.config.mode == RINGFENCE_KMS and self.facts.is_primary:
            found["kms_admin_socket"] = str(_admin_socket(self.config.kms.keystore))
        ca_file = self._ca_file()
        if ca_file is not None:
            found["kms_ca_file"] = str(ca_file)
        login = self.config.login()
        if login is not None:
            found["kerberos"] = login.model_dump(mode="json")
        return "# Written by ringfence emr node; ringfence uninstall removes it.\n" + yaml.safe_dump(found)

    def _exchange(self) -> Exchange:
        kms = self.config.kms
        options = ["--keystore", kms.keystore, "--config", str(places.KMS_CONFIG), "--unit", places.KMS_UNIT]
        for name, value in (
            ("--kms-conf", find_kms_conf()),
            ("--root-key", kms.root_key_file),
            ("--keystore-password-file", kms.keystore_password_file),
            ("--settings", places.KMS_SETTINGS if self._settings() else None),
        ):
            options += [name, str(value)] if value is not None else []
        keytabs = [on_this_node(each) for each in kms.prove_with]
        by_keytab = [word for each in keytabs for word in ("--prove-with", f"{each.principal}={each.keytab}")]
        proving = (*_proving(kms.prove_as, allow_unproven=kms.allow_unproven), *by_keytab)
        return Exchange(TAKEOVER, places.TAKEOVER_STATE, self._cluster(), tuple(options), proving)

    def _hardening(self) -> Exchange:
        hardened = self.config.hardened
        assert hardened is not None
        options = ["--file", str(hardened.policy), "--password-file", str(hardened.password_file)]
        options += ["--tls-cert", str(hardened.tls.cert), "--tls-key", str(hardened.tls.key)]
        options += ["--tls-ca", str(hardened.tls.ca_file), "--namenode-unit", _NAMENODE_UNIT]
        for name, value in (
            ("--kms-conf", find_kms_conf()),
            ("--backup-to", hardened.backup_to),
            ("--backup-key", hardened.backup_key),
            ("--region", self.facts.region if hardened.backup_to is not None else None),
        ):
            options += [name, str(value)] if value is not None else []
        options += ["--allow-root-volume"] if hardened.allow_root_volume else []
        proving = _proving(hardened.prove_as, allow_unproven=hardened.allow_unproven)
        return Exchange(HARDENING, places.HARDENING_STATE, self._cluster(), tuple(options), proving)

    def _cluster(self) -> tuple[str, ...]:
        """Which cluster, and under simple authentication as whom."""
        user = () if is_secure_cluster(self.conf) else ("--as", self.config.superuser)
        return ("--hadoop-conf", str(self.conf), *user)

    def _tls_of_server(self) -> list[Step]:
        tls = self.config.kms.tls
        if tls is None:
            return []
        added = yaml.safe_dump({"tls": {"cert": str(tls.cert), "key": str(tls.key)}})
        return [
            file_step(
                "kms-tls",
                places.KMS_CONFIG,
                lambda: places.KMS_CONFIG.read_bytes() + added.encode(),
                self.backups,
                then=lambda: systemctl("restart", places.KMS_UNIT),
            )
        ]

    def _address(self) -> list[Step]:
        """The KMS that this node's clients call, where that changes."""
        wanted = self._wanted_uri()
        if wanted is None:
            return []
        steps = self._trust()
        core_site = self.conf / "core-site.xml"
        edit = hadoop_step("core-site", core_site, lambda: {PROVIDER_PATH: wanted(core_site.parent)}, self.backups)
        if not self.facts.is_primary:
            return [*steps, edit]
        return [
            *steps,
            # Undone last: by then core-site.xml is what it was.
            Step("namenode", "noting the NameNode's key provider", lambda: None, lambda _undo: self._take_up()),
            edit,
            Step("restart", "restarting the NameNode", self._restart_namenode),
        ]

    def _wanted_uri(self) -> Callable[[Path], str] | None:
        clients = self.config.clients
        if clients is not None:
            return lambda _conf: clients.uri
        if self._tls() is not None:
            return lambda conf: get_provider_path(conf).replace("kms://http@", "kms://https@", 1)
        return None

    def _trust(self) -> list[Step]:
        """Java's clients trust what ssl-client.xml names."""
        ca_file = self._ca_file()
        if ca_file is None:
            return []
        path = self.conf / "ssl-client.xml"
        return [
            file_step("trust-store", places.TRUST_STORE, lambda: make_trust_store(ca_file), self.backups),
            hadoop_step("ssl-client", path, lambda: trust_properties(path), self.backups),
        ]

    def _ca_file(self) -> Path | None:
        if self.config.clients is not None:
            return self.config.clients.ca_file
        tls = self._tls()
        return tls.ca_file if tls is not None else None

    def _tls(self) -> TlsBlock | None:
        return self.config.hardened.tls if self.config.hardened is not None else self.config.kms.tls

    def _access(self) -> HttpAccess:
        return read_http_access(self.conf, os.environ, self.config.login())

    # -- the NameNode

    def _restart_namenode(self) -> None:
        systemctl("restart", _NAMENODE_UNIT)
        self._wait_for_hdfs()

    def _with_hdfs(self, told: str | None) -> str | None:
        """Whoever started the NameNode again did not wait until it knew its blocks."""
        self._wait_for_hdfs()
        return told

    def _wait_for_hdfs(self) -> None:
        Waiting(lambda missing: self.say(f"waiting for {missing}")).until(
            lambda: hdfs_waits_for(self.conf, self._access),
            self.config.wait.hdfs,
            f"systemctl status {_NAMENODE_UNIT}, and its log below /var/log/hadoop-hdfs",
        )

    def _take_up(self) -> None:
        """The NameNode goes by core-site.xml as it is now."""
        if is_known(_NAMENODE_UNIT) and self._providers() != {get_provider_path(self.conf)}:
            self._restart_namenode()

    def _providers(self) -> set[str | None]:
        """What each NameNode holds; None for one that does not tell."""
        conf = read_hadoop_conf(self.conf, "core-site.xml", "hdfs-site.xml")
        live = [find_live_value(each, PROVIDER_PATH, self._access()) for each in namenode_addresses(conf)]
        return {None if each is None else each.value for each in live}

    def verify(self) -> None:
        """The NameNode's key provider is the address in core-site.xml, and who answers there is who should.

        Raises InstallError.
        """
        uri = get_provider_path(self.conf)
        different = self._providers() - {uri, None}
        if different:
            names = ", ".join(sorted(filter(None, different)))
            raise InstallError(
                f"the NameNode's key provider is {names}, and core-site.xml says {uri}",
                hint="it reads core-site.xml when it starts",
                command=f"systemctl restart {_NAMENODE_UNIT}",
            )
        deadline = time.monotonic() + _ANSWER_TIMEOUT_S
        while (problem := self._kms_problem(uri)) is not None:
            if time.monotonic() > deadline:
                raise InstallError(problem, hint=f"systemctl status {places.KMS_UNIT}")
            time.sleep(_POLL_S)

    def _kms_problem(self, uri: str) -> str | None:
        try:
            with closing(KmsClient(uri, self.config.superuser, access=self._access())) as client:
                client.list_key_names()
                is_ours = client.find_ringfence_status() is not None
        except RingfenceError as error:
            return error.message
        return f"another KMS than ours answers at {uri}" if self.config.mode == RINGFENCE_KMS and not is_ours else None


def _proving(users: list[str], *, allow_unproven: bool) -> tuple[str, ...]:
    named = [word for user in users for word in ("--prove-as", user)]
    return (*named, *(["--allow-unproven"] if allow_unproven else []))


def fetched_file_step(number: int, fetched: FileBlock, backups: Backups) -> Step:
    """One of `files` in bootstrap.yaml."""
    return file_step(
        f"file-{number}",
        fetched.path,
        lambda: fetch(fetched.source, fetched.sha256),
        backups,
        mode=int(fetched.mode, 8),
        owner=fetched.owner,
    )


def unit_step(name: str, unit: str, backups: Backups) -> Step:
    """One of our units, as this installation brings it."""
    return file_step(
        name, places.UNITS / unit, lambda: _shipped(unit), backups, then=lambda: systemctl("daemon-reload")
    )


def _shipped(unit: str) -> bytes:
    try:
        return (places.SHIPPED_UNITS / unit).read_bytes()
    except OSError as error:
        raise InstallError(
            f"this installation brings no {unit}: {error.strerror}", hint="install it with the bootstrap action"
        ) from error


def is_secure_cluster(conf: Path) -> bool:
    """Whether the cluster uses Kerberos; False while Hadoop's files are not there."""
    return (conf / "core-site.xml").exists() and is_secure(conf)


def _admin_socket(keystore: str) -> Path:
    """Where the key server listens for administrators on its own machine, as it chooses it itself."""
    is_file, _, path = keystore.partition("sqlite:///")
    if not is_file and path:
        return Path(path + ".sock")
    return places.KMS_STATE / "kms.sock"
