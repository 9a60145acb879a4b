"""What it costs that Vault or AWS KMS seals the keys: creates, the first EEKs of each key after a restart, decrypts
with keys in memory, and a start into full load with none of them there.

The remote ones are the tests' doubles, and Vault is a real one where RINGFENCE_TEST_VAULT_ADDR and _TOKEN name it. All
run on this machine, beside the server: what a network adds to each call is not in the figures.
"""

from __future__ import annotations

import contextlib
import json
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from kms_load import BenchError, open_requests, run_wrk, write_script
from kms_servers import Ringfence, Server
from many_keys import ManyKeys, key_names_of, measure_many_keys
from throughput import CONNECTIONS, GENERATOR, READER, Effort, SamplesByServer, measure_throughput

_SUPPORT = Path(__file__).parents[3] / "tests" / "support"
FILE = "root key file"
_UNWRAPS = 'ringfence_kms_store_seconds_count{work="unwrap"} '


@dataclass(frozen=True, slots=True)
class ColdStart:
    """A server started with no key in memory, under full load from its first second.

    first_per_s, then_per_s  decrypts a second in the first run, and in the one after it
    openings                 how often the protector was asked, in both; None where it is no other process
    """

    keys: int
    first_per_s: float
    then_per_s: float
    openings: int | None


@dataclass(frozen=True, slots=True)
class ProtectorFigures:
    """By the protector's name; `warm` are decrypts with keys in memory, by its name too."""

    keys: Mapping[str, ManyKeys]
    cold: Mapping[str, ColdStart]
    warm: SamplesByServer

    def warm_ratio(self, name: str) -> float | None:
        """CPU time of a warm decrypt over that with a root key file, of the leasts; None for the file itself."""
        ours, file = self.warm[name].cpu, self.warm[FILE].cpu
        return None if name == FILE or ours is None or file is None else ours.minimum / file.minimum


def measure_protectors(
    program: Path, scratch: Path, keys: int, effort: Effort, say: Callable[[str], None]
) -> ProtectorFigures:
    """Each protector over as many keys; then all of them warm, their rounds in turn."""
    with ExitStack() as stack:
        kinds = [
            stack.enter_context(_opened(opened, program, scratch / f"protector-{number}"))
            for number, opened in enumerate((_file, _vault, _aws_kms))
        ]
        many = {kind.name: measure_many_keys(kind, keys, say) for kind in kinds}
        cold = {kind.name: _start_cold(kind, keys, effort.round_s, say) for kind in kinds}
        servers = [stack.enter_context(kind.running()) for kind in kinds]
        warm = measure_throughput(servers, ("decrypt",), effort, say).samples["decrypt"]
    return ProtectorFigures(many, cold, warm)


def _start_cold(kind: Ringfence, keys: int, round_s: float, say: Callable[[str], None]) -> ColdStart:
    """Every key is asked for by as many clients at once as there are, and nothing was before."""
    say(f"a start into full load with {keys:,} keys: {kind.name}")
    script = kind.directory / "cold.lua"
    with kind.running() as server:
        requests = open_requests(server.caller(GENERATOR), key_names_of(keys), 1)
    with kind.running() as server:
        reader = server.caller(READER)
        write_script(script, [reader.raw_request(request) for request in requests for _ in range(CONNECTIONS)])
        loads = [run_wrk(server.kms_url, script, connections=CONNECTIONS, seconds=round_s) for _ in range(2)]
        first, then = (load.requests / load.seconds for load in loads)
        if sum(load.requests for load in loads) < len(requests) * CONNECTIONS:
            raise BenchError(f"{kind.name}: not every key was asked for in {2 * round_s:g} s")
        return ColdStart(keys, first, then, None if kind.name == FILE else _openings(server))


def _openings(server: Server) -> int:
    """How often the protector was asked since the server's start, by its own count."""
    parts = urlsplit(server.kms_url)
    with urllib.request.urlopen(f"{parts.scheme}://{parts.netloc}/metrics", timeout=10) as answer:
        lines: Sequence[str] = answer.read().decode().splitlines()
    found = [line.removeprefix(_UNWRAPS) for line in lines if line.startswith(_UNWRAPS)]
    if len(found) != 1:
        raise BenchError(f"{server.name} does not count what its protector opens")
    return int(float(found[0]))


Opened = tuple[str, Mapping[str, object], Mapping[str, str]]


@contextlib.contextmanager
def _opened(
    opened: Callable[[Path], contextlib.AbstractContextManager[Opened]], program: Path, directory: Path
) -> Iterator[Ringfence]:
    directory.mkdir(mode=0o700)
    with opened(directory) as (name, settings, environment):
        config = directory / "kms.yaml"
        config.write_text(json.dumps({"admin": {"socket": str(directory / "admin.sock")}, **settings}))
        yield Ringfence(program, directory / "kms", name=name, config=config, environment=environment)


@contextlib.contextmanager
def _file(_directory: Path) -> Iterator[Opened]:
    yield FILE, {}, {}


@contextlib.contextmanager
def _vault(directory: Path) -> Iterator[Opened]:
    with test_support():
        from vault_clusters import SERVERS, vault_cluster, vault_server  # noqa: PLC0415

        kind = SERVERS[-1]
        with vault_server(kind) as server, vault_cluster(server, directory) as cluster:
            cluster.set_up_and_log_in()
            yield f"Vault ({kind})", {"protector": ["vault-transit"], "vault": cluster.block}, {}


@contextlib.contextmanager
def _aws_kms(_directory: Path) -> Iterator[Opened]:
    with test_support():
        from aws_kms_double import AwsKmsDouble  # noqa: PLC0415
        from aws_kms_places import make_key  # noqa: PLC0415

        with AwsKmsDouble.started() as double:
            block = {"key": make_key(double), "cluster": "bench", "endpoint": double.url}
            yield "AWS KMS (double)", {"protector": ["aws-kms"], "aws_kms": block}, double.server.environment()


@contextlib.contextmanager
def test_support() -> Iterator[None]:
    """The tests' own modules can be imported until the block ends."""
    sys.path.insert(0, str(_SUPPORT))
    try:
        yield
    finally:
        sys.path.remove(str(_SUPPORT))
