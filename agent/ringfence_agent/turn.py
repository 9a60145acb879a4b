"""Whose turn it is: of two agents of a cluster one acts, by a lease taken through the KMS (contracts 3).

Rules:

1. It is this agent's turn while it holds the lease, by its own machine's clock, less a margin. What cannot be renewed
   runs out: with the KMS away nobody acts, for nobody knows whether another agent does.
2. A KMS that has no leases (Hadoop's own, one whose store is in Vault) or does not take this agent for an
   administrator cannot say whose turn it is. Then `without_lease` in agent.yaml does, and a finding says that it rests
   on that. A KMS that gave a lease once is never taken for one without: then nobody knows, and rule 1 holds.
3. An agent that ends gives its lease back, so that the other need not wait.
"""

from __future__ import annotations

import enum
import os
import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal, Protocol

from ringfence_zones.errors import (
    AccessDeniedError,
    ConfigError,
    KmsRemoteError,
    LeaseHeldError,
    RingfenceError,
)
from ringfence_zones.leases import AGENT_TTL_S, Lease

LEASE_NAME = "agent"
_RENEW_S = AGENT_TTL_S / 3
_MARGIN_S = 1.0
_TRY_AGAIN_S = 1.0
_ASK_FOR_LEASES_S = 30.0
_LEAST_PAUSE_S = 0.2


class Leases(Protocol):
    """What this needs of `kms_admin.AdminClient`."""

    def take_lease(self, name: str, holder: str, ttl_s: float) -> Lease:
        """Takes or renews. Raises LeaseHeldError."""

    def release_lease(self, name: str, holder: str) -> None:
        """Gives back."""


class TurnState(enum.StrEnum):
    """What is known about whose turn it is."""

    HELD = "held"  # this agent acts
    OTHER = "other"  # another agent holds the lease
    UNKNOWN = "unknown"  # the KMS does not say
    NO_LEASES = "no_leases"  # it cannot say: agent.yaml does


@dataclass(frozen=True, slots=True)
class TurnView:
    """Whose turn it is at one moment; `holder` where it is known, `problem` why the KMS did not say."""

    state: TurnState
    mine: bool
    holder: str | None = None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """For the status."""
        return {"state": self.state.value, "acts": self.mine, "holder": self.holder, "problem": self.problem}


ALWAYS_MINE = TurnView(TurnState.HELD, mine=True)
"""For whoever acts without asking anybody."""


class Turn:
    """See the module. `open_leases` gives a client, anew each time: a token file may be replaced."""

    def __init__(
        self,
        open_leases: Callable[[], Leases],
        *,
        without_lease: Literal["act", "watch"],
        on_change: Callable[[], None] = lambda: None,
        holder: str | None = None,
    ) -> None:
        self._open_leases = open_leases
        self._acts_without = without_lease == "act"
        self._on_change = on_change
        self.holder = holder or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._lease: Lease | None = None
        self._has_leases = False
        self._view = TurnView(TurnState.UNKNOWN, mine=False, problem="the KMS was not asked yet")

    def is_mine(self) -> bool:
        """Whether this agent may act now."""
        return self.view().mine

    def view(self) -> TurnView:
        """What is known now."""
        view, lease = self._view, self._lease
        if view.state is TurnState.NO_LEASES:
            return view
        if lease is not None and lease.left_s() > _MARGIN_S:
            return TurnView(TurnState.HELD, mine=True, holder=self.holder, problem=view.problem)
        if view.state is TurnState.HELD:
            return TurnView(TurnState.UNKNOWN, mine=False, problem="the lease ran out before it was renewed")
        return view

    def run(self, stop: threading.Event) -> None:
        """Takes and renews until `stop` is set, then gives back."""
        while not stop.is_set():
            before = self.is_mine()
            pause_s = self.take()
            if self.is_mine() != before:
                self._on_change()
            stop.wait(pause_s)
        self._give_back()

    def take(self) -> float:
        """One attempt; how long to wait until the next, in seconds."""
        try:
            self._lease = self._open_leases().take_lease(LEASE_NAME, self.holder, AGENT_TTL_S)
        except LeaseHeldError as error:
            self._lease, self._has_leases = None, True
            self._view = TurnView(TurnState.OTHER, mine=False, holder=error.holder)
            return min(max(error.left_s, _LEAST_PAUSE_S), _RENEW_S)
        except RingfenceError as error:
            if _has_no_leases(error) and not self._has_leases:
                self._lease = None
                self._view = TurnView(TurnState.NO_LEASES, mine=self._acts_without, problem=error.message)
                return _ASK_FOR_LEASES_S
            self._view = TurnView(TurnState.UNKNOWN, mine=False, problem=error.message)
            return _TRY_AGAIN_S
        self._has_leases = True
        self._view = TurnView(TurnState.HELD, mine=True, holder=self.holder)
        return _RENEW_S

    def _give_back(self) -> None:
        if self._lease is None:
            return
        self._lease = None
        try:
            self._open_leases().release_lease(LEASE_NAME, self.holder)
        except RingfenceError:
            return  # it runs out by itself


def _has_no_leases(error: RingfenceError) -> bool:
    if isinstance(error, KmsRemoteError):
        return error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED)
    return isinstance(error, ConfigError | AccessDeniedError)
