"""The process behind `HandsProcess`: `python -m ringfence_agent.transfer.hands_main FS USER [KEYTAB PRINCIPAL]`.

One process, one user: under simple authentication `HADOOP_USER_NAME` says who, with a keytab Kerberos proves it. It
reads requests from standard input and answers on what was standard output. It ends at once when its input does,
whatever is under way, so that it never outlives the agent; what it was writing then is staged, and counts for nothing.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ringfence_agent.transfer.hands import Attributes
from ringfence_agent.transfer.native_hands import NativeHands
from ringfence_zones.client_config import read_client_config
from ringfence_zones.errors import RingfenceError, TransferError
from ringfence_zones.hdfs_child_wire import GREETING_ID, encode_error, encode_line
from ringfence_zones.kerberos import KerberosKeytab
from ringfence_zones.tls_trust import TlsTrust

_THREADS = 64  # the agent says how many streams there are
_PROGRESS_BYTES = 1024 * 1024
_log = logging.getLogger(__name__)


class _Server:
    def __init__(self, hands: NativeHands, descriptor: int) -> None:
        self._hands = hands
        # Whole lines of less than a pipe's buffer are written in one step, and longer ones under a lock of the stream.
        self._stream = os.fdopen(descriptor, "wb")

    def send(self, message: dict[str, Any]) -> None:
        try:
            # One call: a buffered stream locks itself.
            self._stream.write(encode_line(message))
            self._stream.flush()
        except BrokenPipeError:
            os._exit(0)

    def serve(self, request: dict[str, Any]) -> None:
        number = request["id"]
        try:
            result = self._act(number, request["method"], request["arguments"])
            self.send({"id": number, "result": result})
        except RingfenceError as error:
            self.send({"id": number, "error": encode_error(error)})
        except Exception as error:  # noqa: BLE001 - the caller must get an answer, whatever went wrong
            _log.exception("an act failed unexpectedly")
            self.send({"id": number, "error": encode_error(TransferError(f"internal error: {type(error).__name__}"))})

    def _act(self, number: int, method: str, arguments: list[Any]) -> Any:
        hands = self._hands
        match method:
            case "list_tree":
                entries = hands.list_tree(*arguments)
                return None if entries is None else [asdict(entry) for entry in entries]
            case "copy":
                return asdict(hands.copy(arguments[0], arguments[1], self._reporter(number)))
            case "read_whole":
                return base64.b64encode(hands.read_whole(*arguments)).decode("ascii")
            case "write_new":
                return hands.write_new(arguments[0], base64.b64decode(arguments[1]))
            case "set_attributes":
                return hands.set_attributes(arguments[0], Attributes(**arguments[1]))
            case "make_directory":
                return hands.make_directory(*arguments)
            case "rename":
                return hands.rename(*arguments)
            case "delete":
                return hands.delete(*arguments)
            case _:
                raise TransferError(f"no such act: {method}")

    def _reporter(self, number: int) -> Any:
        unsaid = 0

        def progress(size: int) -> None:
            nonlocal unsaid
            unsaid += size
            if unsaid >= _PROGRESS_BYTES:
                self.send({"id": number, "progress": unsaid})
                unsaid = 0

        return progress


def main(arguments: list[str]) -> int:
    """Serves until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C at the terminal is for the agent
    answers = os.dup(1)
    os.dup2(2, 1)
    url, user, *login = arguments
    keytab = KerberosKeytab(keytab=Path(login[0]), principal=login[1]) if login else None
    try:
        _trust_as_configured()
        server = _Server(NativeHands(url, user, keytab), answers)
    except RingfenceError as error:
        os.write(answers, encode_line({"id": GREETING_ID, "error": encode_error(error)}))
        return 1
    server.send({"id": GREETING_ID, "result": {"user": user}})
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="act")
    for line in sys.stdin.buffer:
        pool.submit(server.serve, json.loads(line))
    # Not a return: a call that waits for HDFS would hold the interpreter's exit.
    os._exit(0)


def _trust_as_configured() -> None:
    """The client in Rust reads no `ssl-client.xml`: whom it trusts it takes from a PEM file that `SSL_CERT_FILE` names.

    The file is memory of this process, so that none is left behind. Raises ConfigError.
    """
    hadoop_conf = Path(os.environ["HADOOP_CONF_DIR"])
    pem = TlsTrust(read_client_config(hadoop_conf, os.environ).kms_ca_file, hadoop_conf).find_pem()
    if pem is not None:
        descriptor = os.memfd_create("trusted-certificates")
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            stream.write(pem)
        os.environ["SSL_CERT_FILE"] = f"/proc/self/fd/{descriptor}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
