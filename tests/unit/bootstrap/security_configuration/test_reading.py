"""Documents read and written again: nothing is lost, whatever else is wrong."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from emr_documents import DOCUMENTED, REFUSED, changed, document_data, document_path, documents, members_of
from hypothesis import given

from ringfence_bootstrap.security_configuration.document import (
    CertificateProvider,
    DiskProvider,
    S3Mode,
    SecurityConfiguration,
)
from ringfence_bootstrap.security_configuration.json_text import MAX_DOCUMENT_BYTES
from ringfence_bootstrap.security_configuration.nodes import Kind, Node
from ringfence_bootstrap.security_configuration.output_members import without_output_members
from ringfence_bootstrap.security_configuration.reading import parse_document, read_document
from ringfence_zones.errors import DocumentError, InputError
from ringfence_zones.findings import Rule


def _with_booleans(kind: type[Node], data: dict[str, Any]) -> dict[str, Any]:
    """What is to come back: the same, with booleans where text stood for one."""
    out = dict(data)
    for name, (_, member) in kind.members().items():
        value = data.get(name)
        if member.kind is Kind.BOOLEAN and isinstance(value, str) and value.lower() in ("true", "false"):
            out[name] = value.lower() == "true"
        elif member.kind is Kind.NODE and isinstance(value, dict):
            out[name] = _with_booleans(member.of, value)
        elif member.kind is Kind.NODES and isinstance(value, list) and all(isinstance(each, dict) for each in value):
            out[name] = [_with_booleans(member.of, each) for each in value]
    return out


def _ordered(value: Any) -> Any:
    """Equal only when the order of members is."""
    if isinstance(value, dict):
        return [(name, _ordered(each)) for name, each in value.items()]
    return [_ordered(each) for each in value] if isinstance(value, list) else (type(value), value)


@given(documents())
def test_no_document_loses_a_member_or_its_place(data: dict[str, Any]) -> None:
    document = parse_document(json.dumps(data), "d")
    expected = _with_booleans(SecurityConfiguration, data)
    assert _ordered(document.to_json()) == _ordered(expected)
    again = parse_document(document.text(), "d")
    assert _ordered(again.to_json()) == _ordered(expected)
    assert again == document


@pytest.mark.parametrize("name", [*DOCUMENTED, *REFUSED])
def test_every_document_comes_back_as_it_is(name: str) -> None:
    data = document_data(name)
    assert _ordered(read_document(document_path(name)).to_json()) == _ordered(
        _with_booleans(SecurityConfiguration, data)
    )


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_member_of_the_documents_is_known(name: str) -> None:
    document = read_document(document_path(name))
    assert [place for node in document.nodes() for place in node.others] == []


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_changed_member_is_another_document(name: str) -> None:
    data = document_data(name)
    whole = parse_document(json.dumps(data), "d")
    for place, _ in members_of(data):
        assert parse_document(json.dumps(changed(data, place, None)), "d") != whole, place


def test_what_is_written_is_typed_and_what_is_in_force_is_told_apart() -> None:
    document = read_document(document_path("everything"))
    assert document.encrypts_at_rest
    assert document.encrypts_in_transit
    assert document.s3 is not None
    assert document.s3.mode is S3Mode.SSE_KMS
    assert document.local_disk is not None
    assert (document.local_disk.provider, document.local_disk.ebs) == (DiskProvider.AWS_KMS, True)
    assert document.certificates is not None
    assert document.certificates.provider is CertificateProvider.PEM
    off = changed(document_data("everything"), ("EncryptionConfiguration", "EnableAtRestEncryption"), None)
    without = parse_document(json.dumps(off), "d")
    assert without.s3 is None
    assert without.encryption is not None
    assert without.encryption.at_rest is not None
    assert without.encryption.at_rest.s3 == document.s3


def test_text_for_a_boolean_is_read_as_one_and_told() -> None:
    document = read_document(document_path("ebs-with-text-booleans"))
    assert [problem.rule for problem in document.problems] == [Rule.EMR_TEXT_BOOLEAN] * 3
    assert document.encrypts_at_rest
    assert not document.encrypts_in_transit


@pytest.mark.parametrize("text", ["[]", "null", '"x"', "1", "", '{"a": 1, "a": 2}', "{"])
def test_what_is_no_document_raises_with_its_findings(text: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_document(text, "d.json")
    assert caught.value.findings
    assert all(each.path == "d.json:1" for each in caught.value.findings)


def test_a_file_that_cannot_be_read_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*absent.json: No such file"):
        read_document(tmp_path / "absent.json")
    (tmp_path / "latin.json").write_bytes(b'{\n"a": "\xe9"}')
    with pytest.raises(InputError, match=r"latin.json:2: not UTF-8"):
        read_document(tmp_path / "latin.json")


def test_no_more_of_a_file_is_read_than_a_document_can_have(tmp_path: Path) -> None:
    path = tmp_path / "big.json"
    with path.open("wb") as stream:
        stream.truncate(40 * MAX_DOCUMENT_BYTES)
    with pytest.raises(DocumentError) as caught:
        read_document(path)
    assert "larger than" in caught.value.findings[0].message


def test_standard_input_is_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    class Piped:
        buffer = io.BytesIO(document_path("everything").read_bytes())

    monkeypatch.setattr(sys, "stdin", Piped)
    document = read_document(Path("-"))
    assert document.name == "<stdin>"
    assert document == read_document(document_path("everything"))


def test_what_only_the_service_writes_can_be_taken_out() -> None:
    document = read_document(document_path("handed-out-by-emr"))
    cleaned = without_output_members(document)
    names = {place[-1] for place, _ in members_of(cleaned.to_json())}
    assert names & {"ExternalId", "CACertificateSecretARN"} == set()
    lost = {place for place, _ in members_of(document.to_json())} - {
        place for place, _ in members_of(cleaned.to_json())
    }
    assert {place[-1] for place in lost} == {"ExternalId", "CACertificateSecretARN"}
