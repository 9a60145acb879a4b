"""YARN as a transfer uses it: jobs submitted and killed by Hadoop's own commands, as the copying user, and looked for
by tag at the ResourceManager, as the agent.

Hadoop's commands make the job's configuration, its tokens (HDFS's and the KMS's) and its staging as the cluster is set
up for; nothing of that is repeated here. A command never outlives the agent (`leashed`): what it was about to submit is
then either known to the ResourceManager, or never will be.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote

from ringfence_agent.transfer.hands_process import hands_environment
from ringfence_zones.errors import ConfigError, TransferError, YarnUnavailableError
from ringfence_zones.hadoop_conf import read_hadoop_conf
from ringfence_zones.hadoop_home import find_launcher
from ringfence_zones.http_session import HttpAccess
from ringfence_zones.kerberos import KerberosKeytab
from ringfence_zones.yarn import Application, find_tagged, resource_managers

_TASK = Path(__file__).with_name("copy_task.py")
_LEASHED = "ringfence_agent.transfer.leashed"
_TIMEOUT_S = 300.0
_LOOK_S = 0.2
_SAID_BYTES = 64 * 1024
_SAID_CHARACTERS = 300
_TELLING = re.compile(r"(?:Exception|Error|denied|refused|rejected)", re.IGNORECASE)
_STACK = re.compile(r"\s|Caused by:")
_SETTINGS = {
    "mapreduce.job.reduces": "0",
    "mapreduce.map.speculative": "false",
    "mapreduce.map.maxattempts": "4",
    "mapreduce.job.ubertask.enable": "false",
    # A task says every few seconds what it has read: one that is silent for this long (ms) is started anew.
    "mapreduce.task.timeout": "600000",
    "mapreduce.input.lineinputformat.linespermap": "1",
    "stream.map.input.ignoreKey": "true",  # or streaming gives the offset before each line
    "mapreduce.output.fileoutputformat.compress": "false",
    # What a map wrote is there when the map is done, not when the job is: files count one by one.
    "mapreduce.fileoutputcommitter.algorithm.version": "2",
    "fs.permissions.umask-mode": "077",
    # A quarter of an hour otherwise.
    "yarn.resourcemanager.connect.max-wait.ms": "30000",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOrder:
    """A job to submit. `directory` holds `listing` and an empty `copies`; `out` will be made."""

    name: str
    tag: str
    source: str
    directory: str
    queue: str | None


class Yarn:
    """See the module; for one transfer. The configuration is read with every look: YARN may come, or move."""

    def __init__(
        self,
        hadoop_conf: Path,
        user: str,
        *,
        keytab: KerberosKeytab | None,
        access: Callable[[], HttpAccess],
        stop: threading.Event,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """`user` submits, proven by `keytab` under Kerberos; `access` is the agent's own, for looking."""
        self._hadoop_conf = hadoop_conf
        self._user = user
        self._keytab = keytab
        self._access = access
        self._stop = stop
        self._environ = environ

    def check(self) -> None:
        """Raises ConfigError when there is no YARN here that answers, or no command to submit with."""
        managers = self._managers()
        if not managers:
            raise ConfigError(
                f"it would be copied by a job, and no yarn-site.xml in {self._hadoop_conf} names a ResourceManager",
                hint=_WITHOUT_YARN,
            )
        if find_tagged(managers, "ringfence-transfer", self._access()) is None:
            raise ConfigError(
                f"it would be copied by a job, and no ResourceManager answers at {' or '.join(managers)}",
                hint=_WITHOUT_YARN,
            )
        self._command("mapred")

    def find(self, tag: str) -> list[Application]:
        """Everybody's applications with a tag, by id. Raises YarnUnavailableError."""
        found = find_tagged(self._managers(), tag, self._access())
        if found is None:
            raise YarnUnavailableError(
                "no ResourceManager answers the transfer", hint="is it running? the job goes on by itself meanwhile"
            )
        return found

    def submit(self, order: JobOrder) -> None:
        """Returns when YARN has the job, or raises TransferError with Hadoop's reason; some of those who ended badly
        have submitted it all the same."""
        settings = {**_SETTINGS, "mapreduce.job.name": order.name, "mapreduce.job.tags": order.tag}
        if order.queue is not None:
            settings["mapreduce.job.queuename"] = order.queue
        places = [quote(path) for path in (order.source, f"{order.directory}/copies")]
        # Under Kerberos a container runs as the user; without, as the NodeManager, and this says who it speaks for.
        who = [] if self._keytab is not None else ["-cmdenv", f"HADOOP_USER_NAME={self._user}"]
        self._run(
            "mapred",
            "streaming",
            *(f"-D{name}={value}" for name, value in settings.items()),
            *("-files", _TASK.as_uri()),
            "-background",
            *("-inputformat", "org.apache.hadoop.mapred.lib.NLineInputFormat"),
            *("-input", f"{order.directory}/listing"),
            *("-output", f"{order.directory}/out"),
            *("-mapper", " ".join(["python3", _TASK.name, *places])),
            *who,
        )

    def kill(self, application: str) -> None:
        """Asks YARN to end an application. Raises TransferError."""
        self._run("yarn", "application", "-kill", application)

    def _managers(self) -> tuple[str, ...]:
        return resource_managers(read_hadoop_conf(self._hadoop_conf, "core-site.xml", "yarn-site.xml"))

    def _command(self, name: str) -> str:
        command = find_launcher(self._environ).with_name(name)
        if not command.is_file():
            raise ConfigError(
                f"it would be copied by a job, and there is no {command} to submit it with",
                hint="install Hadoop's MapReduce client on the agent's machine, or raise transfers.job.above",
            )
        return str(command)

    def _run(self, name: str, *words: str) -> None:
        command = [sys.executable, "-m", _LEASHED, str(os.getpid()), self._command(name), *words]
        with self._identity() as environ, tempfile.TemporaryFile() as said:
            # Names of directories on the command line, whatever the agent's own locale is.
            process = subprocess.Popen(
                command, env={**environ, "LC_ALL": "C.UTF-8"}, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
            try:
                code = self._wait(process)
            finally:
                process.kill()
                process.wait()
            if code != 0:
                reason = _reason(said) or f"it ended with code {code}"
                raise TransferError(f"'{name} {words[0]}' failed for {self._user}: {reason}")

    def _wait(self, process: subprocess.Popen[bytes]) -> int | None:
        deadline = time.monotonic() + _TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                return process.wait(_LOOK_S)
            except subprocess.TimeoutExpired:
                if self._stop.is_set():
                    break
        raise YarnUnavailableError("YARN took no job, and refused none either, in time")

    @contextmanager
    def _identity(self) -> Iterator[dict[str, str]]:
        environ = hands_environment(self._environ, self._hadoop_conf, self._user, self._keytab)
        if self._keytab is None:
            yield environ
            return
        # Java takes a ticket from a file alone; it is this command's, and gone with it.
        with tempfile.TemporaryDirectory(prefix="ringfence-ticket-") as directory:
            environ["KRB5CCNAME"] = f"FILE:{directory}/cache"
            _log_in(self._keytab, environ)
            yield environ


_WITHOUT_YARN = (
    "raise transfers.job.above in agent.yaml above this size, or take it out, to copy by streams of this machine; or"
    " give the agent the yarn-site.xml of a YARN that runs"
)


def _log_in(keytab: KerberosKeytab, environ: Mapping[str, str]) -> None:
    command: Sequence[str] = ["kinit", "-k", "-t", str(keytab.keytab), keytab.principal]
    try:
        done = subprocess.run(command, env=dict(environ), capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"kinit does not run: {error}", hint="install MIT Kerberos's clients") from error
    if done.returncode != 0:
        raise ConfigError(f"no ticket for {keytab.principal}: {done.stderr.strip()[:_SAID_CHARACTERS]}")


def _reason(said: IO[bytes]) -> str:
    """The first line that names an error, of the end of what a command said."""
    said.seek(max(0, said.seek(0, os.SEEK_END) - _SAID_BYTES))
    lines = said.read().decode("utf-8", "replace").splitlines()
    telling = [line for line in lines if _TELLING.search(line) and not _STACK.match(line)]
    line = telling[0] if telling else next((line for line in reversed(lines) if line.strip()), "")
    return "".join(each if each.isprintable() else " " for each in line).strip()[:_SAID_CHARACTERS]
