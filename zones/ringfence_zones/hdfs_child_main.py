"""The process behind `HdfsChild`: `python -m ringfence_zones.hdfs_child_main HADOOP_CONF [LOGIN]`.

LOGIN is `--as USER` or `--keytab FILE PRINCIPAL`; without one Hadoop's own rules say who it is.

Reads requests from standard input and answers on what was standard output when it started; Java and anything else
that prints goes to standard error. It ends when its input does, so it never outlives the process that started it:
the input pipe is the leash, watched by a thread that no stuck call can hold up. (`PR_SET_PDEATHSIG` would not do:
it fires when the *thread* that forked ends.)
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ringfence_zones.errors import HdfsError, RingfenceError
from ringfence_zones.hdfs import HdfsGateway, open_gateway
from ringfence_zones.hdfs_child_wire import GREETING_ID, decode_arguments, encode_error, encode_line
from ringfence_zones.kerberos import KerberosKeytab

_THREADS = 8
_log = logging.getLogger(__name__)


class _Answers:
    """Writes whole lines from many threads."""

    def __init__(self, descriptor: int) -> None:
        self._stream = os.fdopen(descriptor, "wb", buffering=0)
        self._lock = threading.Lock()

    def send(self, message: dict[str, Any]) -> None:
        line = encode_line(message)
        with self._lock:
            view = memoryview(line)
            while view:
                view = view[self._stream.write(view) or 0 :]


def main(arguments: list[str]) -> int:
    """Serves until standard input ends; 1 when HDFS could not be opened (the greeting says why)."""
    # A Ctrl-C at the terminal is for the parent, which closes the input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = _Answers(os.dup(1))
    os.dup2(2, 1)
    try:
        gateway = _open(Path(arguments[0]), arguments[1:])
    except RingfenceError as error:
        answers.send({"id": GREETING_ID, "error": encode_error(error)})
        return 1
    answers.send({"id": GREETING_ID, "result": {"user": gateway.user}})
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="call")
    for line in sys.stdin.buffer:
        pool.submit(_serve, gateway, answers, json.loads(line))
    # Not a return: a call that hangs in Java would hold the interpreter's exit.
    os._exit(0)


def _open(hadoop_conf: Path, login: list[str]) -> HdfsGateway:
    if login[:1] == ["--keytab"]:
        keytab = KerberosKeytab(keytab=Path(login[1]), principal=login[2])
        return open_gateway(hadoop_conf, keytab=keytab)
    return open_gateway(hadoop_conf, login[1] if login else None)


def _serve(gateway: HdfsGateway, answers: _Answers, request: dict[str, Any]) -> None:
    number = request["id"]
    try:
        method = request["method"]
        result = getattr(gateway, method)(*decode_arguments(method, request["arguments"]))
        answers.send({"id": number, "result": result})
    except RingfenceError as error:
        answers.send({"id": number, "error": encode_error(error)})
    except BrokenPipeError:
        os._exit(0)
    except Exception as error:  # noqa: BLE001 - the caller must get an answer, whatever went wrong
        _log.exception("a call failed unexpectedly")
        answers.send({"id": number, "error": encode_error(HdfsError(f"internal error: {type(error).__name__}"))})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
