"""What an init script of EMR's Hadoop does: starts and stops one daemon of the sandbox in DIRECTORY.

emr_node_daemon.py DIRECTORY kms|namenode start|stop
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path


def main():
    directory, daemon, verb = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    state = json.loads((directory / "state.json").read_text())
    pid_file = Path(f"/run/hadoop/{daemon}.pid")
    pid = int(pid_file.read_text()) if pid_file.exists() else state["processes"][daemon]["pid"]
    if verb == "stop":
        stop(pid)
    elif not runs(pid):
        environ = {
            **os.environ,
            "JAVA_HOME": state["java_home"],
            "HADOOP_USER_NAME": "hdfs",
            "HADOOP_CONF_DIR": str(directory / ("kms-conf" if daemon == "kms" else "conf")),
            "HADOOP_LOG_DIR": str(directory / "logs"),
            "HADOOP_DAEMON_OPTS": f"-Xms64m -Xmx512m -Djava.io.tmpdir={directory}/tmp",
        }
        program = ("hadoop", "kms") if daemon == "kms" else ("hdfs", "namenode")
        with (directory / "logs" / f"{daemon}-again.log").open("a") as log:
            process = subprocess.Popen(
                [directory / "hadoop/bin" / program[0], program[1]],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        pid_file.write_text(str(process.pid))


def stop(pid):
    if runs(pid):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while runs(pid):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def runs(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return not re.search(r"\) Z ", stat) and (b"java" in words or b"hadoop" in words or b"hdfs" in words)


main()
