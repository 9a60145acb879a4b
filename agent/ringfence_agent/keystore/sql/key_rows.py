"""Rows of keys and versions as a change reads and writes them."""

from __future__ import annotations

from sqlalchemy import bindparam, insert, select, update

from ringfence_agent.keystore.held import AnyVersion, Material
from ringfence_agent.keystore.rows.kinds import KeyVersionRow, ZoneKeyRow
from ringfence_agent.keystore.rows.new_keys import is_storable, new_version_row, require_next
from ringfence_agent.keystore.rows.prepared import Prepared
from ringfence_agent.keystore.rows.records import Records
from ringfence_agent.keystore.sql.tables import KEY_VERSION, ZONE_KEY
from ringfence_agent.keystore.sql.transactions import Change
from ringfence_zones.errors import KeyNotFoundError

_SELECT_KEY = select(*(ZONE_KEY.c[name] for name in ZoneKeyRow._fields), ZONE_KEY.c.tag).where(
    ZONE_KEY.c.name == bindparam("name")
)
_SELECT_VERSION = select(*(KEY_VERSION.c[name] for name in KeyVersionRow._fields)).where(
    KEY_VERSION.c.key_name == bindparam("name"), KEY_VERSION.c.version == bindparam("number")
)
_UPDATE_KEY = update(ZONE_KEY).where(ZONE_KEY.c.name == bindparam("key"))


class KeyRows:
    """Each method works inside a change, and keeps its ledger."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def find(self, change: Change, name: str) -> ZoneKeyRow | None:
        """A key, deleted or not; its tag is checked."""
        found = change.connection.execute(_SELECT_KEY, {"name": name}).one_or_none()
        if found is None:
            return None
        *fields, tag = found
        key = ZoneKeyRow(*fields)
        self._records.check_tag(key, tag)
        return key

    def get_live(self, change: Change, name: str) -> ZoneKeyRow:
        """Raises KeyNotFoundError for a deleted key as well."""
        key = self.find(change, name) if is_storable(name) else None
        if key is None or key.deleted_ms is not None:
            raise KeyNotFoundError(name)
        return key

    def write(self, change: Change, old: ZoneKeyRow | None, new: ZoneKeyRow) -> None:
        """`new` in the place of `old`, or beside the others."""
        values = new._asdict() | {"tag": self._records.tag(new)}
        if old is None:
            change.connection.execute(insert(ZONE_KEY), values)
        else:
            change.connection.execute(_UPDATE_KEY, values | {"key": old.name})
            change.ledger.remove(self._records.element(old))
        change.ledger.add(self._records.element(new))

    def require_next(self, change: Change, key: ZoneKeyRow, material: Material) -> None:
        """See `require_next`, of the current version."""
        place = {"name": key.name, "number": key.next_version - 1}
        row = change.connection.execute(_SELECT_VERSION, place).one_or_none()
        if row is None:
            raise self._records.tampered(f"the current version of key {key.name!r} is missing")
        require_next(self._records, KeyVersionRow(*row), material)

    def insert_version(
        self, change: Change, key: ZoneKeyRow, version: AnyVersion, created_ms: int, prepared: Prepared
    ) -> None:
        """A version of `key`: sealed by the slot that is active now, or where it is held."""
        row = new_version_row(self._records, key, version, created_ms, prepared)
        change.connection.execute(insert(KEY_VERSION), row._asdict())
        change.ledger.add(self._records.element(row))
