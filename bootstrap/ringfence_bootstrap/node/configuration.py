"""`bootstrap.yaml`: the one document that a node's bootstrap action takes. packaging/docs/bootstrap.yaml shows it all.

It holds no secret and names none but by file. The bootstrap action's shell reads two of its lines (`wheelhouse`,
`wheelhouse_sha256`) before anything of ours runs, so each stands on a line of its own.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from ringfence_zones.config_file import AbsolutePath, ConfigModel, DurationS, parse_config, read_config
from ringfence_zones.errors import ConfigError
from ringfence_zones.kerberos import KerberosKeytab
from ringfence_zones.kms_uri import is_loopback, parse_kms_uri

RINGFENCE_KMS = "ringfence-kms"
CLIENTS_ONLY = "clients-only"
HARDENED_STOCK_KMS = "hardened-stock-kms"
KEY_SERVER = "key-server"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_S3 = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\s]*)?")
_OUR_DIRECTORY = Path("/etc/ringfence")
# What the set-up writes into kms.yaml itself, from `kms` here and, in a takeover, from the stock KMS's own settings.
_TAKEN = ("listen", "keystore", "keystore_password_file", "root_key_file", "allow_plain_http", "tls")


def _sha256(text: str) -> str:
    if _SHA256.fullmatch(text) is None:
        raise ValueError("must be 64 hexadecimal digits in lower case, as sha256sum prints them")
    return text


def _source(text: str) -> str:
    if _S3.fullmatch(text) is None and not Path(text.removeprefix("file://")).is_absolute():
        raise ValueError("must be an s3://BUCKET/... address or an absolute path")
    return text


def _s3(text: str) -> str:
    if _S3.fullmatch(text) is None:
        raise ValueError("must be an s3://BUCKET/... address")
    return text


def _kms_uri(text: str) -> str:
    try:
        parse_kms_uri(text)
    except ConfigError as error:
        raise ValueError(f"must have the form {(error.hint or '').partition('form ')[2]}") from None
    return text


def _listen(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("must be HOST:PORT")
    return text


def _ours(path: Path) -> Path:
    if path.parent != _OUR_DIRECTORY or path.name == "bootstrap.yaml":
        raise ValueError(f"must be a file of its own in {_OUR_DIRECTORY}")
    return path


Sha256 = Annotated[str, AfterValidator(_sha256)]
Source = Annotated[str, AfterValidator(_source)]


class FileBlock(ConfigModel):
    """A file that the node fetches: a certificate, a password file. `owner` is a user of the node.

    One document goes to every node: what only the key server needs is for `primary` nodes.
    """

    source: Source
    path: Annotated[AbsolutePath, AfterValidator(_ours)]
    owner: str = "root"
    mode: Annotated[str, Field(pattern=r"^0[0-7]{3}$")] = "0600"
    sha256: Sha256 | None = None
    nodes: Literal["all", "primary"] = "all"


class TlsBlock(ConfigModel):
    """The key server's certificate; clients on every node then call `https`."""

    cert: AbsolutePath
    key: AbsolutePath
    ca_file: AbsolutePath | None = None


class KmsBlock(ConfigModel):
    """For `mode: ringfence-kms`, and with `listen`, `allow_plain_http` and `init` for `mode: key-server`."""

    listen: Annotated[str, AfterValidator(_listen)] | None = None
    allow_plain_http: bool = False
    init: bool = False
    keystore: str = "sqlite:////var/lib/ringfence/keys.db"
    keystore_password_file: AbsolutePath | None = None
    root_key_file: AbsolutePath | None = None
    prove_as: list[str] = Field(default=[])
    prove_with: list[KerberosKeytab] = Field(default=[])
    allow_unproven: bool = False
    tls: TlsBlock | None = None
    settings: dict[str, Any] = Field(default={})

    @model_validator(mode="after")
    def _settings_of_others(self) -> KmsBlock:
        taken = [name for name in _TAKEN if name in self.settings]
        if taken:
            raise ValueError(
                f"settings: {', '.join(taken)} cannot stand here: the node takes them from the other settings of kms"
                " and, where it takes a stock KMS's place, from that one's files"
            )
        return self


class HardenedTlsBlock(TlsBlock):
    """As TlsBlock; the authority is needed, because every client is told to trust it."""

    ca_file: AbsolutePath


