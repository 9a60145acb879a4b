"""The control socket: what tests may order and no client of the API can. One JSON object a line, one line back."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from vault_double.aws_auth import AwsIdentity
from vault_double.core import Core
from vault_double.faults import Faults
from vault_double.recording import Recording
from vault_double.storage import MAX_LAG_S


class Control:
    """The orders, by name."""

    def __init__(self, core: Core, faults: Faults, recording: Recording) -> None:
        self._core, self._faults, self._recording = core, faults, recording
        cluster = core.cluster
        self._orders: dict[str, Callable[..., Any]] = {
            "fault": lambda **order: faults.add(order),
            "clear": lambda rule=None: faults.clear(rule),
            "met": faults.met,
            "seal": lambda node=0: cluster.seal(cluster.nodes[node]),
            "unseal": lambda node=0: cluster.unseal(cluster.nodes[node]),
            "step_down": cluster.step_down,
            "active": lambda: cluster.get_active().index,
            "lag": self._set_lag,
            "freeze_standbys": self._freeze_standbys,
            "initialized": self._set_initialized,
            "kv_upgrade": self._set_kv_upgrade,
            "advance": core.clock.advance,
            "aws_identity": self._register_aws_identity,
            "requests": recording.as_data,
            "forget_requests": recording.reset,
        }

    def _set_lag(self, seconds: float) -> None:
        if not 0 <= seconds <= MAX_LAG_S:
            raise ValueError(f"a lag is between 0 and {MAX_LAG_S} s")
        self._core.cluster.lag_s = seconds

    def _register_aws_identity(self, access_key_id: str, secret_key: str, arn: str) -> None:
        self._core.storage.put(f"aws-identity/{access_key_id}", AwsIdentity(access_key_id, secret_key, arn))

    def _freeze_standbys(self, value: bool) -> None:
        """They see no change any more, for as long as the storage remembers."""
        self._core.cluster.frozen_at = time.monotonic() if value else None

    def _set_kv_upgrade(self, seconds: float) -> None:
        self._core.kv_upgrade_s = seconds

    def _set_initialized(self, value: bool) -> None:
        self._core.cluster.is_initialized = value

    def obey(self, line: bytes) -> dict[str, Any]:
        """Runs one order: `{"order": NAME, ...}`."""
        try:
            order = json.loads(line)
            return {"result": self._orders[order.pop("order")](**order)}
        except (KeyError, TypeError, ValueError, IndexError) as error:
            return {"error": f"{type(error).__name__}: {error}"}


class _Handler(socketserver.StreamRequestHandler):
    control: ClassVar[Control]

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(json.dumps(self.control.obey(line)).encode() + b"\n")


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def listen(path: Path, control: Control) -> None:
    """Takes orders on a Unix socket."""
    server = _Server(str(path), type("ControlHandler", (_Handler,), {"control": control}))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
