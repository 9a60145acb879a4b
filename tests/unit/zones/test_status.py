"""`ringfence status` with the agent there: what it shows of a KMS and of the keys' custody. No JVM is started."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from scripted_http import Answer, Seen, scripted_server

from ringfence_zones.cli.main import root

ZONES = [
    {"path": "/a", "key": "held", "in_policy": True, "pinned": True},
    {"path": "/b", "key": "plain", "in_policy": True, "pinned": False},
]
RINGFENCE = {"product": "ringfence", "version": "0.1.0", "revision": 2, "digest": "ab"}


def _key(name: str, attributes: dict[str, str]) -> dict[str, Any]:
    described = {"name": name, "cipher": "AES/CTR/NoPadding", "length": 256, "description": None}
    return {**described, "attributes": attributes, "created": 1, "versions": 1}


KEYS = [_key("held", {"ringfence.custody": "transit"}), _key("plain", {})]


@pytest.fixture
def status() -> Iterator[Callable[..., str]]:
    """Runs the command against a KMS that says `about` of itself; None on a stock one."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rf-")))

        def agent(seen: Seen) -> Answer:
            answer = {"zones": ZONES} if seen.target == "/v1/zones" else {"sentence": "all is well"}
            return 200, json.dumps(answer).encode()

        def run(about: dict[str, Any] | None, *options: str) -> str:
            def kms(seen: Seen) -> Answer:
                if seen.target.startswith("/ringfence/v1/status"):
                    return (404, b"") if about is None else (200, json.dumps(about).encode())
                return 200, json.dumps(KEYS).encode()

            server = stack.enter_context(scripted_server(kms))
            values = {
                "fs.defaultFS": "hdfs://localhost:8020",
                "hadoop.security.key.provider.path": f"kms://http@localhost:{server.port}/kms",
            }
            properties = "".join(
                f"<property><name>{name}</name><value>{value}</value></property>" for name, value in values.items()
            )
            (directory / "core-site.xml").write_text(f"<configuration>{properties}</configuration>")
            arguments = ["--hadoop-conf", str(directory), "--agent-socket", str(directory / "agent.sock"), *options]
            done = CliRunner().invoke(root, ["status", *arguments])
            assert done.exit_code == 0, done.output
            return done.stdout

        stack.enter_context(scripted_server(agent, unix_socket=directory / "agent.sock"))
        yield run


def test_each_zone_s_custody_and_those_of_the_kms_are_shown(status: Callable[..., str]) -> None:
    about = {**RINGFENCE, "custody": ["envelope", "transit"]}
    lines = status(about).splitlines()
    assert any(line.endswith("Ringfence 0.1.0, policy revision 2, custody envelope and transit") for line in lines)
    rows = {line.split()[0]: line.split() for line in lines if line.startswith("/")}
    assert rows["/a"] == ["/a", "held", "held@0", "256", "transit", "yes"]
    assert rows["/b"] == ["/b", "plain", "plain@0", "256", "envelope", "no"]
    shown = json.loads(status(about, "--json"))
    assert shown["kms"]["custody"] == ["envelope", "transit"]
    assert [zone["custody"] for zone in shown["zones"]] == ["transit", "envelope"]


def test_a_ringfence_that_does_not_say_has_envelope(status: Callable[..., str]) -> None:
    assert json.loads(status(RINGFENCE, "--json"))["kms"]["custody"] == ["envelope"]


def test_a_stock_kms_has_no_custody_whatever_a_key_s_attribute_says(status: Callable[..., str]) -> None:
    assert "not Ringfence's: no published policy, no custody" in status(None)
    shown = json.loads(status(None, "--json"))
    assert shown["kms"]["custody"] == []
    assert [zone["custody"] for zone in shown["zones"]] == [None, None]
