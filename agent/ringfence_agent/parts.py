"""The parts of a running agent and how they are joined: the one place where they are made. `serve` runs them.

Threads: the loop (looks, decides, acts), the event stream (follows, renames back), the lease; transfers and the watch
over grants bring their own. Two Java children: one for the loop, for renames and for transfers' looks, one for the
stream. The board is where the loop and the stream meet and what the API answers from; nothing else is shared but the
watcher's `adopt` and the loop's `wake`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import APIRouter

from ringfence_agent.act import Pinner
from ringfence_agent.api import grant_routes, metrics, overview, page, refused_moves, transfers
from ringfence_agent.api.access import RememberedAccounts, SystemAccounts
from ringfence_agent.api.applications import BoundGrants, GrantWatch
from ringfence_agent.api.view import ClusterView
from ringfence_agent.api.wishes import WishBook
from ringfence_agent.budgets import STREAM_PAUSE_S, Budgets
from ringfence_agent.enforce import Observation
from ringfence_agent.events.reverter import Reverter
from ringfence_agent.events.state_file import StateFile
from ringfence_agent.events.stream import EventStream
from ringfence_agent.events.watcher import EventWatcher, Listing
from ringfence_agent.inspection import Inspector
from ringfence_agent.loop import AgentLoop
from ringfence_agent.namenode_logs import AuditLog, RefusalLog
from ringfence_agent.observe import Observer
from ringfence_agent.pins import PinMemory
from ringfence_agent.policy_source import FilePolicy, PolicySource, PublishedPolicy
from ringfence_agent.snapshot import Board
from ringfence_agent.surroundings import Surroundings
from ringfence_agent.transfer.build import open_transfers
from ringfence_agent.transfer.service import TransferService
from ringfence_agent.turn import Turn
from ringfence_zones.errors import HdfsError
from ringfence_zones.namenodes import default_filesystem

# A cycle has to end within the rest of `stale_after`.
_PAUSE_OF_STALE = 1 / 3

WISHES_FILE = "grant-wishes.json"
APPLICATIONS_FILE = "grant-applications.json"


@dataclass(frozen=True, slots=True)
class Parts:
    """What runs, and what the API is made of. `stop` ends loop, watcher and turn."""

    loop: AgentLoop
    watcher: EventWatcher
    turn: Turn
    transfers: TransferService
    grant_watch: GrantWatch
    view: ClusterView
    routers: tuple[APIRouter, ...]
    stop: threading.Event


def build_parts(around: Surroundings, checks: tuple[Callable[[], None], ...]) -> Parts:
    """Joins the parts; starts nothing. `checks` run first in each cycle of the loop. The state directory must be
    locked. Raises ConfigError."""
    config, stop, woken = around.config, threading.Event(), _Wake()
    board = Board(config.stale_after)
    view = _build_view(around, board)
    budgets = Budgets(
        around.children,
        hdfs_calls_per_minute=config.budgets.hdfs_calls_per_minute,
        cpu_percent=config.budgets.cpu_percent,
        memory_bytes=config.budgets.memory,
    )
    turn = Turn(around.open_leases, without_lease=config.without_lease, on_change=woken)
    watcher = _build_watcher(around, board, budgets, turn, woken)
    loop = _build_loop(around, board, budgets, turn, watcher, stop, checks)
    woken.target = loop.wake
    service = open_transfers(config, around.hadoop_conf, around.hdfs, view, around.open_kms)
    bound = BoundGrants(config.state_dir / APPLICATIONS_FILE)
    routers = (
        grant_routes.router(WishBook(config.state_dir / WISHES_FILE), bound, view, around.open_kms),
        transfers.router(service, view),
        page.router(),
        overview.router(board),
        refused_moves.router(view.moves),
        metrics.router(board, view.moves, service.tally),
    )
    watch = GrantWatch(bound, around.find_life, around.open_kms)
    return Parts(loop, watcher, turn, service, watch, view, routers, stop)


class _Wake:
    """The loop's `wake`, for those who are made before it."""

    def __init__(self) -> None:
        self.target: Callable[[], None] = lambda: None

    def __call__(self) -> None:
        self.target()


def _build_view(around: Surroundings, board: Board) -> ClusterView:
    from importlib.metadata import version  # noqa: PLC0415 - reads the installation, needed once

    accounts = RememberedAccounts(SystemAccounts())
    return ClusterView(board, accounts, version=version("ringfence"), default_fs=default_filesystem(around.conf))


def _build_watcher(
    around: Surroundings, board: Board, budgets: Budgets, turn: Turn, wake_loop: Callable[[], None]
) -> EventWatcher:
    config = around.config
    return EventWatcher(
        EventStream(around.events_hdfs),
        Reverter(around.hdfs, turn.is_mine, on_step=around.on_step),
        StateFile(config.state_dir),
        interval_s=config.event_interval,
        wake_loop=wake_loop,
        on_change=board.publish_events,
        find_user=AuditLog(config.namenode_audit_log).find_user,
        pause_s=lambda: min(budgets.pause_s(), STREAM_PAUSE_S),
    )


def _build_loop(
    around: Surroundings,
    board: Board,
    budgets: Budgets,
    turn: Turn,
    watcher: EventWatcher,
    stop: threading.Event,
    checks: tuple[Callable[[], None], ...],
) -> AgentLoop:
    config = around.config
    conf_dir = config.namenode_conf_dir or around.hadoop_conf
    memory = PinMemory(config.state_dir, conf_dir / "core-site.xml")
    inspector = Inspector(
        around.hdfs, has_room=budgets.has_room, suspects=lambda: watcher.view.suspects, forget=watcher.forget
    )
    observer = Observer(
        around.hdfs,
        _policies(around),
        memory,
        namenode_conf_dir=conf_dir,
        user=config.user,
        access=around.access,
        kms_timeout_s=config.call_timeout,
        inspector=inspector,
        namenode_logs=[RefusalLog(path) for path in config.namenode_log],
        turn=turn.view,
        budgets=lambda: budgets.view,
    )
    pinner = Pinner(
        around.hdfs,
        memory,
        timeout_s=config.call_timeout,
        pause=lambda pause_s: _pause(stop, pause_s),
        on_step=around.on_step,
    )
    return AgentLoop(
        observer,
        pinner,
        board,
        interval_s=config.interval,
        checks=checks,
        budgets=budgets,
        longest_pause_s=config.stale_after * _PAUSE_OF_STALE,
        on_look=lambda observation: watcher.adopt(_listing(observation)),
        on_step=around.on_step,
    )


def _policies(around: Surroundings) -> PolicySource:
    if around.config.policy is not None:
        return FilePolicy(around.config.policy)
    return PublishedPolicy(lambda: around.open_kms().find_published())


def _listing(observation: Observation) -> Listing:
    assert observation.from_txid is not None and observation.to_txid is not None
    return Listing(
        zones=observation.state.zones,
        policy=observation.policy,
        from_txid=observation.from_txid,
        to_txid=observation.to_txid,
    )


def _pause(stop: threading.Event, pause_s: float) -> None:
    if stop.wait(pause_s):
        raise HdfsError("the agent is being stopped")
