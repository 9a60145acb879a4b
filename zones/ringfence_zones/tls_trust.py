"""Which certificates our clients trust when a daemon speaks TLS: one answer for the KMS and for the NameNode.

In this order: a PEM file that our own configuration names; the trust store of Hadoop's `ssl-client.xml`, because then
the cluster's own clients and ours agree; the system's authorities. Certificate and host name are always checked.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from ringfence_zones.errors import ConfigError
from ringfence_zones.hadoop_conf import read_hadoop_conf
from ringfence_zones.java_truststore import read_trusted_certificates

_LOCATION = "ssl.client.truststore.location"
_PASSWORD = "ssl.client.truststore.password"  # noqa: S105 - the name of a property


@dataclass(frozen=True, slots=True)
class TlsTrust:
    """`ca_file` is PEM; `hadoop_conf` the directory whose ssl-client.xml counts. Neither: the system's authorities."""

    ca_file: Path | None = None
    hadoop_conf: Path | None = None

    def make_context(self) -> ssl.SSLContext:
        """A client's context. Raises ConfigError naming the file that cannot be used."""
        if self.ca_file is not None:
            try:
                return ssl.create_default_context(cafile=str(self.ca_file))
            except OSError as error:  # SSLError is one
                why = "it holds no PEM certificate" if isinstance(error, ssl.SSLError) else error.strerror
                raise ConfigError(
                    f"cannot use {self.ca_file} as kms_ca_file: {why}", hint="name a PEM file of the authority"
                ) from error
        certificates = self._java_certificates()
        if certificates is None:
            return ssl.create_default_context()
        try:
            return ssl.create_default_context(cadata=b"".join(certificates))
        except ssl.SSLError as error:
            raise ConfigError("Java's trust store holds a certificate that OpenSSL cannot read") from error

    def find_pem(self) -> bytes | None:
        """The same certificates as PEM, for a client that is not Python's. None: the system's authorities.

        Raises ConfigError naming the file that cannot be used.
        """
        if self.ca_file is not None:
            self.make_context()  # says what is wrong with the file
            return self.ca_file.read_bytes()
        certificates = self._java_certificates()
        return None if certificates is None else "".join(map(ssl.DER_cert_to_PEM_cert, certificates)).encode("ascii")

    def _java_certificates(self) -> list[bytes] | None:
        if self.hadoop_conf is None:
            return None
        file_name = read_hadoop_conf(self.hadoop_conf, "core-site.xml").get("hadoop.ssl.client.conf", "ssl-client.xml")
        conf = read_hadoop_conf(self.hadoop_conf, file_name)
        location = conf.get(_LOCATION)
        return read_trusted_certificates(Path(location), conf.get(_PASSWORD) or None) if location else None
