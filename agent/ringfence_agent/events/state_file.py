"""What the agent knows of the event stream, in one file of its state directory: position, zones, cases, losses.

`events.json` is replaced in one step and is on disk when `save` returns, so position, zones and cases are always those
of one moment. A file that is damaged, or of another schema, is as none: the agent begins at the present and says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from ringfence_agent.events.zone_book import ZoneBook
from ringfence_agent.reverts import Case
from ringfence_zones.durable_file import replace_file
from ringfence_zones.errors import ConfigError

FILE_NAME = "events.json"
MAX_ENDED_CASES = 100
MAX_LOSSES = 20
MAX_SUSPECTS = 200
KEPT_S = 86_400.0
_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Loss:
    """Edits whose events nobody will see: from `after_txid` on, said at `lost_s` (wall clock, seconds)."""

    after_txid: int
    next_txid: int
    lost_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EventState:
    """Everything as of `txid`; that is None until a listing says where to begin."""

    schema: Literal[1] = 1
    txid: int | None = None
    book: ZoneBook = field(default_factory=ZoneBook)
    cases: tuple[Case, ...] = ()
    losses: tuple[Loss, ...] = ()
    suspects: tuple[str, ...] = ()
    """Files whose key version was set from outside and is of another key than their zone's."""

    def without_old(self, now_s: float) -> EventState:
        """Cases that ended, and losses, are kept for a day; of the former the last hundred."""
        live = [case for case in self.cases if case.ended_s is None]
        ended = [case for case in self.cases if case.ended_s is not None and case.ended_s >= now_s - KEPT_S]
        kept = sorted([*live, *ended[-MAX_ENDED_CASES:]], key=lambda case: case.txid)
        losses = [loss for loss in self.losses if loss.lost_s >= now_s - KEPT_S]
        return replace(
            self, cases=tuple(kept), losses=tuple(losses[-MAX_LOSSES:]), suspects=self.suspects[-MAX_SUSPECTS:]
        )


class StateFile:
    """The file; one process at a time, which the agent's lock on its state directory sees to."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / FILE_NAME
        self._adapter: TypeAdapter[Any] = TypeAdapter(EventState)

    def load(self) -> EventState | None:
        """What was saved last; None without a usable file. Raises ConfigError when it cannot be read."""
        try:
            with self._path.open("rb") as stream:
                content = stream.read(_MAX_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"cannot read {self._path}: {error.strerror}") from error
        try:
            state: EventState = self._adapter.validate_json(content)
        except ValidationError:
            return None
        return state

    def save(self, state: EventState) -> None:
        """Raises ConfigError when the state directory cannot be written."""
        try:
            self._path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            replace_file(self._path, self._adapter.dump_json(state))
        except OSError as error:
            raise ConfigError(
                f"cannot write {self._path}: {error.strerror}",
                hint="give the agent's user its state directory, or set state_dir in agent.yaml",
            ) from error
