"""Our KMS for a minute beside the stock one: with the configuration it will have, on a port of its own."""

from __future__ import annotations

import ctypes
import re
import select
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ringfence_bootstrap.takeover.key_commands import ringfence_command
from ringfence_bootstrap.takeover.services import Account, find_account
from ringfence_zones.errors import InstallError

_READY_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0
_LAST_CHARS = 600
_READY = re.compile(r"ready kms://\S+:(\d+)/kms\s*")
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


@contextmanager
def trial_server(
    config: Path,
    listen: str,
    keystore: str,
    state: Path,
    *,
    account: Account | None = None,
    options: Sequence[str] = (),
) -> Iterator[int]:
    """The port on which it answers; it ends with the block, or with this process. Raises InstallError.

    It runs as `account`; None: as whoever owns the store's directory.
    """
    log = state / "trial.log"
    account = account or find_account(keystore)
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [
                *(ringfence_command(), "kms", "serve", "--config", str(config), "--listen", listen, "--workers", "1"),
                *options,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - this command has no other thread by now
            **account.options(),
        )
    try:
        yield _port(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _port(process: subprocess.Popen[str], log: Path) -> int:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], _READY_TIMEOUT_S)
    match = _READY.fullmatch(process.stdout.readline()) if readable else None
    if match is None:
        said = log.read_text(errors="replace").strip()[-_LAST_CHARS:]
        raise InstallError(f"our KMS does not start with this configuration: {said or 'it said nothing in time'}")
    return int(match[1])


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
