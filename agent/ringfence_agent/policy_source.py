"""Where the agent's policy comes from: a file, or the revision that the Ringfence KMS enforces.

Rules: looked at with every cycle, read again only when it changed; a policy that cannot be used never replaces the
last good one, and says why. Neither source is ever written.

A KMS tells its revision in its status, which each cycle reads anyway. While that is the one in force the policy itself
is asked for once a minute alone: each request is a line in the KMS's audit log.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ringfence_zones.errors import PolicyError, RingfenceError
from ringfence_zones.kms_admin import Publication
from ringfence_zones.model import KmsState
from ringfence_zones.policy import Policy, load_policy, policy_from_json

_ASK_AGAIN_S = 60.0


@dataclass(frozen=True, slots=True)
class PolicyView:
    """The last good policy (None before the first) and why the present one could not be used."""

    policy: Policy | None
    problem: str | None = None


class PolicySource(Protocol):
    """Gives the policy in force."""

    def look(self) -> PolicyView:
        """Never raises one of our own errors: they become the view's `problem`."""

    def is_behind(self, kms: KmsState | None) -> bool:
        """Whether another look is due at once, by what the KMS has shown of itself since the last; never after one that
        asked the KMS, nor while it shows nothing (None): asking a KMS that hangs would take its time-outs once more.
        """


class FilePolicy:
    """A policy document on this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._view = PolicyView(None)

    def look(self) -> PolicyView:
        """See `PolicySource`."""
        try:
            status = self._path.stat()
        except OSError as error:
            self._seen = None
            self._view = PolicyView(self._view.policy, f"cannot read {self._path}: {error.strerror}")
            return self._view
        seen = (status.st_mtime_ns, status.st_size, status.st_ino)
        if seen != self._seen:
            self._seen = seen
            try:
                self._view = PolicyView(load_policy(self._path))
            except PolicyError as error:
                self._view = PolicyView(self._view.policy, _first_problem(error))
        return self._view

    def is_behind(self, kms: KmsState | None) -> bool:  # noqa: ARG002 - a file is not the KMS's
        """See `PolicySource`."""
        return False


class PublishedPolicy:
    """The revision that the KMS enforces, through its admin endpoint."""

    def __init__(
        self,
        find_published: Callable[[], tuple[Publication, Any] | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`find_published` gives the newest revision with its document, None before the first. `clock` in seconds."""
        self._find_published = find_published
        self._clock = clock
        self._seen: Publication | None = None
        self._view = PolicyView(None)
        self._asked_s = 0.0
        # The KMS's status says that what was seen is in force; the last look asked the KMS.
        self._is_confirmed = self._has_asked = False

    def look(self) -> PolicyView:
        """See `PolicySource`. When the KMS is away, the last revision it gave stays in force."""
        is_recent = self._clock() < self._asked_s + _ASK_AGAIN_S
        self._has_asked = not (self._is_confirmed and is_recent and self._view.problem is None)
        return self._ask() if self._has_asked else self._view

    def is_behind(self, kms: KmsState | None) -> bool:
        """See `PolicySource`."""
        self._is_confirmed = (
            kms is not None
            and self._seen is not None
            and (kms.revision, kms.revision_digest) == (self._seen.revision, self._seen.digest)
        )
        return kms is not None and not (self._is_confirmed or self._has_asked)

    def _ask(self) -> PolicyView:
        self._asked_s = self._clock()
        try:
            found = self._find_published()
            if found is None:
                self._view = PolicyView(None, "none was published yet: `ringfence apply` publishes one")
            elif found[0] != self._seen or self._view.problem is not None:
                self._view = PolicyView(policy_from_json(found[1], f"revision {found[0].revision}"))
                self._seen = found[0]
        except PolicyError as error:
            self._view = PolicyView(self._view.policy, _first_problem(error))
        except RingfenceError as error:
            self._view = PolicyView(self._view.policy, error.message)
        return self._view


def _first_problem(error: PolicyError) -> str:
    if not error.findings:
        return error.message
    first = error.findings[0]
    return f"{error.message}, the first at {first.path}: {first.message}"
