"""Lint against the tables in tests/vectors/emr, and against every change of every documented document."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from emr_documents import (
    DOCUMENTED,
    REFUSED,
    VECTORS,
    Place,
    changed,
    document_data,
    document_path,
    documents,
    members_of,
    parse_place,
    spell_place,
)
from hypothesis import given
from hypothesis import strategies as st

from ringfence_bootstrap import security_configuration
from ringfence_bootstrap.releases import parse_release
from ringfence_bootstrap.security_configuration.cluster import facts_of
from ringfence_bootstrap.security_configuration.lint import lint
from ringfence_bootstrap.security_configuration.reading import parse_document, read_document
from ringfence_zones.findings import Finding, Rule, Severity

TABLE = yaml.safe_load((VECTORS / "documents.yaml").read_text(encoding="utf-8"))
NEGATIVES = yaml.safe_load((VECTORS / "negatives.yaml").read_text(encoding="utf-8"))
NEWEST = "emr-7.14.0"
# What may be absent from the documents without being missed. Everything else is needed by what stands beside it.
OPTIONAL = {
    "AuditConfiguration",
    "AuthorizationConfiguration",
    "CACertificateSecretARN",
    "ClusterDedicatedKdcConfiguration",
    "CrossRealmTrustConfiguration",
    "AdIntegrationConfiguration",
    "ApplicationScopedIAMRoleConfiguration",
    "AmazonCloudWatchLogs",
    "AuthorizedSessionTagValue",
    "CloudWatchLogGroup",
    "Destinations",
    "EmrFsConfiguration",
    "EMRWALEncryptionConfiguration",
    "EnableUserBackgroundSession",
    "EncryptionConfiguration",
    "ExternalId",
    "IAMConfiguration",
    "IdentityCenterApplicationAssigmentRequired",
    "IdentityCenterConfiguration",
    "InstanceMetadataServiceConfiguration",
    "LakeFormationConfiguration",
    "Overrides",
    "PropagateSourceIdentity",
    "RangerConfiguration",
    "SecretTags",
    "TicketLifetimeInHours",
    "ValidityInDays",
    "WildcardDnsSuffix",
    "Value",
    # A switch that is absent is off.
    "EnableApplicationScopedIAMRole",
    "EnableAtRestEncryption",
    "EnableEbsEncryption",
    "EnableIdentityCenter",
    "EnableInTransitEncryption",
}


def findings_of(data: Any, release: str | None = NEWEST, **facts: Any) -> list[Finding]:
    document = parse_document(json.dumps(data, indent=2), "d.json")
    return lint(document, parse_release(release) if release else None, **facts)


def errors_of(found: list[Finding]) -> list[Finding]:
    return [each for each in found if each.severity is Severity.ERROR]


def test_the_table_knows_every_document() -> None:
    assert sorted(TABLE["documented"]) == DOCUMENTED
    assert sorted(TABLE["refused"]) == REFUSED


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_documented_document_has_no_error_and_the_stated_warnings(name: str) -> None:
    expected = TABLE["documented"][name]
    found = lint(read_document(document_path(name)), parse_release(expected["release"]))
    assert errors_of(found) == []
    # What stays in clear in one way or another is one entry of the table.
    warnings = [each.rule for each in found if each.severity is Severity.WARN]
    once = {Rule.EMR_CLEAR_AT_REST, Rule.EMR_CLEAR_IN_TRANSIT}
    told = sorted([*(rule for rule in warnings if rule not in once), *(rule for rule in once if rule in warnings)])
    assert told == sorted(expected["warnings"])


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_document_is_refused_by_the_name_of_the_field(name: str) -> None:
    found = errors_of(lint(read_document(document_path(name)), parse_release(NEWEST)))
    expected = TABLE["refused"][name]
    assert [(each.rule, each.message.partition(":")[0]) for each in found] == [
        (rule, member) for rule, member, _ in expected
    ]
    assert all(words in each.hint for each, (_, _, words) in zip(found, expected, strict=True))


@pytest.mark.parametrize("case", NEGATIVES, ids=lambda case: f"{case['base']}-{case['rule']}")
def test_a_document_that_is_wrong_in_one_way_gets_the_finding_that_names_it(case: dict[str, Any]) -> None:
    data = document_data(case["base"])
    for place, value in case["set"].items():
        data = changed(data, parse_place(place), value)
    facts = {"region": case.get("region"), "cluster": facts_of(case["cluster"], "c") if "cluster" in case else None}
    found = findings_of(data, case.get("release", NEWEST), **facts)
    member = case.get("member", next(iter(case["set"]), ""))
    severity = Severity(case.get("severity", "error"))
    fitting = [
        each
        for each in found
        if each.rule == case["rule"] and each.severity is severity and each.message.startswith(member)
    ]
    assert fitting, found
    assert any(case.get("hint", "") in each.hint for each in fitting), fitting
    if severity is Severity.WARN:
        assert errors_of(found) == []


def _is_named(finding: Finding, place: Place) -> bool:
    """Whether it is about the member, or about the object that misses it."""
    member = finding.message.partition(":")[0].partition(" ")[0]
    return member in (spell_place(place), spell_place(place[:-1]))


def _is_optional(name: str, place: Place) -> bool:
    if place[-1] == "AwsKmsKey" and (
        "TLSCertificateConfiguration" in place or "EMRWALEncryptionConfiguration" in place
    ):
        return True
    if place[-1] in ("LocalDiskEncryptionConfiguration", "S3EncryptionConfiguration"):
        # One of the two is enough, and one it must be.
        return len(document_data(name)["EncryptionConfiguration"]["AtRestEncryptionConfiguration"]) > 1
    if place[-1] in ("KerberosConfiguration", "AuthenticationConfiguration"):
        # Ranger needs it.
        return "RangerConfiguration" not in document_data(name).get("AuthorizationConfiguration", {})
    return place[-1] in OPTIONAL


@pytest.mark.parametrize("name", DOCUMENTED)
def test_dropping_a_member_is_an_error_that_names_it_unless_it_is_optional(name: str) -> None:
    data = document_data(name)
    for place, _ in members_of(data):
        found = findings_of(changed(data, place, None))
        if _is_optional(name, place):
            assert errors_of(found) == [], place
        else:
            missed = [
                each
                for each in found
                if each.rule is Rule.EMR_MISSING_MEMBER
                and (
                    _is_named(each, place) or each.message.startswith("AuthorizationConfiguration.RangerConfiguration:")
                )
            ]
            assert missed, place


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_value_of_another_type_is_an_error_that_names_the_member(name: str) -> None:
    data = document_data(name)
    for place, value in members_of(data):
        for other in (1.5, [[]] if isinstance(value, dict) else {"x": 1}, "" if place[-1] != "Value" else 7):
            found = errors_of(findings_of(changed(data, place, other)))
            named = (f"{spell_place(place)} must be ", f"{spell_place(place)} is ''")
            assert any(each.message.startswith(named) for each in found), (place, other)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_misspelt_member_is_an_error_with_the_right_name(name: str) -> None:
    data = document_data(name)
    for place, value in members_of(data):
        if "LakeFormationConfiguration" in place[:-1]:
            continue  # passed through
        misspelt = f"{str(place[-1])[:-1]}q" if len(str(place[-1])) > 3 else f"{place[-1]}s"
        wrong = changed(changed(data, place, None), (*place[:-1], misspelt), value)
        (found,) = (each for each in findings_of(wrong) if each.rule is Rule.EMR_UNKNOWN_MEMBER)
        assert found.severity is Severity.ERROR
        assert found.message.startswith(spell_place((*place[:-1], misspelt)))
        assert str(place[-1]) in found.hint, (place, found.hint)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_member_in_the_wrong_case_is_an_error_with_the_right_name(name: str) -> None:
    data = document_data(name)
    for place, value in members_of(data):
        if "LakeFormationConfiguration" in place[:-1]:
            continue
        lower = str(place[-1]).lower()
        wrong = changed(changed(data, place, None), (*place[:-1], lower), value)
        (found,) = (each for each in findings_of(wrong) if each.rule is Rule.EMR_UNKNOWN_MEMBER)
        assert found.hint == f"write {place[-1]}"


def test_findings_point_to_the_line() -> None:
    text = document_path("everything").read_text().replace('"SSE-KMS"', '"SSE-KSM"')
    (found,) = errors_of(lint(parse_document(text, "c.json"), None))
    line = next(number for number, each in enumerate(text.splitlines(), 1) if "SSE-KSM" in each)
    assert found.path == f"c.json:{line}"


@given(
    documents(),
    st.sampled_from([None, "emr-4.2.0", "emr-5.8.0", "emr-5.30.0", "emr-7.14.0", "emr-spark-8.0.0", "emr-99.0.0"]),
    st.sampled_from([None, "us-east-1"]),
    st.sampled_from([None, {}, {"Applications": [{"Name": "Spark"}], "KerberosAttributes": {"Realm": "R"}}]),
)
def test_whatever_a_document_holds_every_finding_has_a_place_a_sentence_and_a_way_out(
    data: dict[str, Any], release: str | None, region: str | None, cluster: dict[str, Any] | None
) -> None:
    facts = facts_of(cluster, "c") if cluster is not None else None
    for each in findings_of(data, release, region=region, cluster=facts):
        assert re.fullmatch(r"d\.json:[1-9][0-9]*", each.path)
        assert each.message
        assert each.hint


@pytest.mark.parametrize(
    ("release", "name", "words", "others"),
    [
        (
            "emr-7.14.0",
            "everything",
            ["MapReduce (shuffle", "Tez (shuffle", "SASL with Kerberos for HDFS (NameNode RPC"],
            [],
        ),
        ("emr-7.14.0", "in-transit-pem", ["AES with a shared secret for Spark"], ["SASL", "Hadoop KMS"]),
        ("emr-5.6.0", "in-transit-pem", ["Presto"], ["Trino", "AES", "Hive"]),
        ("emr-5.5.0", "in-transit-pem", ["HDFS"], ["Presto"]),
        ("emr-spark-8.0.0", "in-transit-pem", ["Spark"], ["Hive", "Hue", "Oozie"]),
        ("emr-7.14.0", "s3-cse-kms", None, []),
    ],
)
def test_what_in_transit_encryption_turns_on_is_the_release_s(
    release: str, name: str, words: list[str] | None, others: list[str]
) -> None:
    scope = [
        each.message for each in findings_of(document_data(name), release) if each.rule is Rule.EMR_IN_TRANSIT_SCOPE
    ]
    if words is None:
        assert scope == []
        return
    (message,) = scope
    assert [word for word in words if word not in message] == []
    assert [word for word in others if word in message] == []


def test_without_release_region_and_cluster_nothing_is_said_of_them() -> None:
    told = {each.rule for name in DOCUMENTED for each in findings_of(document_data(name), None)}
    assert told.isdisjoint(
        {
            Rule.EMR_RELEASE,
            Rule.EMR_KERBEROS_MISMATCH,
            Rule.EMR_PRIMARY_NODES,
            Rule.EMR_IN_TRANSIT_SCOPE,
            Rule.EMR_WEAK_CIPHER,
        }
    )
    assert Rule.EMR_CLEAR_IN_TRANSIT in told


def test_a_release_that_came_later_is_checked_as_the_last_known_one() -> None:
    found = findings_of(document_data("everything"), "emr-7.99.0")
    assert [each.rule for each in found if "emr-7.14.0" in each.message] == [Rule.EMR_RELEASE_UNKNOWN]
    assert errors_of(found) == []


def test_null_is_taken_for_absent_and_told() -> None:
    data = document_data("everything")
    data["AuthorizationConfiguration"] = None
    data["EncryptionConfiguration"]["InTransitEncryptionConfiguration"]["TLSCertificateConfiguration"]["S3Object"] = (
        None
    )
    found = findings_of(data)
    assert [each.message.partition(" ")[0] for each in found if each.message.endswith("is null")] == [
        "EncryptionConfiguration.InTransitEncryptionConfiguration.TLSCertificateConfiguration.S3Object",
        "AuthorizationConfiguration",
    ]
    assert [each.rule for each in errors_of(found)] == [Rule.EMR_MISSING_MEMBER]


def test_the_metastore_that_speaks_no_tls_is_no_finding() -> None:
    request = {
        "KerberosAttributes": {"Realm": "R"},
        "Applications": [{"Name": "Spark"}, {"Name": "Hive"}],
        "Configurations": [{"Classification": "hive-site", "Properties": {"hive.metastore.use.SSL": "false"}}],
    }
    data = document_data("everything")
    told = [each.rule for each in findings_of(data, cluster=facts_of(request, "c"))]
    assert Rule.EMR_METASTORE_TLS not in told
    assert Rule.EMR_METASTORE_TLS in [each.rule for each in findings_of(data)]


def rules_of_lint() -> set[str]:
    """Every rule that the package names; other commands have rules of EMR's too."""
    package = Path(security_configuration.__file__).parent
    named = (re.findall(r"Rule\.(EMR_\w+)", path.read_text(encoding="utf-8")) for path in package.glob("*.py"))
    return {Rule[name].value for names in named for name in names}


def test_every_rule_of_emr_that_lint_has_is_seen_in_these_tables() -> None:
    seen = {case["rule"] for case in NEGATIVES}
    seen |= {rule for case in TABLE["documented"].values() for rule in case["warnings"]}
    seen |= {rule for errors in TABLE["refused"].values() for rule, _, _ in errors}
    elsewhere = {
        "emr_json",  # test_json_text
        "emr_duplicate_member",  # test_json_text
        "emr_certificate",  # of certificates themselves
        "emr_release_unknown",
        "emr_in_transit_scope",
        "emr_metadata_service",
    }
    assert rules_of_lint() == seen | elsewhere


def test_every_rule_of_emr_is_explained_on_the_page() -> None:
    page = (VECTORS.parents[2] / "packaging/docs/emr-security-configuration.md").read_text(encoding="utf-8")
    assert {rule for rule in rules_of_lint() if f"`{rule}`" not in page} == set()