class HardenedBlock(ConfigModel):
    """For `mode: hardened-stock-kms`: what `ringfence kms harden` is given."""

    policy: AbsolutePath
    tls: HardenedTlsBlock
    password_file: AbsolutePath
    allow_root_volume: bool = False
    backup_to: str | None = None
    backup_key: AbsolutePath | None = None
    prove_as: list[str] = Field(default=[])
    allow_unproven: bool = False


class ClientsBlock(ConfigModel):
    """For `mode: clients-only`."""

    uri: Annotated[str, AfterValidator(_kms_uri)]
    ca_file: AbsolutePath | None = None


class WaitBlock(ConfigModel):
    """How long each thing is waited for, at most."""

    provisioning: DurationS = Field(3600.0, ge=1, le=86_400)
    kms: DurationS = Field(900.0, ge=1, le=86_400)
    hdfs: DurationS = Field(900.0, ge=1, le=86_400)


class NodeConfig(ConfigModel):
    """The whole document."""

    wheelhouse: Source
    wheelhouse_sha256: Sha256
    mode: Literal["ringfence-kms", "hardened-stock-kms", "clients-only", "existing-kms", "key-server"]
    kms: KmsBlock = KmsBlock()
    hardened: HardenedBlock | None = None
    clients: ClientsBlock | None = None
    files: list[FileBlock] = Field(default=[])
    superuser: str = "hdfs"
    kerberos: KerberosKeytab | None = None
    wait: WaitBlock = WaitBlock()
    status: Annotated[str, AfterValidator(_s3)] | None = None

    def login(self) -> KerberosKeytab | None:
        """`kerberos` on this node."""
        return None if self.kerberos is None else on_this_node(self.kerberos)

    @model_validator(mode="after")
    def _of_the_mode(self) -> NodeConfig:
        for mode, name, block in (
            (CLIENTS_ONLY, "clients", self.clients),
            (HARDENED_STOCK_KMS, "hardened", self.hardened),
        ):
            if self.mode == mode and block is None:
                raise ValueError(f"'{name}' is missing: mode {mode} needs it")
            if self.mode != mode and block is not None:
                raise ValueError(f"'{name}' is for mode {mode}")
        if self.mode not in (RINGFENCE_KMS, KEY_SERVER) and "kms" in self.model_fields_set:
            raise ValueError(f"'kms' is for mode {RINGFENCE_KMS} and mode {KEY_SERVER}")
        _check_kms(self.kms, is_alone=self.mode == KEY_SERVER)
        return self


def on_this_node(keytab: KerberosKeytab) -> KerberosKeytab:
    """`_HOST` of a principal is the node's name, as in Hadoop's own files."""
    principal = keytab.principal.replace("/_HOST", f"/{socket.getfqdn().lower()}", 1)
    return keytab.model_copy(update={"principal": principal})


def _check_kms(kms: KmsBlock, *, is_alone: bool) -> None:
    """Settings that only one of the two modes has. Raises ValueError."""
    others = ("prove_as", "prove_with", "allow_unproven") if is_alone else ("listen", "allow_plain_http", "init")
    wrong = [name for name in others if name in kms.model_fields_set]
    if wrong:
        raise ValueError(f"kms: {', '.join(wrong)} is for mode {RINGFENCE_KMS if is_alone else KEY_SERVER}")
    if not is_alone:
        if "hadoop_conf" in kms.settings:
            raise ValueError("kms.settings: hadoop_conf cannot stand here: it is the stock KMS's own directory")
        return
    if kms.listen is None:
        raise ValueError(f"kms: 'listen' is missing: mode {KEY_SERVER} needs the HOST:PORT that clients call")
    if kms.tls is None and not kms.allow_plain_http and not is_loopback(kms.listen.rpartition(":")[0].strip("[]")):
        raise ValueError(
            f"kms: listening on {kms.listen} without tls would send data keys over the network in clear: name a"
            " certificate, or write out that this is meant: allow_plain_http: true"
        )


def parse_node_config(text: str) -> NodeConfig:
    """As `read_node_config`, from a journal."""
    return parse_config(text, "bootstrap.yaml", NodeConfig)


def read_node_config(path: Path) -> NodeConfig:
    """Raises ConfigError naming every problem, each with its line."""
    return read_config(path, NodeConfig)
