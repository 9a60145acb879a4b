"""The task of a transfer's job on YARN: copies files, reads the copies back and says what it read.

Hadoop Streaming runs it on a node as `python3 copy_task.py SOURCE COPIES` (both percent-encoded), with this file alone
and whatever Python 3.7 or newer the node has; `job_records` writes what it reads and checks what it writes.

Standard input has lines, each a JSON array of files: `{"number": 7, "path": "sub/a", "bytes": 1024}`; `path` is below
SOURCE, empty for SOURCE itself. For each it prints one line of ASCII JSON:

    {"path": "sub/a", "copy": "7.m_000001_0", "bytes_read": 1024, "sha256_read": HEX, "bytes_back": ..., ...}
    {"path": "sub/a", "error": "cat: Permission denied: user=masker, ..."}

Rules:

1. Data goes through pipes of Hadoop's own `hdfs dfs`, never to this node's disk.
2. A copy is COPIES/NUMBER.ATTEMPT, so that nothing that is there is ever replaced, and an attempt that YARN believes
   dead cannot write to what another one read back. What earlier attempts of this task left is removed.
3. What fails is tried again by YARN, elsewhere; the last attempt says why in a record instead. No name of a file gets
   into the node's logs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any, Callable, Dict, List, Optional, Tuple
from urllib.parse import unquote

CHUNK_BYTES = 1024 * 1024
_REPORT_S = 5.0
_ERROR_CHARACTERS = 400
_DEFAULT_ATTEMPTS = 4  # mapreduce.map.maxattempts
_ATTEMPT = re.compile(r"attempt_[0-9]+_[0-9]+_(m_[0-9]+)_([0-9]+)")
# Hadoop's shell takes paths for patterns.
_PATTERN = re.compile(r"([\\*?\[\]{}^,])")
# A line of a log, of a stack or of Java's, beside which the shell's own sentence stands.
_NOISE = re.compile(r"^(?:\s|\d{4}-\d\d-\d\d |\d\d/\d\d/\d\d |(?:WARNING|SLF4J|Picked up)\b)")


class CopyError(Exception):
    """A file could not be copied; says why, with whatever names that takes."""


def find_hdfs(environ: Dict[str, str]) -> str:
    """The `hdfs` command of this node: on the PATH, else below the directories that a NodeManager hands on."""
    found = shutil.which("hdfs", path=environ.get("PATH"))
    if found:
        return found
    for name in ("HADOOP_HDFS_HOME", "HADOOP_HOME", "HADOOP_COMMON_HOME"):
        candidate = Path(environ.get(name) or "/nowhere", "bin", "hdfs")
        if os.access(candidate, os.X_OK):
            return str(candidate)
    raise CopyError("there is no hdfs command on this node: put it on the PATH of the NodeManager")


def shell_environment(environ: Dict[str, str]) -> Dict[str, str]:
    """For Hadoop's shell: names of files in UTF-8, errors alone, and a small heap beside the task's own."""
    made = dict(environ)
    if "UTF-8" not in (made.get("LC_ALL") or made.get("LANG", "")).upper().replace("UTF8", "UTF-8"):
        made["LC_ALL"] = "C.UTF-8"
    made["HADOOP_ROOT_LOGGER"] = "ERROR,console"
    made["HADOOP_CLIENT_OPTS"] = "-Xmx256m -XX:+UseSerialGC"
    return made


class Attempt:
    """This attempt of the task, as YARN numbers it."""

    def __init__(self, environ: Dict[str, str]) -> None:
        match = _ATTEMPT.search(environ.get("mapreduce_task_attempt_id", ""))
        if match is None:
            raise CopyError("this is no task of a job: mapreduce_task_attempt_id is not set")
        self.task, self.number = match.group(1), int(match.group(2))
        most = environ.get("mapreduce_map_maxattempts", "")
        self.is_last = self.number + 1 >= (int(most) if most.isdigit() else _DEFAULT_ATTEMPTS)

    def name(self, file_number: int) -> str:
        """What this attempt calls its copy of a file."""
        return f"{file_number}.{self.task}_{self.number}"

    def names_before(self, file_number: int) -> List[str]:
        """What earlier attempts called theirs."""
        return [f"{file_number}.{self.task}_{earlier}" for earlier in range(self.number)]


class Shell:
    """`hdfs dfs` of this node. `report` is called with bytes that were read since it was called last."""

    def __init__(self, hdfs: str, environ: Dict[str, str], report: Callable[[int], None]) -> None:
        self._argv = [hdfs, "dfs", "-Dfs.permissions.umask-mode=077"]
        self._environ = environ
        self._report = report

    def copy(self, source: str, copy: str) -> Tuple[int, str]:
        """Writes the content of `source` to `copy`, which must not be there; the bytes and digest that were read."""
        with tempfile.TemporaryFile() as said:
            # -d: written under its own name; the shell would rename a temporary one, and could be killed before.
            writer = self._start(["-put", "-d", "-", _literal(copy)], said, stdin=subprocess.PIPE)
            assert writer.stdin is not None
            try:
                read = self._read(source, writer.stdin)
                writer.stdin.close()
            except BrokenPipeError:
                read = None  # the writer ended first, and says why
            except BaseException:
                writer.kill()
                raise
            finally:
                code = _ended(writer)
            if code != 0 or read is None:
                raise CopyError(_reason(said, code))
            return read

    def read(self, path: str) -> Tuple[int, str]:
        """The bytes and the digest of a file."""
        return self._read(path, None)

    def remove(self, paths: List[str]) -> None:
        """Removes files; none there is success."""
        with tempfile.TemporaryFile() as said:
            code = self._start(["-rm", "-f", "-skipTrash"] + [_literal(path) for path in paths], said).wait()
            if code != 0:
                raise CopyError(_reason(said, code))

    def _read(self, path: str, to: Optional[IO[bytes]]) -> Tuple[int, str]:
        digest, size = hashlib.sha256(), 0
        with tempfile.TemporaryFile() as said:
            reader = self._start(["-cat", _literal(path)], said, stdout=subprocess.PIPE)
            assert reader.stdout is not None
            stream = reader.stdout
            try:
                for chunk in iter(lambda: stream.read(CHUNK_BYTES), b""):
                    digest.update(chunk)
                    size += len(chunk)
                    if to is not None:
                        to.write(chunk)
                    self._report(len(chunk))
                if to is not None:
                    to.flush()
            except BaseException:
                reader.kill()
                raise
            finally:
                stream.close()
                code = reader.wait()
            if code != 0:
                raise CopyError(_reason(said, code))
        return size, digest.hexdigest()

    def _start(
        self, words: List[str], said: IO[bytes], stdin: int = subprocess.DEVNULL, stdout: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._argv + words, env=self._environ, stdin=stdin, stdout=stdout, stderr=said)


class Reporter:
    """Tells YARN on standard error that the task lives, every few seconds."""

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._unsaid = 0
        self._said_s = clock()

    def moved(self, size: int) -> None:
        """So many bytes were read."""
        self._unsaid += size
        if self._clock() - self._said_s >= _REPORT_S:
            self.say()

    def say(self) -> None:
        """Says it now."""
        self._stream.write(f"reporter:counter:Ringfence,bytes read,{self._unsaid}\n")
        self._stream.flush()
        self._unsaid, self._said_s = 0, self._clock()


def copy_file(shell: Shell, attempt: Attempt, source: str, copies: str, wanted: Dict[str, Any]) -> Dict[str, Any]:
    """One file, as its record says it. Raises CopyError."""
    path, number = wanted["path"], int(wanted["number"])
    if path.startswith("/") or not all(part not in ("", ".", "..") for part in path.split("/") if path):
        raise CopyError("this is no path below the source")
    if attempt.number:
        shell.remove([copies + "/" + name for name in attempt.names_before(number)])
    name = attempt.name(number)
    bytes_read, sha256_read = shell.copy(source + "/" + path if path else source, copies + "/" + name)
    bytes_back, sha256_back = shell.read(copies + "/" + name)
    return {
        "path": path,
        "copy": name,
        "bytes_read": bytes_read,
        "sha256_read": sha256_read,
        "bytes_back": bytes_back,
        "sha256_back": sha256_back,
    }


def main(arguments: List[str], environ: Dict[str, str], lines: IO[bytes], records: IO[str], reports: IO[str]) -> int:
    """Copies what `lines` name. 0 when each file has its record."""
    source, copies = (unquote(argument) for argument in arguments)
    attempt, reporter = Attempt(environ), Reporter(reports)
    shell = None
    for line in lines:
        for wanted in json.loads(line.decode("ascii")):
            try:
                shell = shell or Shell(find_hdfs(environ), shell_environment(environ), reporter.moved)
                record = copy_file(shell, attempt, source, copies, wanted)
            except CopyError as error:
                if not attempt.is_last:
                    reports.write("a file could not be copied; the last attempt will say which and why\n")
                    return 1
                record = {"path": wanted["path"], "error": str(error)[:_ERROR_CHARACTERS]}
            records.write(json.dumps(record, sort_keys=True) + "\n")
            reporter.say()
    records.flush()
    return 0


def _literal(path: str) -> str:
    return _PATTERN.sub(r"\\\1", path)


def _ended(writer: subprocess.Popen[bytes]) -> int:
    try:
        if writer.stdin is not None:
            writer.stdin.close()
    except BrokenPipeError:
        pass
    return writer.wait()


def _reason(said: IO[bytes], code: int) -> str:
    """The last thing that the shell said for people."""
    said.seek(0, os.SEEK_END)
    said.seek(max(0, said.tell() - 16384))
    lines = said.read().decode("utf-8", "replace").splitlines()
    telling = [line.strip() for line in lines if line.strip() and not _NOISE.match(line)]
    return telling[-1] if telling else f"hdfs dfs ended with code {code} and said nothing"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], dict(os.environ), sys.stdin.buffer, sys.stdout, sys.stderr))
