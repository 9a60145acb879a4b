"""What the classifications of a cluster say, and what the generator refuses or names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ringfence_bootstrap.classifications.document import Classification, merge
from ringfence_bootstrap.classifications.generate import generate
from ringfence_bootstrap.classifications.wanted import TlsStores, Wanted, read_applications
from ringfence_bootstrap.cli.emr_classifications import classifications
from ringfence_bootstrap.releases import parse_release
from ringfence_zones.access_list import parse_access_list
from ringfence_zones.errors import InputError
from ringfence_zones.findings import Rule, Severity
from ringfence_zones.kms_uri import parse_kms_uri
from ringfence_zones.policy import parse_policy

ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:tls-AbCdEf"
POLICY = parse_policy(
    """\
version: 1
cluster: c
kms: {namenode_users: [hdfs], admins: [hdfs, keyadmin]}
zones:
  - {path: /a, key: a, owner: etl, mode: "0750", readers: [analyst, "@pii"], writers: [etl]}
""",
    "p",
)


def wanted(**changes: Any) -> Wanted:
    given: dict[str, Any] = {
        "release": parse_release("emr-7.12.0"),
        "applications": read_applications(["Hadoop"]),
        "kerberos": True,
    }
    return Wanted(**{**given, **changes})


def properties(**changes: Any) -> dict[str, dict[str, str]]:
    return {each.name: dict(each.properties) for each in generate(wanted(**changes)).classifications}


def rules(**changes: Any) -> list[tuple[str, Rule, Severity]]:
    return [(each.path, each.rule, each.severity) for each in generate(wanted(**changes)).findings]


def test_hadoop_encrypts_calls_and_blocks_with_aes_of_256_bits() -> None:
    assert properties() == {
        "core-site": {"hadoop.rpc.protection": "privacy"},
        "hdfs-site": {
            "dfs.block.access.token.enable": "true",
            "dfs.data.transfer.protection": "privacy",
            "dfs.encrypt.data.transfer": "true",
            "dfs.encrypt.data.transfer.cipher.suites": "AES/CTR/NoPadding",
            "dfs.encrypt.data.transfer.cipher.key.bitlength": "256",
        },
    }


def test_without_kerberos_nothing_is_written_that_only_looks_encrypted() -> None:
    everything = {"applications": read_applications(["Hadoop", "Spark", "Hive", "HBase"]), "kerberos": False}
    assert properties(**everything) == {}
    errors = [path for path, rule, severity in rules(**everything) if severity is Severity.ERROR]
    assert errors == [
        "core-site/hadoop.rpc.protection",
        "hdfs-site/dfs.encrypt.data.transfer",
        "spark-defaults/spark.authenticate",
        "hive-site/hive.server2.thrift.sasl.qop",
        "hbase-site/hbase.rpc.protection",
    ]
    assert {rule for _, rule, severity in rules(**everything) if severity is Severity.ERROR} == {
        Rule.EMR_NEEDS_KERBEROS
    }


def test_without_kerberos_key_stores_alone_do_not_make_a_shuffle_safe() -> None:
    stores = TlsStores("/etc/tls/k.p12", "/etc/tls/t.p12", ARN)
    made = properties(kerberos=False, tls=stores)
    assert "mapred-site" not in made
    found = rules(kerberos=False, tls=stores)
    assert ("mapred-site/mapreduce.shuffle.ssl.enabled", Rule.EMR_NEEDS_KERBEROS, Severity.ERROR) in found


def test_spark_gets_the_cipher_that_its_release_has_in_both_places_that_read_it() -> None:
    applications = read_applications(["spark"])
    new = properties(applications=applications)
    assert new["spark-defaults"] == new["yarn-site"]
    assert new["spark-defaults"]["spark.network.crypto.enabled"] == "true"
    assert new["spark-defaults"]["spark.network.crypto.saslFallback"] == "false"
    old = {"applications": applications, "release": parse_release("emr-5.8.0")}
    assert properties(**old)["yarn-site"]["spark.network.sasl.serverAlwaysEncrypt"] == "true"
    weak = ("spark-defaults/spark.authenticate.enableSaslEncryption", Rule.EMR_WEAK_CIPHER, Severity.WARN)
    assert weak in rules(**old)
    assert weak not in rules(applications=applications, release=parse_release("emr-5.9.0"))


def test_the_shuffle_is_encrypted_when_the_stores_are_named_and_their_password_stays_a_reference() -> None:
    stores = TlsStores("/etc/tls/k.p12", "/etc/tls/t.p12", ARN)
    made = properties(tls=stores, applications=read_applications(["Hadoop", "Tez"]))
    assert made["mapred-site"] == {"mapreduce.shuffle.ssl.enabled": "true"}
    assert made["tez-site"]["tez.runtime.shuffle.ssl.enable"] == "true"
    assert made["hadoop-ssl-server"]["ssl.server.keystore.location"] == "/etc/tls/k.p12"
    passwords = [name for each in made.values() for name in each if "password" in name]
    assert len(passwords) == 4
    assert all(name.startswith("EMR.secret@") for name in passwords)
    assert Rule.EMR_NEEDS_KEY_STORES not in {rule for _, rule, _ in rules(tls=stores)}


@pytest.mark.parametrize("application", ["Presto", "Trino", "Zeppelin", "Livy", "ZooKeeper"])
def test_what_no_classification_can_encrypt_is_named(application: str) -> None:
    found = rules(applications=read_applications([application]))
    assert (application, Rule.EMR_CLEAR_IN_TRANSIT, Severity.WARN) in found


def test_beside_a_security_configuration_only_the_defects_of_that_release_are_put_right() -> None:
    spark = {"applications": read_applications(["Spark", "Hive"]), "in_transit_configured": True}
    release = parse_release
    assert properties(**spark, release=release("emr-7.2.0")) == {}
    assert properties(**spark, release=release("emr-7.3.0")) == {
        "spark-defaults": {"spark.yarn.historyServer.address": "${hadoopconf-yarn.resourcemanager.hostname}:18480"},
        "yarn-site": {"yarn.log.server.url": "https://${yarn.resourcemanager.hostname}:19890/jobhistory/logs"},
        "hive-site": {"hive.metastore.use.SSL": "false"},
    }
    assert set(properties(**spark, release=release("emr-7.9.0"))) == {"spark-defaults", "hive-site"}
    assert set(properties(**spark, release=release("emr-7.10.0"))) == {"hive-site"}
    assert properties(**spark, release=release("emr-7.10.0"), kerberos=False) == {}


def test_a_foreign_certificate_costs_the_comparison_of_names() -> None:
    given = {
        "applications": read_applications(["Oozie"]),
        "in_transit_configured": True,
        "foreign_certificate": True,
    }
    made = properties(**given)
    assert made["core-site"] == {"hadoop.ssl.hostname.verifier": "ALLOW_ALL"}
    assert made["oozie-site"] == {"oozie.https.enabled": "false"}
    assert properties(**given, release=parse_release("emr-7.2.0")) == {}
    assert rules(**given, release=parse_release("emr-7.2.0")) == [
        ("core-site/hadoop.ssl.hostname.verifier", Rule.EMR_KNOWN_DEFECT, Severity.WARN)
    ]


def test_zones_are_prepared_and_never_made_by_emr() -> None:
    for kms in ("ringfence", "hardened"):
        made = properties(policy=POLICY, kms=kms)
        assert "hdfs-encryption-zones" not in made
        assert made["hdfs-site"]["dfs.namenode.acls.enabled"] == "true"


def test_the_access_lists_are_closed_and_nobody_survives_trimming() -> None:
    acls = properties(policy=POLICY)["hadoop-kms-acls"]
    for name in ("hadoop.kms.acl.GET", "hadoop.kms.acl.SET_KEY_MATERIAL", "default.key.acl.DECRYPT_EEK"):
        listed = parse_access_list(acls[name].strip())
        assert acls[name].strip()
        assert (listed.users, listed.groups, listed.everybody) == (frozenset(), frozenset(), False)
    assert acls["hadoop.kms.acl.CREATE"] == "hdfs,keyadmin"
    assert acls["hadoop.kms.blacklist.DECRYPT_EEK"] == "hdfs,keyadmin"
    assert not [name for name in acls if name.startswith("key.acl.")]


def test_a_hardened_stock_kms_gets_the_lists_of_each_key_too() -> None:
    acls = properties(policy=POLICY, kms="hardened")["hadoop-kms-acls"]
    assert acls["key.acl.a.DECRYPT_EEK"] == "analyst,etl pii"
    assert acls["key.acl.a.GENERATE_EEK"] == "hdfs"


def test_services_act_for_the_readers_of_zones_and_for_nobody_else() -> None:
    made = properties(policy=POLICY, applications=read_applications(["Hive", "Livy"]))["hadoop-kms-site"]
    assert made["hadoop.kms.proxyuser.hive.users"] == "analyst,etl"
    assert made["hadoop.kms.proxyuser.livy.groups"] == "pii"


def test_a_kms_off_the_cluster_and_name_rules_go_where_each_release_reads_them() -> None:
    uri = parse_kms_uri("kms://https@a;b:9600/kms")
    given = {"policy": POLICY, "kms_uri": uri, "auth_to_local": "DEFAULT"}
    new, old = properties(**given), properties(**given, release=parse_release("emr-5.36.0"))
    assert new["core-site"]["hadoop.security.key.provider.path"] == uri.text
    assert "dfs.encryption.key.provider.uri" not in new["hdfs-site"]
    assert old["hdfs-site"]["dfs.encryption.key.provider.uri"] == uri.text
    rules_of_names = new["hadoop-kms-site"]["hadoop.kms.authentication.kerberos.name.rules"]
    assert rules_of_names == new["core-site"]["hadoop.security.auth_to_local"] == "DEFAULT"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tls": TlsStores("k", "/t", ARN)}, "no absolute path"),
        ({"tls": TlsStores("/k", "/t", "hunter2")}, "not the ARN of a secret"),
        ({"tls": TlsStores("/k", "/t", ARN), "in_transit_configured": True}, "EMR makes the key stores itself"),
        ({"foreign_certificate": True}, "--foreign-certificate"),
        ({"kms": "hardened"}, "none was named"),
        ({"release": parse_release("emr-4.0.0"), "policy": POLICY}, "has no HDFS encryption"),
        (
            {"release": parse_release("emr-spark-8.0.0"), "applications": frozenset({"Hive"})},
            "emr-spark-8.0.0 has no Hive",
        ),
        ({"auth_to_local": "DEFAULT", "kerberos": False}, "maps Kerberos principals"),
    ],
)
def test_what_contradicts_itself_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        generate(wanted(**changes))
    assert "hunter2" not in str(refused.value)


def test_an_application_that_emr_does_not_have_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="Sparc") as refused:
        read_applications(["Sparc"])
    assert refused.value.hint == "did you mean Spark?"


def test_one_property_never_gets_two_values() -> None:
    with pytest.raises(InputError, match="both '1' and '2'"):
        merge([Classification("core-site", {"p": "1"}), Classification("core-site", {"p": "2"})])


def test_the_command_prints_what_run_job_flow_takes_and_ends_with_3_for_what_cannot_be() -> None:
    runner = CliRunner()
    done = runner.invoke(classifications, ["--release", "emr-7.12.0", "--kerberos"])
    assert done.exit_code == 0
    printed = json.loads(done.stdout)
    assert [set(each) for each in printed] == [{"Classification", "Properties"}] * len(printed)
    assert "emr_needs_key_stores" in done.stderr
    refused = runner.invoke(classifications, ["--release", "emr-7.12.0", "--json"])
    assert refused.exit_code == 3
    answer = json.loads(refused.stdout)
    assert answer["configurations"] == []
    assert "emr_needs_kerberos" in {each["rule"] for each in answer["findings"]}


def test_the_command_reads_from_a_security_configuration_whether_it_encrypts_in_transit(tmp_path: Path) -> None:
    document = tmp_path / "sc.json"
    document.write_text(
        json.dumps(
            {
                "EncryptionConfiguration": {
                    "EnableInTransitEncryption": True,
                    "EnableAtRestEncryption": False,
                    "InTransitEncryptionConfiguration": {
                        "TLSCertificateConfiguration": {
                            "CertificateProviderType": "PEM",
                            "S3Object": "s3://bucket/certificates.zip",
                        }
                    },
                }
            }
        )
    )
    options = ["--release", "emr-7.5.0", "--kerberos", "--security-configuration", str(document)]
    done = CliRunner().invoke(classifications, options)
    assert done.exit_code == 0, done.output
    assert [each["Classification"] for each in json.loads(done.stdout)] == ["yarn-site"]
