"""The pre-fork supervisor: one process that serves nothing and keeps N workers alive.

- The master makes the listening sockets and the generation counters, then forks; it runs no event loop and starts no
  thread, so a fork at any time is safe. It holds the sockets for as long as it serves: connections queued on a dead
  worker's socket wait for its successor.
- SIGTERM or SIGINT: every worker drains; a second one kills. SIGHUP: workers are replaced one slot after another, each
  only once its successor answers; if a successor fails to start, the reload ends and the old worker stays.
- SIGUSR1 is passed on to every worker, for an application that reopens its logs; others pay no heed to it.
- A worker that dies is replaced: at once, then with a doubling delay while it keeps dying. Its death bumps the
  generation, because it may have committed without coming to its own bump. When its successor cannot even start, the
  connections that wait for it are closed, so that clients go on to another server.
- A worker whose event loop does not turn for `hang_timeout_s` is killed, and so replaced.
- When the master dies, by whatever means, the kernel kills its workers.

A reload runs the application factory again; it does not load new code. Workers never outlive a failed start: `run`
raises what the first failing worker met.
"""

from __future__ import annotations

import gc
import logging
import os
import selectors
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from ringfence_agent import process_hygiene
from ringfence_agent.http.generation import GenerationTable
from ringfence_agent.http.limits import Limits
from ringfence_agent.http.listening import Listener, turn_away
from ringfence_agent.http.pulse import PulseTable
from ringfence_agent.http.response import ErrorRenderer, plain_error
from ringfence_agent.http.signal_inbox import SIGNALS, SignalInbox
from ringfence_agent.http.worker import ApplicationFactory, WorkerContext, WorkerSettings, parse_report, run_worker
from ringfence_agent.http.worker_process import Slot, WorkerProcess
from ringfence_zones.errors import ConfigError, RingfenceError

if TYPE_CHECKING:  # a server without TLS does without `cryptography`
    from ringfence_agent.http.tls import ServerTls

_log = logging.getLogger(__name__)

# A worker that has lived so long starts the back-off afresh when it dies.
_STEADY_S = 30.0
_FIRST_DELAY_S = 0.1
# Clients that the kernel sends to the slot of a worker that keeps dying wait in its queue for so long.
_LONGEST_DELAY_S = 2.0
_START_TIMEOUT_S = 120.0
# What a worker may take beyond its drain to close its store.
_CLOSE_GRACE_S = 5.0
_REPORT_BYTES = 65536
# A worker is hung when so many looks in a row find no pulse. Looks are counted, not seconds: after the whole machine
# stood still, or this process did, the first look must not condemn everybody.
_PULSE_CHECKS = 4
# Descriptors a worker needs besides those of its connections.
_OTHER_FILES = 64


