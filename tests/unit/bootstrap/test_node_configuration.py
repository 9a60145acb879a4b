"""bootstrap.yaml: the documented file is complete, and what cannot be meant is refused by name."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from ringfence_bootstrap.node.configuration import (
    ClientsBlock,
    FileBlock,
    HardenedBlock,
    HardenedTlsBlock,
    KmsBlock,
    NodeConfig,
    TlsBlock,
    WaitBlock,
    parse_node_config,
    read_node_config,
)
from ringfence_zones.errors import ConfigError

DOCUMENTED = Path(__file__).parents[3] / "packaging/docs/bootstrap.yaml"
WHEELS = f"wheelhouse: s3://bucket/wheels\nwheelhouse_sha256: {'a' * 64}\n"


def commented(lines: list[str], name: str) -> dict[str, Any]:
    """A block that stands in the file as a comment."""
    first = next(number for number, line in enumerate(lines) if line.startswith(f"# {name}:"))
    block = itertools.takewhile(lambda line: line.startswith(("#   ", f"# {name}:")), lines[first:])
    found: dict[str, Any] = yaml.safe_load("\n".join(line[2:] for line in block))
    return found


def test_the_documented_file_is_read_and_names_every_setting() -> None:
    assert read_node_config(DOCUMENTED).mode == "ringfence-kms"
    document = yaml.safe_load(DOCUMENTED.read_text())
    # Blocks that exclude each other stand there as comments.
    lines = DOCUMENTED.read_text().splitlines()
    clients, hardened = (commented(lines, name) for name in ("clients", "hardened"))
    key_server = yaml.safe_load("\n".join(line[4:] for line in lines if re.match("  # [a-z_]+: ", line)))
    blocks: list[tuple[type[BaseModel], dict[str, object]]] = [
        (NodeConfig, document | clients | hardened),
        (HardenedBlock, hardened["hardened"]),
        (HardenedTlsBlock, hardened["hardened"]["tls"]),
        (KmsBlock, document["kms"] | key_server),
        (TlsBlock, document["kms"]["tls"]),
        (ClientsBlock, clients["clients"]),
        (FileBlock, document["files"][0]),
        (WaitBlock, document["wait"]),
    ]
    for model, block in blocks:
        assert set(model.model_fields) == block.keys(), model


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "mode: ringfence",
            "'mode' input should be 'ringfence-kms', 'hardened-stock-kms', 'clients-only', 'existing-kms' or"
            " 'key-server'",
        ),
        ("mode: clients-only", "'clients' is missing"),
        ("mode: hardened-stock-kms", "'hardened' is missing"),
        ("mode: clients-only\nclients: {uri: http://kms:9600}", "must have the form"),
        ("mode: ringfence-kms\nclients: {uri: kms://http@kms:9600/kms}", "'clients' is for mode clients-only"),
        ("mode: existing-kms\nkms: {prove_as: [etl]}", "'kms' is for mode ringfence-kms"),
        ("mode: ringfence-kms\nkms: {settings: {listen: 'localhost:1'}}", "listen cannot stand here"),
        ("mode: ringfence-kms\nkms: {settings: {tls: {}}}", "tls cannot stand here"),
        ("mode: key-server", "'listen' is missing"),
        ("mode: key-server\nkms: {listen: 9600}", "kms.listen"),
        ("mode: key-server\nkms: {listen: 'kms1:0'}", "must be HOST:PORT"),
        ("mode: key-server\nkms: {listen: 'kms1:9600'}", "over the network in clear"),
        ("mode: key-server\nkms: {listen: '0.0.0.0:9600'}", "allow_plain_http: true"),
        ("mode: key-server\nkms: {listen: 'localhost:9600', prove_as: [etl]}", "prove_as is for mode ringfence-kms"),
        ("mode: key-server\nkms: {listen: 'kms1:9600', settings: {allow_plain_http: true}}", "cannot stand here"),
        ("mode: ringfence-kms\nkms: {settings: {hadoop_conf: /x}}", "hadoop_conf cannot stand here"),
        ("mode: ringfence-kms\nkms: {listen: 'kms1:9600'}", "listen is for mode key-server"),
        ("mode: ringfence-kms\nkms: {allow_plain_http: true}", "allow_plain_http is for mode key-server"),
        ("mode: ringfence-kms\nkms: {init: true}", "init is for mode key-server"),
        ("mode: ringfence-kms\nkms: {prove: [etl]}", "did you mean 'prove_as'"),
        ("mode: ringfence-kms\nstatus: https://bucket/x", "must be an s3://"),
        ("mode: ringfence-kms\nwait: {kms: 10}", "must be a duration with a unit"),
        (
            "mode: ringfence-kms\nfiles: [{source: s3://bucket/x, path: /etc/passwd}]",
            "a file of its own in /etc/ringfence",
        ),
        ("mode: ringfence-kms\nfiles: [{source: x, path: /etc/ringfence/x}]", "must be an s3://BUCKET/"),
        ('mode: ringfence-kms\nfiles: [{source: /x, path: /etc/ringfence/x, mode: "644"}]', "should match pattern"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_node_config(WHEELS + text)
    assert message.lower() in refused.value.message.lower()


@pytest.mark.parametrize("digest", ["0" * 63, "0" * 65, "A" * 64, "sha256:" + "0" * 57])
def test_a_digest_is_written_as_sha256sum_prints_it(digest: str) -> None:
    with pytest.raises(ConfigError, match=r"64 hexadecimal digits"):
        parse_node_config(f"wheelhouse: /wheels\nwheelhouse_sha256: '{digest}'\nmode: ringfence-kms")
