"""`ringfence key create`: what it sends, and what it refuses to ask of a KMS."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from scripted_http import Answer, ScriptedServer, Seen, scripted_server

from ringfence_zones.cli.main import root
from ringfence_zones.errors import ConfigError, RefusedError

RINGFENCE = {"product": "ringfence", "version": "0.1.0", "revision": 0, "digest": None}
WITH_VAULT = {**RINGFENCE, "custody": ["envelope", "transit"]}


def kms(about: dict[str, Any] | None) -> Callable[[Seen], Answer]:
    """A KMS that takes every key; `about` is its status document, None on a stock one."""

    def answer(seen: Seen) -> Answer:
        if seen.method == "POST":
            return 201, b"{}"
        return (404, b"<html>") if about is None else (200, json.dumps(about).encode())

    return answer


def create(directory: Path, server: ScriptedServer, *arguments: str, in_core_site: bool = True) -> Result:
    uri = f"kms://http@localhost:{server.port}/kms"
    name = "hadoop.security.key.provider.path" if in_core_site else "other"
    properties = f"<property><name>{name}</name><value>{uri}</value></property>"
    (directory / "core-site.xml").write_text(f"<configuration>{properties}</configuration>")
    command = ["--hadoop-conf", str(directory), "--as", "etl", "key", "create", *arguments]
    return CliRunner().invoke(root, command, env={"RINGFENCE_CLIENT_CONFIG": "", "HADOOP_USER_NAME": "nobody"})


def made(server: ScriptedServer) -> list[tuple[str, dict[str, Any]]]:
    return [(seen.target, json.loads(seen.body)) for seen in server.seen if seen.method == "POST"]


def test_a_key_is_made_in_the_custody_that_is_asked_for(tmp_path: Path) -> None:
    with scripted_server(kms(WITH_VAULT)) as server:
        done = create(tmp_path, server, "k", "--size", "128", "--custody", "transit", "--description", "pii")
        assert done.exit_code == 0, done.output
    ((target, body),) = made(server)
    assert target == "/kms/v1/keys?user.name=etl"
    assert (body["name"], body["length"], body["description"]) == ("k", 128, "pii")
    assert body["attributes"] == {"ringfence.custody": "transit"}
    assert "material" not in body
    assert done.stdout == "key k is made, 128 bits, in custody transit\n"


@pytest.mark.parametrize("about", [WITH_VAULT, RINGFENCE, None])
def test_without_a_word_it_is_envelope_of_256_bits_on_any_kms(tmp_path: Path, about: dict[str, Any] | None) -> None:
    with scripted_server(kms(about)) as server:
        done = create(tmp_path, server, "k", "--json")
        assert done.exit_code == 0, done.output
    ((_, body),) = made(server)
    assert (body["length"], body["attributes"]) == (256, {"ringfence.custody": "envelope"})
    assert json.loads(done.stdout) == {"schema": 1, "name": "k", "length_bits": 256, "custody": "envelope"}


@pytest.mark.parametrize(
    ("about", "rule", "told"),
    [
        (None, "needs_ringfence_kms", "is not Ringfence's KMS"),
        (RINGFENCE, "custody_unavailable", "connected to no Vault"),
        ({**RINGFENCE, "custody": ["envelope"]}, "custody_unavailable", "vault"),
    ],
)
def test_transit_is_never_asked_of_a_kms_that_does_not_have_it(
    tmp_path: Path, about: dict[str, Any] | None, rule: str, told: str
) -> None:
    with scripted_server(kms(about)) as server:
        done = create(tmp_path, server, "k", "--custody", "transit")
    assert made(server) == []
    assert isinstance(done.exception, RefusedError)
    assert done.exception.rule == rule
    assert told in f"{done.exception.message} {done.exception.hint}"


def test_a_custody_that_is_none_is_a_wrong_word(tmp_path: Path) -> None:
    with scripted_server(kms(WITH_VAULT)) as server:
        done = create(tmp_path, server, "k", "--custody", "hsm")
    assert (done.exit_code, server.seen) == (2, [])
    assert "'envelope', 'transit'" in done.stderr


def test_a_configuration_without_a_kms_is_told_and_the_kms_can_be_named(tmp_path: Path) -> None:
    with scripted_server(kms(WITH_VAULT)) as server:
        done = create(tmp_path, server, "k", in_core_site=False)
        assert isinstance(done.exception, ConfigError)
        assert "--provider" in str(done.exception.hint)
        uri = f"kms://http@localhost:{server.port}/kms"
        assert create(tmp_path, server, "k", "--provider", uri, in_core_site=False).exit_code == 0
    assert len(made(server)) == 1
