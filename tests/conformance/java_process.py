"""One JVM with the real client classes of one Hadoop version, as one user: runs Java cases against several servers.

Started as a process of its own, because a JVM cannot be stopped, a class path cannot be changed, and under `simple`
authentication all users of one JVM arrive as its first. Takes a job as JSON on standard input; the answer, step
records by case and server, goes to the file that the job names, since Java code prints what it likes.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import java_client
import jpype
import jpype.config
from key_servers import KeyServer
from wire import cases_of


def main() -> None:
    job: dict[str, Any] = json.load(sys.stdin)
    jpype.config.destroy_jvm = False
    jpype.startJVM(job["jvm"], *job["options"], classpath=job["classpath"], convertStrings=True)
    java_client.initialise(job["conf"])
    answers: dict[str, dict[str, Any]] = {}
    for name, case in cases_of(importlib.import_module(job["module"])).items():
        answers[name] = {}
        for server in job["servers"]:
            client = java_client.JavaClient(KeyServer(**server), job["conf"], job["tag"])
            client.run(case)
            answers[name][server["name"]] = client.steps
    Path(job["output"]).write_text(json.dumps(answers))
    # Hadoop's own threads (queue refills, token timers) must not keep the process.
    jpype.java.lang.Runtime.getRuntime().halt(0)


if __name__ == "__main__":
    main()
