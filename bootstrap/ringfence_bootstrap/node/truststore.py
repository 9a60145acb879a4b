"""Java's trust in the key server's certificate: a store with one authority, and the lines of ssl-client.xml.

A store that an administrator named already is not replaced: whoever runs the cluster's TLS adds the authority there.
Java's formats come from Java's own keytool. What the store holds is public, and so is its password.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ringfence_bootstrap.node import places
from ringfence_zones.errors import ConfigError, InstallError
from ringfence_zones.hadoop_home import find_libjvm
from ringfence_zones.hadoop_xml import read_document, read_properties

_LOCATION = "ssl.client.truststore.location"
_PASSWORD = "changeit"  # noqa: S105 - Java's own default; a store of certificates keeps no secret
_TIMEOUT_S = 60


def make_trust_store(ca_file: Path) -> bytes:
    """A JKS store that trusts the one authority of a PEM file. Raises InstallError."""
    with tempfile.TemporaryDirectory(prefix="ringfence-") as directory:
        store = Path(directory) / "store.jks"
        command = [_keytool(), "-importcert", "-noprompt", "-alias", "ringfence-kms", "-file", str(ca_file)]
        command += ["-keystore", str(store), "-storetype", "JKS", "-storepass", _PASSWORD]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InstallError(f"keytool did not run: {error}") from error
        if done.returncode:
            raise InstallError(
                f"keytool takes no certificate from {ca_file}: {done.stdout.strip()[-300:]}",
                hint="it must be a PEM file with the authority's certificate",
            )
        return store.read_bytes()


def trust_properties(ssl_client: Path) -> Mapping[str, str]:
    """What ssl-client.xml has to say. Raises ConfigError when it names another store."""
    known = read_properties(read_document(ssl_client)) if ssl_client.exists() else {}
    there = known.get(_LOCATION)
    if there is not None and there.value not in ("", str(places.TRUST_STORE)):
        raise ConfigError(
            f"{ssl_client} names the trust store {there.value} already",
            hint="add the key server's authority to that store and leave ca_file out of bootstrap.yaml",
        )
    return {
        _LOCATION: str(places.TRUST_STORE),
        "ssl.client.truststore.password": _PASSWORD,
        "ssl.client.truststore.type": "jks",
    }


def _keytool() -> str:
    on_path = shutil.which("keytool")
    if on_path is not None:
        return on_path
    # The runtime that Hadoop uses: HOME/lib/server/libjvm.so.
    for home in find_libjvm(os.environ).parents:
        if (home / "bin/keytool").is_file():
            return str(home / "bin/keytool")
    raise InstallError("this node's Java brings no keytool")
