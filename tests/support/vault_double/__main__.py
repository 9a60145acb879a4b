"""The double's process: `python -m vault_double`, its settings as one JSON line on standard input.

Answers with one JSON line on standard output: addresses, root token, unseal key. Lives until standard input ends, so
that it dies with the test that started it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from vault_double import control
from vault_double.clock import Clock
from vault_double.cluster import Node
from vault_double.core import Core
from vault_double.faults import Faults
from vault_double.flavour import FLAVOURS
from vault_double.http_api import Api
from vault_double.recording import Recording


def start(settings: dict[str, Any]) -> dict[str, Any]:
    """Starts what the settings ask for and returns what a client must know."""
    core, faults, recording = Core(FLAVOURS[settings["flavour"]], Clock()), Faults(), Recording()
    core.cluster.lag_s = settings["lag_s"]
    api = Api(core, faults, recording)
    for index in range(settings["nodes"]):
        node = Node(index)
        core.cluster.nodes.append(node)
        api.listen(node, settings["tls"])
    if settings["unix_socket"]:
        api.listen_unix(core.cluster.nodes[0], Path(settings["unix_socket"]))
    control.listen(Path(settings["control"]), control.Control(core, faults, recording))
    return {
        "addresses": [node.address for node in core.cluster.nodes],
        "root_token": core.root_token,
        "unseal_key": core.cluster.unseal_key,
    }


def main() -> None:
    """Serves until standard input ends."""
    print(json.dumps(start(json.loads(sys.stdin.readline()))), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
