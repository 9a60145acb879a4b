"""What a hardening needs to know, and what keeps it from beginning: the access lists, whom clients trust, new files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from ringfence_bootstrap.classifications.hdfs_encryption import closed_acls
from ringfence_bootstrap.stock_kms.file_changes import read_if_there
from ringfence_bootstrap.stock_kms.hardening import Hardening
from ringfence_bootstrap.stock_kms.stores import ServerCertificate
from ringfence_zones.errors import ConfigError
from ringfence_zones.hadoop_conf import read_hadoop_conf
from ringfence_zones.hadoop_xml import set_properties
from ringfence_zones.java_truststore import read_trusted_certificates
from ringfence_zones.policy import Policy
from ringfence_zones.stock_acls import stock_acls

_TRUST = "ssl.client.truststore"


def acls_of(policy: Policy, kms_conf: Path) -> Mapping[str, str]:
    """Every access list the KMS is to have; refuses a file that gives more than they do."""
    path = kms_conf / "kms-acls.xml"
    existing = read_if_there(path)
    closed = closed_acls(policy)
    if existing is not None:
        existing = set_properties(existing, closed)
    return {**closed, **stock_acls(policy, existing, str(path)).properties}


def trusts_already(hadoop_conf: Path, certificate: ServerCertificate) -> bool:
    """Whether clients trust the authority already; False when they have no trust store of their own."""
    file_name = read_hadoop_conf(hadoop_conf, "core-site.xml").get("hadoop.ssl.client.conf", "ssl-client.xml")
    conf = read_hadoop_conf(hadoop_conf, file_name)
    location = conf.get(f"{_TRUST}.location")
    if not location:
        if file_name != "ssl-client.xml":
            raise ConfigError(f"{file_name}, which hadoop.ssl.client.conf names, has no {_TRUST}.location")
        return False
    wanted = certificate.authority.public_bytes(Encoding.DER)
    if wanted in read_trusted_certificates(Path(location), conf.get(f"{_TRUST}.password")):
        return True
    raise ConfigError(
        f"clients trust what {location} holds, and the authority of the KMS's certificate is not in it",
        hint="put it in, on every node, and run this again",
        command=f"keytool -importcert -noprompt -alias ringfence-kms -file CA.pem -keystore {shlex.quote(location)}",
    )


def check_new_files(hardening: Hardening, *, allow_root_volume: bool) -> None:
    """Raises ConfigError for a place of the password or of the TLS store that cannot be used."""
    for path in (hardening.password, hardening.tls_store):
        if path.exists() or path.is_symlink():
            raise ConfigError(f"{path} is there already, and nothing is ever written over a secret")
        if not path.parent.is_dir():
            raise ConfigError(
                f"there is no directory {path.parent}",
                hint="make it, so that the KMS's user can go into it",
                command=f"install -d -m 0711 {shlex.quote(str(path.parent))}",
            )
    if hardening.on_root_volume and not allow_root_volume:
        raise ConfigError(
            f"{hardening.password} would lie on the root volume, beside the key store that it opens",
            hint="name a file on another, encrypted volume; or, when the root volume is encrypted itself, give"
            " --allow-root-volume",
        )
    if re.search(r"[\s${}]", str(hardening.password) + str(hardening.tls_store)):
        raise ConfigError("a path with blanks, $ or braces cannot stand in Hadoop's files: choose other names")
