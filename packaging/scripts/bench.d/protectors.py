"""What it costs that Vault or AWS KMS seals the keys: creates, and the first EEKs of each key after a restart.

The remote ones are the tests' doubles, and Vault is a real one where RINGFENCE_TEST_VAULT_ADDR and _TOKEN name it. All
run on this machine, beside the server: what a network adds to each call is not in the figures.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from unittest import mock

from kms_servers import Ringfence
from many_keys import ManyKeys, measure_many_keys

_SUPPORT = Path(__file__).parents[3] / "tests" / "support"
FILE = "root key file"


def measure_protectors(program: Path, scratch: Path, keys: int, say: Callable[[str], None]) -> Mapping[str, ManyKeys]:
    """By the protector's name, each over as many keys."""
    found = {}
    for number, opened in enumerate((_file, _vault, _aws_kms)):
        directory = scratch / f"protector-{number}"
        directory.mkdir(mode=0o700)
        with opened(directory) as (name, settings, environment), mock.patch.dict(os.environ, environment):
            config = directory / "kms.yaml"
            config.write_text(json.dumps({"admin": {"socket": str(directory / "admin.sock")}, **settings}))
            kind = Ringfence(program, directory / "kms", name=name, config=config)
            found[name] = measure_many_keys(kind, keys, say)
    return found


Opened = tuple[str, Mapping[str, object], Mapping[str, str]]


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
            block = {
                "addresses": cluster.addresses,
                "cluster": cluster.name,
                "token_file": str(cluster.settings().token_file),
                "auth": {"method": "token_file"},
            }
            yield f"Vault ({kind})", {"protector": ["vault-transit"], "vault": block}, {}


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
