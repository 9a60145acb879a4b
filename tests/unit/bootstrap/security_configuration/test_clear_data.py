"""What stays unencrypted, and why: with no document, with half a document, with a whole one, by release."""

from __future__ import annotations

import json
from typing import Any

import pytest
from emr_documents import changed, document_data, document_path, parse_place

from ringfence_bootstrap.releases import parse_release
from ringfence_bootstrap.security_configuration.clear_data import find_clear_data
from ringfence_bootstrap.security_configuration.cluster import ClusterFacts, facts_of
from ringfence_bootstrap.security_configuration.reading import parse_document, read_document
from ringfence_zones.findings import Finding, Rule, Severity

NEWEST = parse_release("emr-7.14.0")
DISK = "EncryptionConfiguration.AtRestEncryptionConfiguration.LocalDiskEncryptionConfiguration"


def clear(name: str, release: str | None = "emr-7.14.0", **cluster: Any) -> list[Finding]:
    facts = facts_of(cluster, "j-1") if cluster else None
    found = find_clear_data(
        read_document(document_path(name)), parse_release(release) if release else None, cluster=facts
    )
    return [each for each in found if each.severity is not Severity.INFO]


def told(found: list[Finding]) -> str:
    return " | ".join(each.message for each in found)


def test_without_a_security_configuration_everything_is_in_clear_and_the_cluster_is_named() -> None:
    found = find_clear_data(None, NEWEST, cluster=ClusterFacts(name="j-1"))
    assert [(each.severity, each.rule, each.path) for each in found] == [
        (Severity.ERROR, Rule.EMR_CLEAR_AT_REST, "j-1"),
        (Severity.ERROR, Rule.EMR_CLEAR_IN_TRANSIT, "j-1"),
    ]
    assert all("nothing is encrypted by default" in each.message for each in found)
    assert all("attached at creation only" in each.hint for each in found)


def test_with_everything_on_nothing_is_left_but_what_depends_on_use() -> None:
    assert clear("everything") == []
    found = find_clear_data(read_document(document_path("everything")), NEWEST)
    assert {each.severity for each in found} == {Severity.INFO}
    assert "Hadoop's KMS and HttpFS stay plain HTTP" in told(found)


def test_with_encryption_zones_the_plain_key_server_is_a_warning() -> None:
    zones = [{"Classification": "hdfs-encryption-zones", "Properties": {"/data": "k"}}]
    (found,) = clear("everything", KerberosAttributes={"Realm": "R"}, Configurations=zones)
    assert "plain HTTP" in found.message


def test_a_switch_that_is_off_is_an_error_and_what_is_missing_below_one_is_told() -> None:
    (at_rest, *_) = clear("in-transit-pem")
    assert (at_rest.severity, at_rest.rule) == (Severity.ERROR, Rule.EMR_CLEAR_AT_REST)
    disks, transit = clear("s3-cse-kms")
    assert (disks.severity, "the root device included" in disks.message) == (Severity.ERROR, True)
    assert (transit.severity, transit.rule) == (Severity.ERROR, Rule.EMR_CLEAR_IN_TRANSIT)
    buckets, root, _ = clear("local-disk-alone")
    assert (buckets.severity, root.rule) == (Severity.WARN, Rule.EMR_CLEAR_ROOT_DEVICE)


@pytest.mark.parametrize(
    ("release", "words"),
    [
        ("emr-5.6.0", "no way to encrypt it"),
        ("emr-5.7.0", "an encrypted custom AMI is the only way"),
        ("emr-5.23.1", "an encrypted custom AMI is the only way"),
        ("emr-5.24.0", '"EnableEbsEncryption": true'),
        ("emr-7.14.0", '"EnableEbsEncryption": true'),
        (None, '"EnableEbsEncryption": true (from emr-5.24.0)'),
    ],
)
def test_the_way_to_an_encrypted_root_device_is_the_release_s(release: str | None, words: str) -> None:
    (root,) = (each for each in clear("local-disk-alone", release) if each.rule is Rule.EMR_CLEAR_ROOT_DEVICE)
    assert root.severity is Severity.WARN
    assert words in f"{root.message} | {root.hint}"


