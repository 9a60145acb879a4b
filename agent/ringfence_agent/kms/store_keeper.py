"""Keeps the store while it is served: backs it up after changes, verifies it now and then, notes how far it was seen.

All of it happens in a thread of its own, over connections of its own, in one worker at a time (`StoreRecord`), and
holds up no answer.

- A change that was committed is backed up a moment later; changes of that moment share a backup. What others
  changed (a command, another instance) is looked for twice a minute, and is not backed up again where another
  instance has. A backup that fails is tried again, and told until it succeeds.
- The whole store is verified every few minutes, as when it was opened: a row that somebody with access to the file
  or the database put in place of another is noticed without a restart. From then on no worker serves a key, until the
  store verifies again. A store that cannot be read is no verdict.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any

from ringfence_agent.keystore.backup.canary import Canaries
from ringfence_agent.keystore.backup.high_water import Mark, raise_mark
from ringfence_agent.keystore.backup.make import make_backup
from ringfence_agent.keystore.backup.place import BackupPlace
from ringfence_agent.keystore.interface import OpenStore
from ringfence_agent.kms.audit.record import utc_text
from ringfence_agent.kms.keeping_config import KeepingSettings
from ringfence_agent.kms.store_record import StoreRecord
from ringfence_zones.errors import BackupError, RingfenceError, StoreTamperedError

_log = logging.getLogger(__name__)

_TICK_S = 1.0
_GATHER_S = 0.1
_LOOK_S = 30.0
_RETRY_S = 10.0
# Between some rows, so that the event loop gets the interpreter: about a millisecond of work each.
_PAUSE_S = 0.0005


class StoreKeeper:
    """One worker's. `count` counts for the metrics."""

    def __init__(
        self,
        store: OpenStore,
        record: StoreRecord,
        settings: KeepingSettings,
        place: BackupPlace | None,
        executor: Executor,
        risks: Sequence[str] = (),
        count: Callable[[str], None] = lambda _name: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`place` is where backups go after changes, None when they do not. `executor` has one thread. `risks` are
        told to administrators.
        """
        self.record = record
        self._risks = tuple(risks)
        self.settings = settings
        self._store = store
        self._place = place
        self._executor = executor
        self._count = count
        self._clock = clock
        self._has_changed = asyncio.Event()
        self._canaries: Canaries | None = None
        self._cannot_note = False

    def note_change(self) -> None:
        """This worker may have committed something."""
        if self._place is not None:
            self.record.note_change(self._now_ms())
        self._has_changed.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        self.record.note_opened(self._now_ms(), self.settings.check_s)
        while True:
            with suppress(TimeoutError):
                # Not wait_for: in Python 3.11 that forgets a cancellation when the event comes in the same turn.
                async with asyncio.timeout(_TICK_S):
                    await self._has_changed.wait()
            if self._has_changed.is_set():
                await asyncio.sleep(_GATHER_S)
                await self._keep_up_with_changes()
            elif self.record.take_backup(_LOOK_S):
                await self._in_thread(lambda: self._back_up(ask_place=True))
            if self.record.take_check(self.settings.check_s):
                await self._in_thread(self._verify)

    async def close(self) -> None:
        """Backs up what this worker changed last."""
        if self._has_changed.is_set():
            await self._keep_up_with_changes()

    async def _keep_up_with_changes(self) -> None:
        self._has_changed.clear()
        await self._in_thread(lambda: self._back_up(ask_place=False))

    async def _in_thread(self, work: Callable[[], str | None]) -> None:
        """`work` says which counter to count."""
        counter = await asyncio.get_running_loop().run_in_executor(self._executor, work)
        if counter is not None:
            self._count(counter)

    # -- what is told

    def list_risks(self) -> list[str]:
        """For administrators: what may cost keys."""
        missing = self.record.missing_changes
        if not missing:
            return list(self._risks)
        gone = f"the key store lacks {missing} changes that this node has seen: it was put back from an earlier state"
        return [*self._risks, gone]

    def describe_check(self) -> dict[str, Any]:
        """For administrators: when all of the store was last found genuine, and what is wrong with it."""
        checked_ms = self.record.checked_ms
        return {"genuine_at": _text(checked_ms), "problem": self.record.find_distrust()}

    def describe_backup(self) -> dict[str, Any] | None:
        """For administrators: None when nothing is backed up after changes."""
        if self._place is None:
            return None
        record = self.record
        return {
            "to": self._place.label,
            "newest": record.backup_place or None,
            "change_number": record.backup_number,
            "made": _text(record.backup_ms),
            "age_s": self._seconds_since(record.backup_ms),
            "behind_s": self._seconds_since(record.behind_since_ms) or 0,
            "problem": record.find_backup_problem(),
        }

    def gauges(self) -> dict[str, tuple[str, float]]:
        """For the metrics: name -> help and value."""
        record = self.record
        gauges: dict[str, tuple[str, float]] = {
            "store_genuine": ("0 when the key store is known not to be genuine.", 0 if record.distrusted_ms else 1),
            "store_checked_seconds": (
                "When all of the key store was last found genuine, since the epoch.",
                record.checked_ms / 1000,
            ),
        }
        if self._place is not None:
            gauges |= {
                "backup_age_seconds": (
                    "Age of the newest backup that this server made; -1 before the first.",
                    -1 if (age_s := self._seconds_since(record.backup_ms)) is None else age_s,
                ),
                "backup_behind_seconds": (
                    "For how long there has been a change that no backup holds.",
                    self._seconds_since(record.behind_since_ms) or 0,
                ),
            }
        return gauges

    def _seconds_since(self, then_ms: int) -> float | None:
        return max(0.0, (self._now_ms() - then_ms) / 1000) if then_ms else None

    # -- in the thread

    def _back_up(self, *, ask_place: bool) -> str | None:
        try:
            with self.record.held():
                number = self._store.change_number()
                self._raise_mark(number)
                return self._back_up_held(number, ask_place=ask_place) if self._place is not None else None
        except RingfenceError as error:
            return self._note_failure(error.message)
        except Exception as error:  # noqa: BLE001 -- whatever stands in the way, it is told and tried again; kind only
            return self._note_failure(f"{type(error).__name__}")

    def _back_up_held(self, number: int, *, ask_place: bool) -> str | None:
        assert self._place is not None, "it was looked at before"
        if number <= self.record.backup_number:
            self.record.note_backup(self.record.backup_number, None, self.record.backup_place)
            return None
        self.record.note_change(self._now_ms())
        if ask_place and (self._place.find_newest_change(self._store.store_id) or -1) >= number:
            self.record.note_backup(number, None, self._place.find_newest(self._store.store_id) or self._place.label)
            return None
        made = make_backup(self._store, self._place, self._canaries, pause=_pause, clock=self._clock)
        self._canaries = made.canaries
        self.record.note_backup(made.manifest.change_number, made.manifest.made_ms, made.where)
        if made.missing:
            _log.warning(
                "the backup %s is whole, but %d key versions in it have no canary: %s",
                made.where,
                made.missing,
                made.why,
            )
        return "backups"

    def _raise_mark(self, number: int) -> None:
        mark = Mark(number, self._now_ms())
        try:
            known = raise_mark(self.settings.mark_directory, self._store.store_id, mark)
            self._note_missing(max(0, known.change_number - number))
            self._cannot_note = False
        except (OSError, BackupError) as error:
            if not self._cannot_note:
                _log.warning("how far the key store was seen cannot be noted: %s", error)
            self._cannot_note = True

    def _note_missing(self, changes: int) -> None:
        if changes and not self.record.missing_changes:
            _log.error(
                "the key store lacks %d changes that this node has seen: it was put back from an earlier state."
                " Versions made since are lost, and the next ones carry their numbers",
                changes,
            )
        self.record.note_missing(changes)

    def _note_failure(self, why: str) -> str | None:
        self.record.retry_backup_in(_RETRY_S)
        if self._place is None:
            return None
        if self.record.find_backup_problem() is None:
            _log.error("the key store cannot be backed up: %s", why)
        self.record.note_backup_failed(why, self._now_ms())
        return "backup_failures"

    def _verify(self) -> str | None:
        try:
            with self._store.snapshot(_pause):
                pass
        except StoreTamperedError as error:
            if not self.record.distrusted_ms:
                _log.critical("NO KEY IS SERVED from now on: %s", error.message)
            self.record.note_distrust(error.message, self._now_ms())
            self.record.retry_check_in(min(self.settings.check_s, _RETRY_S))
            return "store_check_failures"
        except RingfenceError as error:
            _log.info("the key store could not be verified now: %s", error.message)
            return None
        if self.record.distrusted_ms:
            _log.warning("the key store is genuine again: keys are served")
        self.record.note_genuine(self._now_ms())
        return "store_checks"

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _text(then_ms: int) -> str | None:
    return utc_text(then_ms / 1000) if then_ms else None


def _pause() -> None:
    time.sleep(_PAUSE_S)
