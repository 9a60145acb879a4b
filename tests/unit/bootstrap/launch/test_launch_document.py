"""The cluster document: every field is in the documentation, and dropping or breaking any one is told by its name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from emr_launch import EVERY_FIELD, Place, Site, places, value_at
from pydantic import BaseModel

from ringfence_bootstrap.launch.document import ClusterDocument, GroupBlock, PrimaryGroupBlock, TaskGroupBlock
from ringfence_bootstrap.launch.reading import read_launch
from ringfence_zones.errors import DocumentError
from ringfence_zones.findings import Rule, Severity

DOCUMENT = yaml.safe_load(EVERY_FIELD.read_text())
PLACES = list(places(DOCUMENT))
# Without these the document is not whole; the last part is what the finding names.
REQUIRED = {
    ("version",),
    ("name",),
    ("release",),
    ("region",),
    ("applications",),
    ("service_role",),
    ("instance_profile",),
    ("network",),
    ("network", "subnet"),
    ("instances",),
    ("instances", "primary"),
    ("instances", "primary", "type"),
    ("instances", "core"),
    ("instances", "core", "type"),
    ("instances", "core", "volumes", 0, "size_gib"),
    ("instances", "task", 0, "name"),
    ("instances", "task", 0, "type"),
    ("security_configuration", "name"),
    ("kerberos", "realm"),
    ("kerberos", "kdc_admin_password"),
    ("configurations", 0, "Classification"),
    ("configurations", 1, "Classification"),
    ("configurations", 1, "Configurations", 0, "Classification"),
    ("bootstrap_actions", 0, "name"),
    ("bootstrap_actions", 0, "path"),
    ("ringfence", "bootstrap_action"),
    ("ringfence", "configuration"),
    ("ringfence", "configuration_file"),
    ("ringfence", "zones", "policy"),
    ("ringfence", "zones", "script"),
    ("steps", 0, "name"),
    ("steps", 0, "jar"),
    # What others beside them need.
    ("log_uri",),
    ("kerberos",),
    ("kerberos", "cross_realm_trust_password"),
    ("kerberos", "kdc_admin_password", "secret"),
    ("kerberos", "cross_realm_trust_password", "secret"),
    ("kerberos", "ad_join_password", "secret"),
    ("security_configuration",),
}


_GROUPS = (PrimaryGroupBlock, GroupBlock, TaskGroupBlock)


def spelled(place: Place) -> str:
    return ".".join(str(part) for part in place)


def named(place: Place) -> str:
    """The nearest name: a list's items are called by their list."""
    return next(str(part) for part in reversed(place) if isinstance(part, str))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, "every-field")


def test_the_documented_document_is_taken(site: Site) -> None:
    assert site.errors() == []


def test_the_documentation_holds_every_field() -> None:
    shown = set(shown_in(DOCUMENT, ClusterDocument))
    # The alternative of `secret`, beside which it cannot stand.
    assert set(fields_of(ClusterDocument)) - shown == {("PasswordBlock", "file")}
    assert "# file: " in EVERY_FIELD.read_text()


@pytest.mark.parametrize("place", PLACES, ids=spelled)
def test_dropping_a_field_is_told_by_its_name_or_means_its_default(site: Site, place: Place) -> None:
    errors = site.drop(*place).errors()
    if place in REQUIRED:
        name = named(place[:-1] if place[-1] == "secret" else place)
        assert any(name.partition("_")[0] in finding.message for finding in errors), errors
    else:
        assert errors == []


@pytest.mark.parametrize("place", PLACES, ids=spelled)
def test_breaking_a_field_is_told_by_its_name(site: Site, place: Place) -> None:
    value = value_at(DOCUMENT, place)
    broken: Any = "text" if isinstance(value, dict | list) else {"wrong": ["\a"]}
    errors = site.set(broken, *place).errors()
    assert any(named(place) in finding.message for finding in errors), errors
    assert {finding.severity for finding in errors} == {Severity.ERROR}


@pytest.mark.parametrize(
    "place", [place for place in PLACES if isinstance(value_at(DOCUMENT, place), dict)], ids=spelled
)
def test_an_unknown_field_is_told_by_its_name(site: Site, place: Place) -> None:
    errors = site.set("x", *place, "zzz").errors()
    if place[-1] in ("Properties", "properties", "tags"):
        assert errors == []
    else:
        assert [finding.rule for finding in errors] == [Rule.UNKNOWN_FIELD]
        assert "zzz" in errors[0].message


