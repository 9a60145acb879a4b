"""What flow rules cost a decrypt: one of our servers with them and one without, both warm, their rounds in turn.

Both have published the same zones. The rules are enforced and let the reader through: each zone has a flow to and from
each other one, since a reader who opens EEKs for the first time writes, and then reads, in all of them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

from kms_load import create_keys, key_names
from kms_servers import Ringfence, Server
from throughput import GENERATOR, READER, Effort, SamplesByServer, measure_throughput

from ringfence_zones.client_config import ClientConfig
from ringfence_zones.kms_admin import open_admin_client
from ringfence_zones.kms_uri import parse_kms_uri
from ringfence_zones.policy import canonical_json, policy_from_json

WITH, WITHOUT = "with flow rules", "without"


@dataclass(frozen=True, slots=True)
class FlowFigures:
    """Warm decrypts, by WITH and WITHOUT."""

    warm: SamplesByServer

    @property
    def ratio(self) -> float | None:
        """CPU time of a decrypt with flow rules over that without, of the leasts."""
        ours, without = self.warm[WITH].cpu, self.warm[WITHOUT].cpu
        return None if ours is None or without is None else ours.minimum / without.minimum


def measure_flow_rules(program: Path, scratch: Path, effort: Effort, say: Callable[[str], None]) -> FlowFigures:
    """Both servers side by side. Raises BenchError as `measure_throughput`."""
    with ExitStack() as stack:
        servers = [stack.enter_context(_serving(program, scratch, name)) for name in (WITH, WITHOUT)]
        return FlowFigures(measure_throughput(servers, ("decrypt",), effort, say).samples["decrypt"])


@contextlib.contextmanager
def _serving(program: Path, scratch: Path, name: str) -> Iterator[Server]:
    directory = scratch / f"flows-{name.replace(' ', '-')}"
    directory.mkdir(mode=0o700)
    config, socket = directory / "kms.yaml", directory / "admin.sock"
    config.write_text(json.dumps({"admin": {"socket": str(socket)}}))
    with Ringfence(program, directory / "kms", name=name, config=config).running() as server:
        create_keys(server.caller(GENERATOR))
        # Enforced only after they were published in shadow mode.
        for mode in ("shadow", "enforce") if name == WITH else (None,):
            _publish(server, socket, mode)
        yield server


def _publish(server: Server, socket: Path, mode: str | None) -> None:
    admin = open_admin_client(ClientConfig(kms_admin_socket=socket), parse_kms_uri(f"kms://{_origin(server)}"))
    policy = policy_from_json(_policy(mode))
    admin.publish(admin.get_publication().revision, canonical_json(policy))


def _origin(server: Server) -> str:
    scheme, _, place = server.kms_url.partition("://")
    return f"{scheme}@{place}"


def _policy(mode: str | None) -> dict[str, Any]:
    zones = [{"path": f"/{key}", "key": key, "readers": [READER], "writers": [READER]} for key in key_names()]
    document: dict[str, Any] = {
        "version": 1,
        "cluster": "bench",
        "zones": zones,
        "kms": {"namenode_users": [GENERATOR], "admins": [GENERATOR]},
    }
    if mode is not None:
        pairs = permutations([zone["path"] for zone in zones], 2)
        document["flows"] = [{"from": source, "to": target, "who": [READER]} for source, target in pairs]
        document["flow_control"] = {"mode": mode, "enforce_on_claimed_identity": mode == "enforce"}
    return document
