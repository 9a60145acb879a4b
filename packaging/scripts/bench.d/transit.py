"""Custody `transit` against one call to Vault for each data key, at 64 clients, on a real Vault or OpenBao alone.

Both open the same EDEKs with the same token, round about: our key server, one worker on one core, which Hadoop's
clients ask; and hvac on that core, which nobody asks. Vault and the load share the machine's other cores, so the rates
are those of a crowded machine, and what counts is their ratio. A double would be measured instead of Vault: without a
server there is no figure.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from figures import Spread, spread_of
from kms_load import BenchError, KmsCaller, KmsRequest, LoadResult, run_wrk, write_script
from kms_servers import Ringfence, Server
from machine import on_cpus, server_cpus
from protectors import test_support

CLIENTS = 64
_KEY = "bench-transit"
_EEKS = 256
_ONE_CALL_EACH = Path(__file__).with_name("one_call_each.py")


@dataclass(slots=True)
class TransitFigures:
    """The rounds. Rates are data keys opened a second."""

    server: str
    per_s: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    one_call_per_s: list[float] = field(default_factory=list)

    @property
    def rate(self) -> Spread | None:
        """Through our key server."""
        return spread_of(self.per_s)

    @property
    def one_call_rate(self) -> Spread | None:
        """By one call each."""
        return spread_of(self.one_call_per_s)


def measure_transit(
    program: Path, scratch: Path, *, rounds: int, round_s: float, say: Callable[[str], None]
) -> TransitFigures | None:
    """None without a real server."""
    with test_support():
        from vault_clusters import SERVERS, VaultCluster, vault_cluster, vault_server  # noqa: PLC0415

        if "real" not in SERVERS:
            say("transit: not measured, for RINGFENCE_TEST_VAULT_ADDR and _TOKEN name no Vault")
            return None
        directory = scratch / "transit"
        directory.mkdir(mode=0o700)
        with vault_server("real") as server, vault_cluster(server, directory) as cluster:
            assert isinstance(cluster, VaultCluster)
            cluster.set_up_and_log_in()
            settings = cluster.settings()
            config = directory / "kms.yaml"
            config.write_text(json.dumps({"admin": {"socket": str(directory / "admin.sock")}, "vault": cluster.block}))
            version = str(cluster.done("GET", "sys/health").body.get("version", "of unknown version"))
            figures = TransitFigures(f"Vault or OpenBao {version}")
            with Ringfence(program, directory / "kms", config=config).running() as running:
                given = {
                    "address": cluster.addresses[0],
                    "token": settings.token_file.read_text().strip(),
                    "mount": settings.transit_mount,
                }
                _measure(running, given, figures, rounds, round_s, say)
            return figures


def _measure(
    server: Server,
    given: dict[str, str],
    figures: TransitFigures,
    rounds: int,
    round_s: float,
    say: Callable[[str], None],
) -> None:
    generator, reader = server.caller("hdfs"), server.caller("etl")
    requests, load = _prepare(generator, given)
    with tempfile.TemporaryDirectory(prefix="ringfence-bench-") as scratch:
        script = Path(scratch) / "transit.lua"
        write_script(script, [reader.raw_request(request) for request in requests])
        run_wrk(server.kms_url, script, connections=CLIENTS, seconds=round_s)  # warms it
        for number in range(rounds):
            say(f"custody transit: round {number + 1} of {rounds}")
            ours = run_wrk(server.kms_url, script, connections=CLIENTS, seconds=round_s)
            _note(figures, ours)
            figures.one_call_per_s.append(_one_call_each(load, round_s))


def _note(figures: TransitFigures, ours: LoadResult) -> None:
    figures.per_s.append(ours.requests / ours.seconds)
    figures.p50_ms.append(ours.p50_ms)
    figures.p99_ms.append(ours.p99_ms)


def _prepare(generator: KmsCaller, given: dict[str, str]) -> tuple[list[KmsRequest], dict[str, object]]:
    """A key that Vault holds; its EEKs as our key server is asked for them, and as Vault itself is."""
    from ringfence_agent.vault.transit_wire import ciphertext_in, edek_context  # noqa: PLC0415

    attributes = {"ringfence.custody": "transit"}
    body = {"name": _KEY, "cipher": "AES/CTR/NoPadding", "length": 256, "attributes": attributes}
    generator.call("POST", "/v1/keys", body, expect=201)
    eeks = generator.call("GET", f"/v1/key/{_KEY}/_eek?num_keys={_EEKS}&eek_op=generate")
    transit_key = _transit_key(given)
    requests, items = [], []
    for eek in eeks:
        iv, edek = _decode(eek["iv"]), _decode(eek["encryptedKeyVersion"]["material"])
        sent = {"name": _KEY, "iv": _encode(iv), "material": _encode(edek)}
        requests.append(KmsRequest("POST", f"/v1/keyversion/{_KEY}%400/_eek?eek_op=decrypt", sent))
        ciphertext = ciphertext_in(edek, f"{_KEY}@0", 1).text.decode()
        items.append([ciphertext, _encode(edek_context(transit_key, _KEY, iv))])
    return requests, {**given, "key": transit_key, "items": items, "clients": CLIENTS}


def _transit_key(given: dict[str, str]) -> str:
    """The one that the key server just made."""
    import requests  # noqa: PLC0415

    answer = requests.get(
        f"{given['address']}/v1/{given['mount']}/keys?list=true",
        headers={"X-Vault-Token": given["token"]},
        timeout=30,
        allow_redirects=False,
    )
    names = [name for name in answer.json()["data"]["keys"] if name != "z-wrap"]
    if len(names) != 1:
        raise BenchError(f"Vault has {len(names)} keys of zones in {given['mount']} instead of one")
    return str(names[0])


def _one_call_each(load: dict[str, object], seconds: float) -> float:
    command = on_cpus(server_cpus(), [sys.executable, str(_ONE_CALL_EACH)])
    text = json.dumps({**load, "seconds": seconds})
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=seconds + 60, check=False)
    if done.returncode != 0:
        raise BenchError(f"one call each: {done.stderr.strip().splitlines()[-1:]}")
    found = json.loads(done.stdout)
    return float(found["opened"]) / float(found["seconds"])


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()