@pytest.mark.long
@pytest.mark.parametrize("place", [place for place in PLACES if isinstance(place[-1], str)], ids=spelled)
def test_a_field_without_a_value_is_told_by_its_name(site: Site, place: Place) -> None:
    errors = site.set(None, *place).errors()
    assert any(named(place) in finding.message and "no value" in finding.message for finding in errors)


@pytest.mark.parametrize(
    ("place", "value", "hint"),
    [
        (("release",), "7.12.0", "emr-7.12.0"),
        (("release",), "emr-latest", "emr-7"),
        (("region",), "Frankfurt", "eu-central-1"),
        (("log_encryption_key",), "alias/logs", "whole ARN"),
        (("custom_ami",), "my-image", "ami-"),
        (("network", "subnet"), "10.0.0.0/24", "subnet-"),
        (("instances", "core", "count"), 0, "1 or more"),
        (("instances", "task", 0, "bid_price"), "cheap", "0.35"),
        (("ringfence", "configuration"), "bootstrap.yaml", "s3://"),
        (("bootstrap_actions", 0, "path"), "http://example.com/x.sh", "s3://"),
        (("ringfence", "zones", "wait"), "15", "unit"),
        (("ringfence", "zones", "on_failure"), "cancel_and_wait", "CANCEL_AND_WAIT"),
        (("name",), "a<b", "visible"),
        (("version",), 2, "1"),
        (("kerberos", "kdc_admin_password"), "hunter2-canary", "secret"),
        (("kerberos", "kdc_admin_password", "secret"), "hunter2-canary", "arn:aws:secretsmanager"),
        (("kerberos", "kdc_admin_password", "file"), "password", "one of the two"),
        (("configurations", 0, "Properties", "x.password"), 987654321, "quote it"),
    ],
    ids=lambda value: spelled(value) if isinstance(value, tuple) else str(value)[:20],
)
def test_a_value_of_another_form_gets_what_to_write(site: Site, place: Place, value: Any, hint: str) -> None:
    errors = site.set(value, *place).errors()
    assert any(hint in finding.hint for finding in errors), errors
    assert "hunter2" not in repr(errors)
    assert "987654321" not in repr(errors)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", Rule.MISSING_FIELD),
        ("[]", Rule.BAD_VALUE),
        ("version: 1\nversion: 1\n", Rule.DUPLICATE_FIELD),
        ("version: [", Rule.YAML_SYNTAX),
    ],
)
def test_what_is_no_document_is_refused(tmp_path: Path, text: str, rule: Rule) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(DocumentError) as caught:
        read_launch(path)
    assert rule in {finding.rule for finding in caught.value.findings}


def test_a_document_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"nope\.yaml"):
        read_launch(tmp_path / "nope.yaml")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("security-configuration.json", "file: security-configuration.json"),
        ("bootstrap.yaml", "configuration_file: bootstrap.yaml"),
        ("zones.yaml", "policy_file: zones.yaml"),
        ("classifications.json", "configuration_files: [classifications.json]"),
    ],
)
def test_a_file_that_is_not_there_is_told_where_it_is_named(site: Site, name: str, place: str) -> None:
    (site.directory / name).unlink()
    told = [finding for finding in site.errors() if name in finding.message]
    assert len(told) == 1
    assert told[0].path == f"{site.cluster}:{site.line_of(place)}"


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("security-configuration.json", '{"Encryption": {}}', Rule.EMR_UNKNOWN_MEMBER),
        ("bootstrap.yaml", "mode: other\n", Rule.BAD_VALUE),
        ("zones.yaml", "version: 1\ncluster: c\nzones: [{path: a}]\n", Rule.BAD_PATH),
        ("classifications.json", '[{"Name": "core-site"}]', Rule.UNKNOWN_FIELD),
    ],
)
def test_what_is_wrong_in_a_file_refuses_the_document(site: Site, name: str, content: str, rule: Rule) -> None:
    assert rule in {finding.rule for finding in site.file(name, content).errors()}


def fields_of(model: type[BaseModel], seen: frozenset[type] = frozenset()) -> Iterator[tuple[str, str]]:
    """Block and name of every field."""
    for name, field in model.model_fields.items():
        yield model.__name__, name
        block = block_in(field.annotation)
        if block is not None and block not in seen:
            yield from fields_of(block, seen | {block})


def shown_in(value: Any, model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """What the documentation shows of one kind of group holds for all of them."""
    for item in value if isinstance(value, list) else [value]:
        for name, inner in item.items():
            yield from ((block.__name__, name) for block in (_GROUPS if model in _GROUPS else (model,)))
            block = block_in(model.model_fields[name].annotation)
            if block is not None:
                yield from shown_in(inner, block)


def block_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((block for block in map(block_in, get_args(annotation)) if block is not None), None)
