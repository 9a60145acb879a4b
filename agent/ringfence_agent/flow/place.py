"""Where the flow memory is: beside an SQLite key store, or in the database that instances share.

`<store>.flows` is an SQLite file of its own, so that EDEKs made and files created do not wait for changes of keys, nor
the other way. In PostgreSQL the tables are in the schema `ringfence_flow`, in MariaDB beside the key store's. They are
made when a published policy has flows for the first time, or when something is granted, by whichever server comes
first. A key store in Vault has none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ringfence_agent.flow.memory import FlowMemory, now_ms
from ringfence_agent.flow.tables import creating_statements, flow_tables
from ringfence_agent.keystore.beside import beside, open_beside
from ringfence_agent.keystore.sql.database import Called
from ringfence_agent.keystore.vault_kv.address import is_vault_uri
from ringfence_zones.errors import UnsupportedByStoreError
from ringfence_zones.secret import Secret

SUFFIX = ".flows"
_CALLED = Called("flow memory", "drop it while the key servers are stopped: it holds no key, and is made anew")


def open_flow_memory(
    uri: str, password_file: Path | None, store_id: bytes, tag_key: Secret, clock_ms: Callable[[], int] = now_ms
) -> FlowMemory:
    """The memory of the key store at `uri`, made when it is not there. `tag_key` is what grants are tagged with.

    Blocks. Raises UnsupportedByStoreError for a store in Vault, ConfigError, and others of the KeyStoreError family.
    """
    if is_vault_uri(uri):
        raise UnsupportedByStoreError(
            "a key store in Vault has no place for what flow rules remember",
            hint="keep the keys in PostgreSQL or MariaDB, or on this machine; or publish the policy without flows",
        )
    engine, session = open_beside(uri, password_file, SUFFIX, creating_statements, _CALLED)
    try:
        return FlowMemory(session, flow_tables(engine), store_id, clock_ms, tag_key.reveal())
    except BaseException:
        session.close()
        raise


def flows_path(store: Path) -> Path:
    """The file beside an SQLite key store."""
    return beside(store, SUFFIX)
