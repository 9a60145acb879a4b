"""HDFS through a supervised child process: the gateway for something that must stay alive.

A command may load Java into itself; the agent may not. A call into Java that never comes back cannot be cancelled,
and a JVM that runs out of memory takes its process along. Here every call has a deadline: when one passes, the
child is killed, all calls under way fail with NameNodeUnavailableError, and the next call starts a new child.

Thread-safe; calls of several threads are under way at the same time.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import IO, Any

from ringfence_zones.errors import HadoopNotFoundError, NameNodeUnavailableError, RingfenceError
from ringfence_zones.hadoop_conf import read_hadoop_conf
from ringfence_zones.hdfs_child_wire import GREETING_ID, decode_error, decode_result, encode_line
from ringfence_zones.hdfs_interface import Entry, EntryPage, EventPage, ReconfigurationStatus
from ringfence_zones.kerberos import KerberosKeytab
from ringfence_zones.model import DirectoryState, EncryptionZone, TreeNode
from ringfence_zones.namenodes import NameNodeAddress, namenode_addresses

# Above the client's own give-up time (about 15 s), so that it usually explains a dead NameNode itself.
DEFAULT_DEADLINE_S = 30.0
_START_DEADLINE_S = 60.0
_KILL_TIMEOUT_S = 10.0
_MODULE = "ringfence_zones.hdfs_child_main"


class HdfsChild:
    """`hdfs_interface.WatchedHdfs` in a child process; see the module. Starts it with the first call."""

    def __init__(
        self,
        hadoop_conf: Path,
        as_user: str | None = None,
        *,
        keytab: KerberosKeytab | None = None,
        deadline_s: float = DEFAULT_DEADLINE_S,
        environ: Mapping[str, str] | None = None,
        command: Sequence[str] = (sys.executable, "-P", "-m", _MODULE),
    ) -> None:
        """Reads the configuration, starts nothing. Raises ConfigError.

        `as_user` is for simple authentication, `keytab` for Kerberos; see `open_gateway`. `environ` is the child's
        environment (this process's own when None), `command` the program to supervise.
        """
        self.namenodes: tuple[NameNodeAddress, ...] = namenode_addresses(
            read_hadoop_conf(hadoop_conf, "core-site.xml", "hdfs-site.xml")
        )
        login = ["--as", as_user] if as_user is not None else []
        if keytab is not None:
            login += ["--keytab", str(keytab.keytab), keytab.principal]
        self._argv = [*command, str(hadoop_conf), *login]
        self._deadline_s = deadline_s
        self._environ = environ
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self.calls_made = 0
        """How many calls it was asked to make, whatever became of them."""

    @property
    def user(self) -> str:
        """The short name HDFS knows the child by; starts the child."""
        return self._start().user

    @property
    def pid(self) -> int | None:
        """The child's process id, None while none runs."""
        running = self._running
        return running.process.pid if running is not None and running.process.poll() is None else None

    def hadoop_version(self) -> tuple[int, int, int]:
        """See `HdfsGateway`, as for every method below."""
        return self._call("hadoop_version")  # type: ignore[no-any-return]

    def key_provider_uri(self) -> str | None:
        """The NameNode's key provider."""
        return self._call("key_provider_uri")  # type: ignore[no-any-return]

    def last_transaction_id(self) -> int:
        """The id of the namespace's last edit."""
        return self._call("last_transaction_id")  # type: ignore[no-any-return]

    def list_zones(self) -> tuple[EncryptionZone, ...]:
        """Every encryption zone."""
        return self._call("list_zones")  # type: ignore[no-any-return]

    def find_zone_of(self, path: str) -> EncryptionZone | None:
        """The zone a path lies in."""
        return self._call("find_zone_of", path)  # type: ignore[no-any-return]

    def create_zone(self, path: str, key_name: str) -> None:
        """Makes an empty directory a zone."""
        self._call("create_zone", path, key_name)

    def provision_trash(self, path: str) -> None:
        """Gives a zone its trash."""
        self._call("provision_trash", path)

    def make_directory(self, path: str) -> None:
        """Makes a closed directory."""
        self._call("make_directory", path)

    def find_directory(self, path: str) -> DirectoryState | None:
        """What is at a path."""
        return self._call("find_directory", path)  # type: ignore[no-any-return]

    def set_rights(self, path: str, owner: str | None, group: str | None, mode: int, acl: Sequence[str]) -> None:
        """Sets owner, group, mode and ACL."""
        self._call("set_rights", path, owner, group, mode, list(acl))

    def rename(self, source: str, destination: str) -> None:
        """Renames without overwriting."""
        self._call("rename", source, destination)

    def read_tree(self, path: str, limit: int) -> tuple[TreeNode, ...]:
        """A tree with inode numbers and key versions."""
        return self._call("read_tree", path, limit)  # type: ignore[no-any-return]

    def protected_directories(self) -> tuple[str, ...] | None:
        """The live `fs.protected.directories`."""
        return self._call("protected_directories")  # type: ignore[no-any-return]

    def start_reconfiguration(self, namenode: NameNodeAddress) -> None:
        """Reloads one NameNode's configuration."""
        self._call("start_reconfiguration", namenode)

    def reconfiguration_status(self, namenode: NameNodeAddress) -> ReconfigurationStatus:
        """How that reload goes."""
        return self._call("reconfiguration_status", namenode)  # type: ignore[no-any-return]

    def read_events(
        self, after_txid: int, creates_in: Sequence[str] = (), creates_not_in: Sequence[str] = ()
    ) -> EventPage:
        """See `hdfs_namespace.NamespaceCalls`, as for every method below."""
        return self._call("read_events", after_txid, list(creates_in), list(creates_not_in))  # type: ignore[no-any-return]

    def find_entry(self, path: str) -> Entry | None:
        """What is at a path, as its inode."""
        return self._call("find_entry", path)  # type: ignore[no-any-return]

    def list_entries(self, path: str, after: str = "") -> EntryPage:
        """One page of a directory."""
        return self._call("list_entries", path, after)  # type: ignore[no-any-return]

    def find_key_version(self, path: str) -> str | None:
        """The key version of a file."""
        return self._call("find_key_version", path)  # type: ignore[no-any-return]

    def rename_inode(self, inode: int, destination: str) -> None:
        """Renames by inode id, without overwriting."""
        self._call("rename_inode", inode, destination)

    def add_sticky_bit(self, path: str) -> None:
        """Sets a directory's sticky bit."""
        self._call("add_sticky_bit", path)

    def close(self) -> None:
        """Ends the child. A later call starts a new one."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            running.stop("the gateway was closed")

    def _call(self, method: str, *arguments: Any) -> Any:
        running = self._start()
        with self._lock:
            self.calls_made += 1
        future = running.send(method, arguments)
        try:
            result = future.result(self._deadline_s)
        except FutureTimeoutError:
            self._discard(running, f"no answer within {self._deadline_s:g} s")
            raise NameNodeUnavailableError(
                f"HDFS did not answer within {self._deadline_s:g} s ({method})",
                hint="is the NameNode running and reachable from this machine?",
            ) from None
        return decode_result(method, result)

    def _start(self) -> _Running:
        with self._lock:
            if self._running is None or not self._running.is_alive:
                if self._running is not None:
                    self._running.stop("it ended")
                self._running = _Running(self._argv, self._environ)
            running = self._running
        try:
            running.greeting.result(_START_DEADLINE_S)
        except FutureTimeoutError:
            self._discard(running, "it did not start")
            raise HadoopNotFoundError(f"Java did not start within {_START_DEADLINE_S:g} s") from None
        return running

    def _discard(self, running: _Running, why: str) -> None:
        with self._lock:
            if self._running is running:
                self._running = None
        running.stop(why)


class _Running:
    """One child: its pipes, the calls under way, and the thread that hands out answers."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str] | None) -> None:
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ)
        assert self.process.stdin is not None and self.process.stdout is not None
        self._input: IO[bytes] = self.process.stdin
        self._lock = threading.Lock()
        self._numbers = itertools.count(GREETING_ID + 1)
        self.greeting: Future[dict[str, str]] = Future()
        self._waiting: dict[int, Future[Any]] = {GREETING_ID: self.greeting}
        self._over: str | None = None
        threading.Thread(target=self._receive, args=(self.process.stdout,), name="hdfs-child", daemon=True).start()

    @property
    def is_alive(self) -> bool:
        return self._over is None and self.process.poll() is None

    @property
    def user(self) -> str:
        return self.greeting.result()["user"]

    def send(self, method: str, arguments: Sequence[Any]) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            if self._over is not None:
                future.set_exception(_ended(self._over))
                return future
            number = next(self._numbers)
            self._waiting[number] = future
            try:
                self._input.write(encode_line({"id": number, "method": method, "arguments": arguments}))
                self._input.flush()
            except OSError:
                del self._waiting[number]
                future.set_exception(_ended("it ended"))
        return future

    def stop(self, why: str) -> None:
        """Kills the process and fails what is under way. Idempotent."""
        self._fail_all(why)
        self.process.kill()
        self.process.wait(_KILL_TIMEOUT_S)
        try:
            self._input.close()
        except OSError:
            pass

    def _receive(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                answer = json.loads(line)
                with self._lock:
                    future = self._waiting.pop(answer["id"], None)
                if future is None:
                    continue
                if "error" in answer:
                    future.set_exception(decode_error(answer["error"]))
                else:
                    future.set_result(answer["result"])
        self._fail_all("it ended")

    def _fail_all(self, why: str) -> None:
        with self._lock:
            self._over = self._over or why
            waiting, self._waiting = list(self._waiting.values()), {}
        for future in waiting:
            future.set_exception(_ended(why))


def _ended(why: str) -> RingfenceError:
    return NameNodeUnavailableError(
        f"the process that talks to HDFS was stopped: {why}", hint="the next call starts it again"
    )
