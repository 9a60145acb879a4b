"""What routes answer from: the loop's last snapshot, never the NameNode or the KMS.

So no question can be slow or load the cluster. A snapshot that is too old is no answer (`Board.fresh_state`).
"""

from __future__ import annotations

from typing import Any

from ringfence_agent.api.access import Accounts
from ringfence_agent.api.caller import Caller
from ringfence_agent.api.refused_moves import MoveRecord
from ringfence_agent.snapshot import Board
from ringfence_zones.model import EncryptionZone
from ringfence_zones.moves import MoveDecision, ZoneMap, decide_move
from ringfence_zones.paths import HdfsPath


class ClusterView:
    """The cluster as routes see it. `default_fs` is its `fs.defaultFS`, so that URIs of it are understood; `moves`
    remembers what became of questions about moves."""

    def __init__(self, board: Board, accounts: Accounts, *, version: str, default_fs: str | None) -> None:
        self.board = board
        self.accounts = accounts
        self.version = version
        self.moves = MoveRecord()
        self._default_fs = default_fs
        self._mapped: tuple[object, ZoneMap] | None = None

    def path(self, caller: Caller, text: str) -> HdfsPath:
        """A path that a request names. Raises PathError, and AccessDeniedError beyond the caller's scope."""
        path = HdfsPath.parse(text, default_fs=self._default_fs)
        caller.require_path(path)
        return path

    def zone_map(self) -> ZoneMap:
        """The zones, fresh. Raises NameNodeUnavailableError."""
        zones = self.board.fresh_state().zones
        # One map per look at the cluster, not per request.
        if self._mapped is None or self._mapped[0] is not zones:
            self._mapped = (zones, ZoneMap(zones))
        return self._mapped[1]

    def decide(self, caller: Caller, src: HdfsPath, dst: HdfsPath) -> MoveDecision:
        """What `ringfence mv` and `ringfence policy decide-move` decide. Raises NameNodeUnavailableError, PathError."""
        return decide_move(
            self.board.snapshot.policy,
            self.zone_map(),
            user=caller.user,
            groups=caller.groups,
            src=src,
            dst=dst,
        )

    def find_zone(self, path: HdfsPath) -> dict[str, Any] | None:
        """The innermost zone that holds a path, as a document; None in clear. Raises NameNodeUnavailableError."""
        root = self.zone_map().find_zone_of(path.live)
        zone = self.board.fresh_state().zone_at(str(root)) if root is not None else None
        return None if zone is None else self.describe(zone)

    def describe(self, zone: EncryptionZone) -> dict[str, Any]:
        """A zone as a document."""
        snapshot = self.board.snapshot
        protected = snapshot.state.protected_directories if snapshot.state is not None else None
        return {
            "path": zone.path,
            "key": zone.key_name,
            "in_policy": snapshot.policy.find_zone(zone.path) is not None if snapshot.policy else None,
            "pinned": zone.path in protected if protected is not None else None,
        }
