"""Grants that end with a YARN application: which those are, and the watch that ends them.

Rules:

1. An application that has ended, or that the ResourceManager does not know, ends its grants with the next look. A
   ResourceManager that does not answer ends nothing: the grant's own time does, in the KMS.
2. Which grant belongs to which application is on disk (`grant-applications.json`, 0600) before the grant is made, so
   that an agent that dies in between leaves no grant that nobody watches.
3. A KMS that does not answer is asked again with every look.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ringfence_zones.durable_file import replace_file
from ringfence_zones.errors import GrantNotFoundError, RingfenceError
from ringfence_zones.kms_admin import AdminClient
from ringfence_zones.yarn import Life

INTERVAL_S = 10.0
_MAX_FILE_BYTES = 4 * 1024 * 1024
_BOUND = TypeAdapter(dict[str, str])
_log = logging.getLogger(__name__)


class BoundGrants:
    """Applications by grant. May be used by several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changing = threading.Lock()
        self._by_grant = _read(path)

    def bind(self, grant_id: str, application: str) -> None:
        """On disk when this returns. Raises OSError."""
        with self._changing:
            if self._by_grant.get(grant_id) != application:
                self._keep({**self._by_grant, grant_id: application})

    def forget(self, grant_id: str) -> None:
        """On disk when this returns; nothing when it is not there. Raises OSError."""
        with self._changing:
            if grant_id in self._by_grant:
                self._keep({grant: app for grant, app in self._by_grant.items() if grant != grant_id})

    def find(self, grant_id: str) -> str | None:
        """The application that the grant ends with."""
        return self._by_grant.get(grant_id)

    def list_all(self) -> dict[str, str]:
        """Applications by grant."""
        return dict(self._by_grant)

    def _keep(self, bound: dict[str, str]) -> None:
        replace_file(self._path, _BOUND.dump_json(bound, indent=1))
        self._by_grant = bound


class GrantWatch:
    """Ends grants with their applications. `find_life` asks YARN, `open_desk` opens the KMS; both may block."""

    def __init__(
        self,
        bound: BoundGrants,
        find_life: Callable[[str], Life | None],
        open_desk: Callable[[], AdminClient],
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._bound = bound
        self._find_life = find_life
        self._open_desk = open_desk
        self._interval_s = interval_s
        self._stop = threading.Event()
        # Daemon: a call that never returns must not keep the agent from ending.
        self._thread = threading.Thread(target=self._run, name="grant-watch", daemon=True)

    def start(self) -> None:
        """Looks from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Looks no more."""
        self._stop.set()

    def look(self) -> None:
        """One look at every application that a grant ends with."""
        lives: dict[str, Life | None] = {}
        for grant_id, application in self._bound.list_all().items():
            try:
                if application not in lives:
                    lives[application] = self._find_life(application)
                if lives[application] in (Life.ENDED, Life.FORGOTTEN):
                    self._end(grant_id, application)
            except (RingfenceError, OSError) as error:
                _log.warning("grant %s of %s cannot be ended yet: %s", grant_id, application, error)

    def _end(self, grant_id: str, application: str) -> None:
        try:
            self._open_desk().end_grant(grant_id)
            _log.warning("grant %s ended with %s", grant_id, application)
        except GrantNotFoundError:
            pass  # it was never made, or ended long ago
        self._bound.forget(grant_id)

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self.look()


def _read(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            return _BOUND.validate_json(file.read(_MAX_FILE_BYTES))
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError):
        _log.error("%s cannot be read: grants bound to applications end by their time alone", path)
        return {}
