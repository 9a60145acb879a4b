"""The hands of a transfer in a process of their own: as another user than the agent, and killed when they stall.

Rules:

1. One process for one transfer and one user. Its environment names that user and nobody else: what could make a Hadoop
   client somebody else (another user's tokens, a proxy user, a ticket cache of the agent's) is taken out.
2. No act may stand still: when one shows neither an end nor progress for `stall_s`, the process is killed, and every
   act under way fails with HandsLostError, which is worth another try.
3. The process never outlives the agent: its standard input is the leash.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from ringfence_agent.transfer.hands import Attributes, Copied, Entry, Progress
from ringfence_zones.errors import HandsLostError
from ringfence_zones.hdfs_child_wire import GREETING_ID, decode_error, encode_line
from ringfence_zones.kerberos import KerberosKeytab

_MODULE = "ringfence_agent.transfer.hands_main"
_LOOK_S = 0.5
_KILL_WAIT_S = 10.0
# What else says who a Hadoop client is, or shares a ticket.
_IDENTITY = ("HADOOP_USER_NAME", "HADOOP_PROXY_USER", "HADOOP_TOKEN_FILE_LOCATION", "KRB5CCNAME", "KRB5_CLIENT_KTNAME")


def hands_environment(
    environ: Mapping[str, str], hadoop_conf: Path, user: str, keytab: KerberosKeytab | None
) -> dict[str, str]:
    """The environment of hands that act as `user`, who is a claim without `keytab`."""
    kept = {name: value for name, value in environ.items() if name not in _IDENTITY}
    # Nobody else's tickets: neither the agent's default cache, nor one that stays behind.
    who = {"HADOOP_USER_NAME": user} if keytab is None else {"KRB5CCNAME": "MEMORY:ringfence-transfer"}
    return {**kept, **who, "HADOOP_CONF_DIR": str(hadoop_conf)}


class HandsProcess:
    """`hands.Hands`; see the module. Thread-safe: acts of several threads are under way at the same time."""

    def __init__(
        self,
        url: str,
        user: str,
        hadoop_conf: Path,
        *,
        keytab: KerberosKeytab | None = None,
        stall_s: float = 120.0,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Starts the process. `url` is fs.defaultFS."""
        self.user = user
        self._stall_s = stall_s
        login = [] if keytab is None else [str(keytab.keytab), keytab.principal]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE, url, user, *login],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=hands_environment(environ, hadoop_conf, user, keytab),
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input: IO[bytes] = self._process.stdin
        self._lock = threading.Lock()
        self._numbers = itertools.count(GREETING_ID + 1)
        self._acts: dict[int, _Act] = {GREETING_ID: _Act(None)}
        self._greeting = self._acts[GREETING_ID]
        self._over: str | None = None
        threading.Thread(target=self._receive, args=(self._process.stdout,), name="hands", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def list_tree(self, path: str, limit: int) -> list[Entry] | None:
        """See `Hands`, as for every method below."""
        entries = self._call("list_tree", path, limit)
        return None if entries is None else [Entry(**entry) for entry in entries]

    def make_directory(self, path: str, mode: int) -> None:
        """One directory."""
        self._call("make_directory", path, mode)

    def copy(self, source: str, target: str, progress: Progress) -> Copied:
        """One file, read back."""
        return Copied(**self._call("copy", source, target, progress=progress))

    def read_whole(self, path: str, limit: int) -> bytes:
        """A small file."""
        return base64.b64decode(self._call("read_whole", path, limit))

    def write_new(self, path: str, content: bytes) -> None:
        """A small file."""
        self._call("write_new", path, base64.b64encode(content).decode("ascii"))

    def set_attributes(self, path: str, attributes: Attributes) -> None:
        """Owner, mode, times."""
        self._call("set_attributes", path, asdict(attributes))

    def rename(self, source: str, target: str) -> None:
        """Without replacing."""
        self._call("rename", source, target)

    def delete(self, path: str) -> None:
        """A whole tree."""
        self._call("delete", path)

    def close(self) -> None:
        """Ends the process. Idempotent."""
        self._end("it was closed")

    def _call(self, method: str, *arguments: Any, progress: Progress | None = None) -> Any:
        self._wait(self._greeting)
        act = _Act(progress)
        with self._lock:
            if self._over is not None:
                raise _lost(self._over)
            number = next(self._numbers)
            self._acts[number] = act
            try:
                self._input.write(encode_line({"id": number, "method": method, "arguments": arguments}))
                self._input.flush()
            except OSError:
                del self._acts[number]
                raise _lost("it ended") from None
        return self._wait(act)

    def _wait(self, act: _Act) -> Any:
        while True:
            try:
                return act.future.result(_LOOK_S)
            except FutureTimeoutError:
                if time.monotonic() - act.moved_s > self._stall_s:
                    self._end(f"it stood still for {self._stall_s:g} s")

    def _receive(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                answer = json.loads(line)
                with self._lock:
                    act = self._acts.get(answer["id"]) if "progress" in answer else self._acts.pop(answer["id"], None)
                if act is not None:
                    act.take(answer)
        self._end("it ended")

    def _end(self, why: str) -> None:
        with self._lock:
            self._over = self._over or why
            acts, self._acts = list(self._acts.values()), {}
        for act in acts:
            act.future.set_exception(_lost(self._over))
        self._process.kill()
        self._process.wait(_KILL_WAIT_S)
        try:
            self._input.close()
        except OSError:
            pass


class _Act:
    """One act under way. `moved_s` is when it last showed a sign of life."""

    def __init__(self, progress: Progress | None) -> None:
        self.future: Future[Any] = Future()
        self.moved_s = time.monotonic()
        self._progress = progress

    def take(self, answer: dict[str, Any]) -> None:
        self.moved_s = time.monotonic()
        if "progress" in answer:
            if self._progress is not None:
                self._progress(answer["progress"])
        elif "error" in answer:
            self.future.set_exception(decode_error(answer["error"]))
        else:
            self.future.set_result(answer["result"])


def _lost(why: str) -> HandsLostError:
    return HandsLostError(f"the process that copies was stopped: {why}", hint="the transfer goes on by itself")
