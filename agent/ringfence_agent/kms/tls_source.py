"""TLS material from the Java stores that Hadoop's ssl-server.xml names.

A key store that every user can read is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ringfence_agent.http.pem_files import require_private_key
from ringfence_agent.http.tls import TlsIdentity, TlsMaterial
from ringfence_agent.kms.java_key_store import read_java_key_store
from ringfence_zones.errors import ConfigError
from ringfence_zones.secret import Secret

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JavaStores:
    """A `TlsSource` of the key store and the trust store that ssl-server.xml names."""

    key_store: Path
    password: Secret
    key_password: Secret
    trust_store: Path | None = None
    trust_password: Secret | None = None

    @property
    def paths(self) -> Sequence[Path]:
        """The stores."""
        return [self.key_store, self.trust_store] if self.trust_store is not None else [self.key_store]

    def read(self) -> TlsMaterial:
        """Raises ConfigError naming the store."""
        require_private_key(self.key_store)
        store = read_java_key_store(self.key_store, self.password, self.key_password)
        if not store.keys:
            raise ConfigError(f"the key store {self.key_store} holds no private key")
        first = store.keys[0]
        if len(store.keys) > 1:
            _log.warning("the key store %s holds %d keys: %r is used", self.key_store, len(store.keys), first.alias)
        identity = TlsIdentity(f"{first.alias} in {self.key_store}", first.chain, first.key)
        return TlsMaterial((identity,), self._read_trusted())

    def _read_trusted(self) -> bytes | None:
        if self.trust_store is None:
            return None
        store = read_java_key_store(self.trust_store, self.trust_password)
        if not store.trusted:
            raise ConfigError(f"the trust store {self.trust_store} holds no certificate")
        return b"".join(store.trusted)