class Supervisor:
    """Runs `workers` processes of one application. See the module for what it does on which signal.

    `factory` is called in every worker. In the master, `on_ready` is called once, when every worker answers, and
    `on_crash` whenever a serving worker has died unasked.
    Listeners are made by `listen_tcp(..., slots=workers)` and `listen_unix`; the supervisor closes them. With `tls`
    the TCP listeners speak it; a reload reads its files again.
    """

    def __init__(
        self,
        factory: ApplicationFactory,
        listeners: Sequence[Listener],
        *,
        workers: int,
        limits: Limits | None = None,
        render_error: ErrorRenderer = plain_error,
        drain_timeout_s: float = 20.0,
        tls: ServerTls | None = None,
        hang_timeout_s: float = 60.0,
        on_ready: Callable[[], None] | None = None,
        on_crash: Callable[[], None] | None = None,
    ) -> None:
        if workers < 1:
            raise ConfigError(f"{workers} workers cannot serve", hint="use at least one worker")
        self._pulses = PulseTable(2 * workers)
        self._pulse_interval_s = hang_timeout_s / _PULSE_CHECKS
        self._pulse_check_at = 0.0
        self._settings = WorkerSettings(factory, limits or Limits(), render_error, drain_timeout_s, self._pulses, tls)
        self._listeners = list(listeners)
        self._slots = [Slot() for _ in range(workers)]
        # Two per slot, for a worker and its successor, and the master's.
        self._table = GenerationTable(2 * workers + 1)
        self._generation = self._table.view(2 * workers)
        self._token_table = GenerationTable(2 * workers + 1)
        self._token_generation = self._token_table.view(2 * workers)
        self._on_ready = on_ready
        self._on_crash = on_crash
        self._ready_announced = False
        self._stopping = False
        self._signals = SignalInbox()
        self._to_replace: deque[int] = deque()
        self._successor: WorkerProcess | None = None
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Serves until told to stop. Call it from the main thread of a process without other threads.

        Raises what a worker met when it could not start (ConfigError for the InputError family, RingfenceError else).
        """
        self._fit_connections(process_hygiene.raise_open_files_limit())
        # What the master loaded is never looked at again: workers then share those pages instead of copying them.
        gc.collect()
        gc.freeze()
        self._signals.open(self._selector)
        try:
            for slot in range(len(self._slots)):
                self._slots[slot].current = self._start(slot)
            while not (self._stopping and not self._all_workers()):
                self._step()
        finally:
            self._kill_everyone()
            for listener in self._listeners:
                listener.close()
            self._signals.close()
            self._selector.close()

    def _fit_connections(self, open_files: int) -> None:
        limits = self._settings.limits
        room = max(1, open_files - _OTHER_FILES)
        if limits.connections > room:
            _log.warning("the limit of open files (%d) allows %d connections per worker", open_files, room)
            self._settings = replace(self._settings, limits=replace(limits, connections=room))

    # -- one turn of the loop

    def _step(self) -> None:
        for key, _ in self._selector.select(self._timeout_s()):
            if not self._signals.is_woken_by(key.fd):
                self._read_reports(key.data)
        self._reap()
        if self._signals.take_reopen():
            for worker in self._all_workers():
                worker.send(signal.SIGUSR1)
        stops = self._signals.take_stops()
        if stops:
            self._stop(at_once=stops > 1)
        self._kill_overdue()
        if not self._stopping:
            self._check_pulses()
            self._start_due()
            self._advance_reload()

    def _timeout_s(self) -> float | None:
        due = [slot.start_at for slot in self._slots if slot.start_at is not None]
        due += [worker.kill_at for worker in self._all_workers() if worker.kill_at is not None]
        if not self._stopping:
            due.append(self._pulse_check_at)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _all_workers(self) -> list[WorkerProcess]:
        workers = [slot.current for slot in self._slots if slot.current is not None]
        workers += [worker for slot in self._slots for worker in slot.retiring]
        return workers + ([self._successor] if self._successor is not None else [])

    def _read_reports(self, worker: WorkerProcess) -> bool:
        """Reads what a worker says; returns whether there may be more."""
        try:
            data = os.read(worker.reports, _REPORT_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._close_reports(worker)
            return False
        *lines, worker.unread = (worker.unread + data).split(b"\n")
        for line in lines:
            worker.problem = parse_report(line)
            worker.ready = worker.problem is None
            if worker.ready and not self._stopping:
                worker.kill_at = None
        self._announce_ready()
        return True

    def _close_reports(self, worker: WorkerProcess) -> None:
        if worker.reports >= 0:
            self._selector.unregister(worker.reports)
            os.close(worker.reports)
            worker.reports = -1

    def _announce_ready(self) -> None:
        everyone = all(slot.current is not None and slot.current.ready for slot in self._slots)
        if everyone and not self._ready_announced:
            self._ready_announced = True
            if self._on_ready is not None:
                self._on_ready()

    # -- birth

    def _start(self, slot: int) -> WorkerProcess:
        used = {worker.counter for worker in self._all_workers()}
        counter = next(number for number in (2 * slot, 2 * slot + 1) if number not in used)
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        parent_pid = os.getpid()
        sys.stdout.flush()
        # Nothing may run the master's handlers in the child between the fork and the reset.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            self._become_worker(slot, counter, write_end, parent_pid, blocked)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.close(write_end)
        now = time.monotonic()
        worker = WorkerProcess(pid, slot, counter, read_end, now, kill_at=now + _START_TIMEOUT_S)
        self._selector.register(read_end, selectors.EVENT_READ, worker)
        return worker

    def _become_worker(
        self, slot: int, counter: int, report_descriptor: int, parent_pid: int, mask: set[signal.Signals | int]
    ) -> None:
        status = 1
        try:
            process_hygiene.die_with_parent(parent_pid)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
                signal.signal(number, signal.SIG_IGN)
            for number in (signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            self._close_masters_descriptors()
            sockets = [one for listener in self._listeners for one in listener.sockets_for(slot)]
            for listener in self._listeners:
                listener.keep_only(slot)
            context = WorkerContext(
                slot,
                len(self._slots),
                self._table.view(counter),
                self._token_table.view(counter),
                counter,
                is_successor=self._slots[slot].current is not None,
            )
            status = run_worker(self._settings, context, sockets, report_descriptor)
        finally:
            # Never back into the master's stack: its clean-up is not the child's to do.
            logging.shutdown()
            os._exit(status)

    def _close_masters_descriptors(self) -> None:
        self._selector.close()
        self._signals.close_in_child()
        for worker in self._all_workers():
            if worker.reports >= 0:
                os.close(worker.reports)

    def _start_due(self) -> None:
        now = time.monotonic()
        for number, slot in enumerate(self._slots):
            if slot.start_at is not None and slot.start_at <= now:
                slot.start_at = None
                slot.current = self._start(number)

    # -- death

    def _reap(self) -> None:
        for worker in self._all_workers():
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid == 0:
                continue
            # Its last words are still in the pipe.
            while worker.reports >= 0 and self._read_reports(worker):
                pass
            self._close_reports(worker)
            self._bury(worker, os.waitstatus_to_exitcode(status))

    def _bury(self, worker: WorkerProcess, exit_code: int) -> None:
        self._generation.bump()
        self._token_generation.bump()
        slot = self._slots[worker.slot]
        if worker in slot.retiring:
            slot.retiring.remove(worker)
            _log.info("worker %d (pid %d) has ended", worker.slot, worker.pid)
            return
        if worker is self._successor:
            self._successor = None
            if self._stopping:
                return
            self._to_replace.clear()
            _log.error("reload given up, the other workers stay: %s", worker.obituary(exit_code))
            if slot.current is None:
                self._schedule(worker.slot, worker)
            return
        slot.current = None
        if self._stopping:
            return
        if not self._ready_announced:
            raise worker.problem or RingfenceError(worker.obituary(exit_code), hint="the log above says more")
        if self._on_crash is not None:
            self._on_crash()
        if self._successor is None or self._successor.slot != worker.slot:
            self._schedule(worker.slot, worker)
        _log.error("%s", worker.obituary(exit_code))

    def _schedule(self, number: int, dead: WorkerProcess) -> None:
        slot = self._slots[number]
        now = time.monotonic()
        slot.deaths = 1 if dead.ready and now - dead.started > _STEADY_S else slot.deaths + 1
        delay_s = 0.0 if slot.deaths == 1 else min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2 ** (slot.deaths - 2))
        slot.start_at = now + delay_s
        _log.warning("worker %d is started again in %g s", number, delay_s)
        if not dead.ready:
            self._turn_away(number)

    def _turn_away(self, number: int) -> None:
        """Closes what waits for a slot that nobody serves; a socket that other slots share, when none is served."""
        is_served = any(slot.current is not None and slot.current.ready for slot in self._slots)
        for listener in self._listeners:
            sockets = listener.sockets_for(number)
            others = [one for slot in range(len(self._slots)) if slot != number for one in listener.sockets_for(slot)]
            turn_away([one for one in sockets if not (is_served and one in others)])

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for worker in self._all_workers():
            if worker.kill_at is not None and worker.kill_at <= now:
                _log.error("worker %d (pid %d) does not come to an end and is killed", worker.slot, worker.pid)
                worker.kill_at = None
                worker.send(signal.SIGKILL)

    def _check_pulses(self) -> None:
        now = time.monotonic()
        if now < self._pulse_check_at:
            return
        self._pulse_check_at = now + self._pulse_interval_s
        for worker in self._all_workers():
            if not worker.ready or worker.kill_at is not None:
                continue  # it has a deadline already
            pulse = self._pulses.count(worker.counter)
            worker.pulses_missed = worker.pulses_missed + 1 if pulse == worker.pulse else 0
            worker.pulse = pulse
            if worker.pulses_missed >= _PULSE_CHECKS:
                worker.pulses_missed = 0
                _log.error("worker %d (pid %d) hangs and is killed", worker.slot, worker.pid)
                worker.send(signal.SIGKILL)

    def _retire(self, worker: WorkerProcess) -> None:
        worker.kill_at = time.monotonic() + self._settings.drain_timeout_s + _CLOSE_GRACE_S
        worker.send(signal.SIGTERM)

    # -- what signals ask for

    def _stop(self, *, at_once: bool) -> None:
        if self._stopping or at_once:
            self._stopping = True
            for worker in self._all_workers():
                worker.send(signal.SIGKILL)
            return
        self._stopping = True
        self._to_replace.clear()
        # The workers' copies take what is queued; a client that comes later is refused at once and tries elsewhere.
        for listener in self._listeners:
            listener.close()
        for slot in self._slots:
            slot.start_at = None
        for worker in self._all_workers():
            if worker.kill_at is None or not worker.ready:
                self._retire(worker)

    def _advance_reload(self) -> None:
        if self._signals.wants_reload and not self._to_replace and self._successor is None and self._ready_announced:
            self._signals.reload_begun()
            self._to_replace.extend(range(len(self._slots)))
            if self._settings.tls is not None:
                self._settings.tls.renew()
            _log.info("reload: replacing %d workers", len(self._slots))
        if self._successor is not None and self._successor.ready:
            self._put_in_place(self._successor)
        # Its predecessor may still be draining since an earlier reload: each slot has two counters.
        if self._successor is None and self._to_replace and not self._slots[self._to_replace[0]].retiring:
            number = self._to_replace.popleft()
            self._slots[number].start_at = None
            self._successor = self._start(number)

    def _put_in_place(self, successor: WorkerProcess) -> None:
        slot = self._slots[successor.slot]
        predecessor, slot.current = slot.current, successor
        self._successor = None
        slot.deaths = 0
        if predecessor is not None:
            slot.retiring.append(predecessor)
            self._retire(predecessor)

    def _kill_everyone(self) -> None:
        """Only after a failed start or a bug: a clean stop leaves nobody."""
        for worker in self._all_workers():
            worker.send(signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(worker.pid, 0)