def test_a_provider_of_one_s_own_has_no_ebs_encryption_to_switch_on() -> None:
    (root,) = (each for each in clear("one-class-for-disk-and-s3") if each.rule is Rule.EMR_CLEAR_ROOT_DEVICE)
    assert "use the provider AwsKms" in root.hint


def test_a_custom_ami_may_be_encrypted_so_it_is_no_warning() -> None:
    found = clear("local-disk-alone", CustomAmiId="ami-0")
    assert Rule.EMR_CLEAR_ROOT_DEVICE not in [each.rule for each in found]


def test_encrypted_disks_bring_private_rpc_of_their_own_with_kerberos() -> None:
    off = changed(document_data("everything"), parse_place("EncryptionConfiguration.EnableInTransitEncryption"), False)
    document = parse_document(json.dumps(off), "d")
    with_kerberos, without, no_disks = (
        told(find_clear_data(each, NEWEST, cluster=cluster))
        for each, cluster in (
            (document, None),
            (document, ClusterFacts(has_kerberos_attributes=False)),
            (read_document(document_path("s3-cse-kms")), None),
        )
    )
    assert "RPC and block transfer are private" in with_kerberos
    assert "nothing without Kerberos" in without
    assert "no encrypted shuffle, RPC or block transfer" in no_disks


def test_without_kerberos_rpc_and_block_transfer_stay_in_clear() -> None:
    (_, without) = clear("in-transit-pem")
    assert "without Kerberos" in without.message
    for endpoint in ("NameNode RPC (8020)", "block transfer (9866)", "ResourceManager RPC", "NodeManager RPC"):
        assert endpoint in without.message
    assert "MapReduce shuffle" not in without.message
    # The document has Kerberos, and the cluster was made without it.
    assert "without Kerberos" in told(clear("everything", Name="c"))


def test_block_transfer_needs_encrypted_disks_too() -> None:
    data = changed(document_data("everything"), parse_place(DISK), None)
    found = find_clear_data(parse_document(json.dumps(data), "d"), NEWEST)
    assert "HDFS block transfer (9866) is encrypted with AES only when local disks are encrypted too" in told(found)


@pytest.mark.parametrize(
    ("release", "application", "reached"),
    [
        ("emr-5.5.0", "Presto", False),
        ("emr-5.6.0", "Presto", True),
        ("emr-6.8.0", "Hive", False),
        ("emr-7.3.0", "Hive", True),
        ("emr-7.3.0", "Livy", False),
        ("emr-7.4.0", "Livy", True),
    ],
)
def test_what_a_release_does_not_reach_yet_is_told_of_installed_applications(
    release: str, application: str, reached: bool
) -> None:
    message = told(clear("in-transit-pem", release, Applications=[{"Name": application}]))
    assert (f"{application} " not in message) is reached
    assert "where they are installed" not in message


def test_applications_that_nobody_named_are_told_as_such_and_those_that_are_not_there_are_not() -> None:
    unknown = told(clear("in-transit-pem", "emr-6.15.0"))
    assert "where they are installed" in unknown
    assert "Zeppelin" in unknown
    assert "Zeppelin" not in told(clear("in-transit-pem", "emr-6.15.0", Applications=[{"Name": "Spark"}]))


@pytest.mark.parametrize(
    ("release", "words"),
    [("emr-4.9.0", "Akka"), ("emr-5.8.0", "DIGEST-MD5 and 3DES"), ("emr-5.9.0", None), ("emr-7.14.0", None)],
)
def test_old_releases_have_old_ciphers_for_spark(release: str, words: str | None) -> None:
    weak = [each for each in clear("in-transit-pem", release) if each.rule is Rule.EMR_WEAK_CIPHER]
    assert (words in weak[0].message) if words is not None else weak == []
    hive = clear("in-transit-pem", release, Applications=[{"Name": "Hive"}])
    assert Rule.EMR_WEAK_CIPHER not in [each.rule for each in hive]


def test_the_spark_train_is_not_told_of_what_it_left_out() -> None:
    found = find_clear_data(read_document(document_path("in-transit-pem")), parse_release("emr-spark-8.0.0"))
    assert "Hive" not in told(found)
    assert "HDFS NameNode RPC" in told(found)
