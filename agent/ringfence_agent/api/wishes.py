"""Grants that were asked for and that nobody has approved yet: kept by the agent, for a day at most.

A wish becomes a grant when an administrator other than whoever asked says yes; the KMS then has it, and the wish is
gone. Wishes are on disk (`grant-wishes.json`, 0600, in the state directory), because whoever asked was told a number.
A wish entitles to nothing, so a file that cannot be read is put aside and said, not feared.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from ringfence_zones.durable_file import replace_file
from ringfence_zones.errors import GrantNotFoundError, InputError
from ringfence_zones.grants import new_grant_id

KEPT_S = 24 * 3600.0
MAX_WISHES = 500
MAX_WISHES_EACH = 50
"""Of one requester, so that none keeps the others from asking."""
_MAX_FILE_BYTES = 4 * 1024 * 1024
_log = logging.getLogger(__name__)


class Wish(BaseModel):
    """What was asked for. `requested_by` is a caller's label, `requester` the user behind it. Epoch seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    user: str
    source: str
    target: str
    life_s: float
    purpose: str
    token: int | None
    address: str | None
    real_user: str | None
    application: str | None = None
    requester: str
    requested_by: str
    created_s: float


_WISHES = TypeAdapter(list[Wish])


class WishBook:
    """The wishes of one agent. May be used by several threads."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._changing = threading.Lock()
        self._by_id = {wish.id: wish for wish in _read(path)}

    def add(self, **fields: object) -> Wish:
        """Keeps a new one; on disk when this returns. Raises InputError when there are too many, OSError."""
        wish = Wish.model_validate({"id": new_grant_id(), "created_s": self._clock(), **fields})
        with self._changing:
            alive = self.list_alive()
            if len(alive) >= MAX_WISHES:
                raise InputError(f"{MAX_WISHES} requests wait for an answer already")
            if sum(each.requester == wish.requester for each in alive) >= MAX_WISHES_EACH:
                raise InputError(
                    f"{MAX_WISHES_EACH} requests of {wish.requester} wait for an answer already",
                    hint="take some back: `ringfence agent grant end ID`",
                )
            self._keep([*alive, wish])
        return wish

    def get(self, wish_id: str) -> Wish:
        """Raises GrantNotFoundError."""
        wish = self._by_id.get(wish_id)
        if wish is None or self._clock() - wish.created_s > KEPT_S:
            raise GrantNotFoundError(wish_id)
        return wish

    def remove(self, wish_id: str) -> None:
        """Forgets one; on disk when this returns. Nothing when it is not there."""
        with self._changing:
            if wish_id in self._by_id:
                self._keep([wish for wish in self.list_alive() if wish.id != wish_id])

    def list_alive(self) -> list[Wish]:
        """Those that still wait, the newest first."""
        oldest_s = self._clock() - KEPT_S
        alive = [wish for wish in self._by_id.values() if wish.created_s >= oldest_s]
        return sorted(alive, key=lambda wish: -wish.created_s)

    def _keep(self, wishes: list[Wish]) -> None:
        replace_file(self._path, _WISHES.dump_json(wishes, indent=1))
        self._by_id = {wish.id: wish for wish in wishes}


def _read(path: Path) -> list[Wish]:
    try:
        with path.open("rb") as file:
            return _WISHES.validate_json(file.read(_MAX_FILE_BYTES))
    except FileNotFoundError:
        return []
    except (OSError, ValidationError):
        _log.error("the requests for grants in %s cannot be read: they have to be made again", path)
        return []
