"""Every refusal: the rule, the place, and that the document without the cause is taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from emr_launch import VECTORS, Site

from ringfence_zones.findings import Rule

ZONES = {"Classification": "hdfs-encryption-zones", "Properties": {"/data/a": "key-a"}}
ARN = "arn:aws:secretsmanager:us-east-1:111122223333:secret:x-AbCdEf"
OTHER_KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
CLIENTS = "mode: clients-only\nclients: {uri: 'kms://https@kms1.example.com;kms2.example.com:9600/kms'}\n"
HARDENED = (
    "mode: hardened-stock-kms\nhardened: {policy: /p, password_file: /q, tls: {cert: /a, key: /b, ca_file: /c}}\n"
)
RANGER = [
    {
        "Classification": "ranger-kms-dbks-site",
        "Properties": {
            "ranger.ks.jpa.jdbc.url": "jdbc:log4jdbc:mysql://db.example.com:3306/rangerkms",
            "ranger.ks.jpa.jdbc.user": "rangerkms",
            "EMR.secret@ranger.ks.jpa.jdbc.password": ARN,
            "EMR.secret@ranger.db.encrypt.key.password": ARN,
        },
    },
    {
        "Classification": "ranger-kms-db-ca",
        "Properties": {"ranger.kms.trust.ca.file.s3.url": "s3://example-emr/ca.pem"},
    },
    ZONES,
]


def bootstrap(site: Site, rest: str) -> Site:
    head = (VECTORS / "bootstrap.yaml").read_text().split("mode:")[0]
    return site.file("bootstrap.yaml", head + rest)


def existing(site: Site) -> Site:
    return bootstrap(site, "mode: existing-kms\n")


def with_configurations(*blocks: dict[str, Any]) -> Callable[[Site], Site]:
    return lambda site: site.set([*blocks], "configurations")


def with_properties(name: str, **properties: str) -> Callable[[Site], Site]:
    return with_configurations({"Classification": name, "Properties": properties})


def three(site: Site) -> Site:
    return site.set(3, "instances", "primary", "count")


def without_ringfence(site: Site) -> Site:
    return site.drop("ringfence")


def kerberos(site: Site) -> Site:
    site.set({"name": "s", "file": "kerberos.json"}, "security_configuration")
    provider = {"Provider": "ClusterDedicatedKdc", "ClusterDedicatedKdcConfiguration": {"TicketLifetimeInHours": 24}}
    return site.file("kerberos.json", json.dumps({"AuthenticationConfiguration": {"KerberosConfiguration": provider}}))


def attributes(site: Site, **more: Any) -> Site:
    return site.set({"realm": "EC2.INTERNAL", "kdc_admin_password": {"secret": ARN}, **more}, "kerberos")


def authorization(site: Site, document: dict[str, Any]) -> Site:
    return three(site).file("security-configuration-without-kerberos.json", json.dumps(document))


def chain(*changes: Callable[[Site], Site]) -> Callable[[Site], Site]:
    def change(site: Site) -> Site:
        for each in changes:
            each(site)
        return site

    return change


class Case(NamedTuple):
    """What is changed, which rule speaks, what the line holds that it names, and a word of the message."""

    why: str
    change: Callable[[Site], Site]
    rule: Rule
    line: str
    word: str


def steps(count: int) -> list[dict[str, Any]]:
    return [{"name": f"s{number}", "jar": "command-runner.jar"} for number in range(count)]


def actions(count: int) -> list[dict[str, Any]]:
    return [{"name": f"b{number}", "path": "s3://example-emr/b.sh"} for number in range(count)]


ERRORS = [
    Case(
        "an upper-case key",
        chain(existing, with_properties("hdfs-encryption-zones", **{"/data/a": "Key-A"})),
        Rule.EMR_KEY_NAME_CASE,
        "/data/a: Key-A",
        "Key-A",
    ),
    Case(
        "one key for two zones",
        chain(existing, with_properties("hdfs-encryption-zones", **{"/data/a": "k", "/data/b": "k"})),
        Rule.DUPLICATE_KEY,
        "/data/b: k",
        "/data/a",
    ),
    Case(
        "a relative zone",
        chain(existing, with_properties("hdfs-encryption-zones", **{"data/a": "k"})),
        Rule.BAD_PATH,
        "data/a: k",
        "data/a",
    ),
    Case(
        "a key that is no name",
        chain(existing, with_properties("hdfs-encryption-zones", **{"/data/a": "a key"})),
        Rule.BAD_KEY_NAME,
        "/data/a: a key",
        "a key",
    ),
    Case(
        "Trino alone from 7.14",
        lambda site: site.set(["Trino"], "applications").set("emr-7.14.0", "release"),
        Rule.EMR_NO_HDFS,
        "applications:",
        "Trino",
    ),
    Case(
        "a node's configuration that is for a machine off the cluster",
        lambda site: bootstrap(site, "mode: key-server\nkms: {listen: 'localhost:9600'}\n"),
        Rule.EMR_KMS_ADDRESS,
        "configuration_file:",
        "no node of a cluster",
    ),
    Case("three primaries with keys on each", three, Rule.EMR_SINGLE_NODE_KEY_STORE, "configuration_file:", "three"),
    Case(
        "three primaries with a hardened key store on one",
        lambda site: bootstrap(three(site), HARDENED),
        Rule.EMR_SINGLE_NODE_KEY_STORE,
        "configuration_file:",
        "hardened-stock-kms",
    ),
    Case(
        "three primaries with the stock KMS and no Ranger KMS",
        chain(three, existing),
        Rule.EMR_SINGLE_NODE_KEY_STORE,
        "count: 3",
        "ranger.db.encrypt.key.password",
    ),
    Case(
        "three primaries on emr-spark",
        chain(three, existing, lambda site: site.set("emr-spark-8.0.0", "release")),
        Rule.EMR_NO_RANGER_KMS,
        "count: 3",
        "emr-spark-8.0.0",
    ),
    Case(
        "settings of Ranger KMS on emr-spark",
        chain(lambda site: site.set("emr-spark-8.0.0", "release"), with_properties("ranger-kms-site", a="b")),
        Rule.EMR_NO_RANGER_KMS,
        "- Classification: ranger-kms-site",
        "ranger-kms-site",
    ),
    Case(
        "Hive on emr-spark",
        lambda site: site.set("emr-spark-8.0.0", "release").set(["Hadoop", "hive"], "applications"),
        Rule.EMR_RELEASE,
        "- hive",
        "no Hive",
    ),
    Case(
        "a classification that was renamed",
        with_properties("ranger-kms-log4j", a="b"),
        Rule.EMR_CLASSIFICATION,
        "- Classification: ranger-kms-log4j",
        "ranger-kms-logback",
    ),
    Case(
        "two primaries",
        lambda site: site.set(2, "instances", "primary", "count"),
        Rule.EMR_PRIMARY_NODES,
        "count: 2",
        "instances.primary.count",
    ),
    Case(
        "three primaries with runtime roles",
        lambda site: authorization(
            site, {"AuthorizationConfiguration": {"IAMConfiguration": {"EnableApplicationScopedIAMRole": True}}}
        ),
        Rule.EMR_PRIMARY_NODES,
        "security_configuration:",
        "EnableApplicationScopedIAMRole",
    ),
    Case(
        "three primaries with Identity Center",
        lambda site: authorization(
            site,
            {"AuthenticationConfiguration": {"IdentityCenterConfiguration": {"EnableIdentityCenter": True}}},
        ),
        Rule.EMR_PRIMARY_NODES,
        "security_configuration:",
        "EnableIdentityCenter",
    ),
    Case(
        "17 bootstrap actions with ours",
        lambda site: site.set(actions(16), "bootstrap_actions"),
        Rule.EMR_LIMIT,
        "bootstrap_actions:",
        "17 bootstrap actions (Ringfence's among them)",
    ),
    Case("257 steps with ours", lambda site: site.set(steps(256), "steps"), Rule.EMR_LIMIT, "steps:", "257 steps"),
    Case(
        "101 steps on emr-spark",
        chain(
            lambda site: site.set("emr-spark-8.0.0", "release"),
            without_ringfence,
            lambda site: site.set(steps(101), "steps"),
        ),
        Rule.EMR_LIMIT,
        "steps:",
        "101 steps",
    ),
    Case(
        "an argument that is too long",
        lambda site: site.set(["x" * 10_281], "bootstrap_actions", 0, "args"),
        Rule.EMR_LIMIT,
        "args:",
        "10281",
    ),
    Case(
        "a step that is too long altogether",
        lambda site: site.set(["x" * 5_200] * 2, "steps", 0, "args"),
        Rule.EMR_LIMIT,
        "- name: load",
        "10418",
    ),
    Case(
        "too many steps side by side",
        lambda site: site.set(257, "step_concurrency"),
        Rule.EMR_LIMIT,
        "step_concurrency:",
        "256",
    ),
    Case(
        "zones of an instance group",
        chain(existing, lambda site: site.set([ZONES], "instances", "core", "configurations")),
        Rule.EMR_ZONES_RECONFIGURED,
        "- Classification: hdfs-encryption-zones",
        "core",
    ),
    Case(
        "zones beside the takeover",
        with_configurations(ZONES),
        Rule.EMR_ZONES_BESIDE_TAKEOVER,
        "- Classification: hdfs-encryption-zones",
        "to take the place",
    ),
    Case(
        "zones beside a KMS off the cluster",
        chain(lambda site: bootstrap(site, CLIENTS), with_configurations(ZONES)),
        Rule.EMR_ZONES_BESIDE_TAKEOVER,
        "- Classification: hdfs-encryption-zones",
        "off the cluster",
    ),
    Case(
        "a zone with another key than the policy's",
        chain(existing, with_properties("hdfs-encryption-zones", **{"/data/pii": "other"})),
        Rule.ZONE_KEY_MISMATCH,
        "/data/pii: other",
        "analytics-data-pii",
    ),
    Case("Kerberos without attributes", kerberos, Rule.EMR_KERBEROS_MISMATCH, "security_configuration:", "realm"),
    Case("attributes without Kerberos", attributes, Rule.EMR_KERBEROS_MISMATCH, "kerberos:", "KerberosConfiguration"),
    Case(
        "attributes without a security configuration",
        chain(attributes, lambda site: site.drop("security_configuration")),
        Rule.EMR_KERBEROS_MISMATCH,
        "kerberos:",
        "no security configuration",
    ),
    Case(
        "a trust password without a trust",
        chain(kerberos, lambda site: attributes(site, cross_realm_trust_password={"secret": ARN})),
        Rule.EMR_KERBEROS_MISMATCH,
        "cross_realm_trust_password:",
        "CrossRealmTrustConfiguration",
    ),
    Case(
        "three primaries with a KDC on one",
        chain(kerberos, attributes, three, lambda site: bootstrap(site, CLIENTS)),
        Rule.EMR_KERBEROS_MISMATCH,
        "kerberos:",
        "ExternalKdc",
    ),
    Case(
        "RPC privacy without Kerberos",
        with_properties("core-site", **{"hadoop.rpc.protection": "privacy"}),
        Rule.EMR_NEEDS_KERBEROS,
        "hadoop.rpc.protection:",
        "hadoop.rpc.protection",
    ),
    Case(
        "block transfer encryption without Kerberos",
        with_properties("hdfs-site", **{"dfs.encrypt.data.transfer": "true"}),
        Rule.EMR_NEEDS_KERBEROS,
        "dfs.encrypt.data.transfer:",
        "dfs.encrypt.data.transfer",
    ),
    Case(
        "a release without Python 3.11",
        lambda site: site.set("emr-7.0.0", "release"),
        Rule.EMR_RELEASE,
        "release:",
        "Python 3.11",
    ),
    Case("an old release", lambda site: site.set("emr-5.20.0", "release"), Rule.EMR_RELEASE, "release:", "systemd"),
    Case(
        "a custom image on an older release",
        chain(
            without_ringfence,
            lambda site: site.set("emr-5.6.0", "release").set("ami-0123456789abcdef0", "custom_ami"),
        ),
        Rule.EMR_RELEASE,
        "custom_ami:",
        "custom AMIs",
    ),
    Case(
        "encrypted logs on 6.0.0",
        chain(
            without_ringfence,
            lambda site: site.set("emr-6.0.0", "release").set(
                OTHER_KEY.replace("eu-west-1", "us-east-1"), "log_encryption_key"
            ),
        ),
        Rule.EMR_RELEASE,
        "log_encryption_key:",
        "emr-6.0.0",
    ),
    Case(
        "a key for logs of another region",
        lambda site: site.set(OTHER_KEY, "log_encryption_key"),
        Rule.EMR_KEY,
        "log_encryption_key:",
        "eu-west-1",
    ),
    Case(
        "encrypted logs that go nowhere",
        lambda site: site.set(OTHER_KEY.replace("eu-west-1", "us-east-1"), "log_encryption_key").drop("log_uri"),
        Rule.MISSING_FIELD,
        "log_encryption_key:",
        "log_uri",
    ),
    Case(
        "a name that is not EMR's",
        with_properties("kms-acls", a="b"),
        Rule.EMR_CLASSIFICATION,
        "- Classification: kms-acls",
        "kms-acls",
    ),
    Case(
        "a classification twice in a group",
        lambda site: site.set(
            [{"Classification": "yarn-site"}, {"Classification": "yarn-site"}], "instances", "core", "configurations"
        ),
        Rule.EMR_CLASSIFICATION,
        "Classification: yarn-site",
        "second time",
    ),
    Case(
        "a property with two values",
        with_configurations(
            {"Classification": "yarn-site", "Properties": {"a": "1"}},
            {"Classification": "yarn-site", "Properties": {"a": "2"}},
        ),
        Rule.EMR_CLASSIFICATION,
        "a: '2'",
        "another value",
    ),
    Case(
        "a nested property with another value in a file",
        lambda site: (
            site.file(
                "c.json",
                '[{"Classification": "hadoop-env", "Configurations":'
                ' [{"Classification": "export", "Properties": {"A": "2"}}]}]',
            )
            .set(["c.json"], "configuration_files")
            .set(
                [
                    {
                        "Classification": "hadoop-env",
                        "Configurations": [{"Classification": "export", "Properties": {"A": "1"}}],
                    }
                ],
                "configurations",
            )
        ),
        Rule.EMR_CLASSIFICATION,
        "",
        "hadoop-env/export",
    ),
    Case(
        "a password in clear",
        with_properties("hive-site", **{"javax.jdo.option.ConnectionPassword": "canary-7f3a"}),
        Rule.EMR_SECRET_IN_CLEAR,
        "javax.jdo.option.ConnectionPassword:",
        "javax.jdo.option.ConnectionPassword",
    ),
    Case(
        "a password in clear, nested",
        with_configurations(
            {
                "Classification": "hadoop-env",
                "Configurations": [{"Classification": "export", "Properties": {"DB_PASSWORD": "canary-7f3a"}}],
            }
        ),
        Rule.EMR_SECRET_IN_CLEAR,
        "DB_PASSWORD:",
        "DB_PASSWORD",
    ),
    Case(
        "a reference to no secret",
        with_properties("hive-site", **{"EMR.secret@javax.jdo.option.ConnectionPassword": "canary-7f3a"}),
        Rule.EMR_SECRET_REFERENCE,
        "EMR.secret@",
        "ARN",
    ),
    Case(
        "a secret as itself and by reference",
        with_properties("hive-site", **{"EMR.secret@x.user": ARN, "x.user": "u"}),
        Rule.EMR_SECRET_REFERENCE,
        "EMR.secret@",
        "x.user",
    ),
    Case(
        "a reference that is too long",
        with_properties("hive-site", **{"EMR.secret@x.user": ARN + "x" * 1000}),
        Rule.EMR_LIMIT,
        "EMR.secret@",
        "1024",
    ),
    Case(
        "an argument with a password",
        lambda site: site.set(["--user", "u", "--password", "canary-7f3a"], "bootstrap_actions", 0, "args"),
        Rule.EMR_SECRET_IN_CLEAR,
        "- canary-7f3a",
        "argument 3",
    ),
    Case(
        "a command with a password",
        lambda site: site.set(["bash", "-c", "DB_PASSWORD=canary-7f3a ./run"], "steps", 0, "args"),
        Rule.EMR_SECRET_IN_CLEAR,
        "DB_PASSWORD",
        "argument 2",
    ),
    Case(
        "an access key anywhere",
        lambda site: site.set(["AKIA" + "CANARY7F3A000000"], "steps", 0, "args"),
        Rule.EMR_SECRET_IN_CLEAR,
        "- AKIA",
        "argument 0",
    ),
    Case(
        "a token of Vault anywhere",
        with_properties("spark-defaults", x="hvs." + "CAESIcanary7f3a" * 3),
        Rule.EMR_SECRET_IN_CLEAR,
        "x: hvs",
        "spark-defaults",
    ),
    Case(
        "a password in a property of a step",
        lambda site: site.set({"db.password": "canary-7f3a"}, "steps", 0, "properties"),
        Rule.EMR_SECRET_IN_CLEAR,
        "db.password:",
        "db.password",
    ),
    Case(
        "a second address of the KMS",
        with_properties("core-site", **{"hadoop.security.key.provider.path": "kms://http@other:9600/kms"}),
        Rule.EMR_KMS_ADDRESS,
        "hadoop.security.key.provider.path:",
        "two KMS",
    ),
    Case(
        "a KMS off the cluster on the node itself",
        lambda site: bootstrap(site, CLIENTS.replace("kms1.example.com;kms2.example.com", "localhost")),
        Rule.EMR_KMS_ADDRESS,
        "configuration_file:",
        "localhost",
    ),
    Case(
        "TLS demanded of a plain KMS",
        lambda site: bootstrap(site, "mode: ringfence-kms\n").set(True, "ringfence", "zones", "require_tls"),
        Rule.EMR_KMS_ADDRESS,
        "require_tls:",
        "plain http",
    ),
    Case(
        "a wait beyond a day",
        lambda site: site.set("2d", "ringfence", "zones", "wait"),
        Rule.BAD_VALUE,
        "wait:",
        "2d",
    ),
    Case(
        "a policy without administrators",
        lambda site: site.file("zones.yaml", "version: 1\ncluster: c\nzones: [{path: /a}]\n"),
        Rule.MISSING_KMS,
        "policy_file:",
        "kms.admins",
    ),
    Case(
        "two task groups of one name",
        lambda site: site.set(
            [{"name": "t", "type": "m6i.xlarge"}, {"name": "t", "type": "m6i.xlarge"}], "instances", "task"
        ),
        Rule.BAD_VALUE,
        "- name: t",
        "t",
    ),
    Case(
        "a volume without iops",
        lambda site: site.set([{"type": "io2", "size_gib": 100}], "instances", "core", "volumes"),
        Rule.MISSING_FIELD,
        "- type: io2",
        "iops",
    ),
    Case(
        "iops of a volume that has none",
        lambda site: site.set([{"type": "st1", "size_gib": 100, "iops": 3000}], "instances", "core", "volumes"),
        Rule.BAD_VALUE,
        "iops:",
        "st1",
    ),
    Case(
        "throughput of a volume that has none",
        lambda site: site.set(
            [{"type": "gp2", "size_gib": 100, "throughput_mib_s": 250}], "instances", "core", "volumes"
        ),
        Rule.BAD_VALUE,
        "throughput_mib_s:",
        "gp2",
    ),
]
WARNINGS = [
    Case("no Hadoop", lambda site: site.set(["Spark"], "applications"), Rule.EMR_NO_HDFS, "applications:", "Hadoop"),
    Case(
        "three primaries without protection",
        chain(three, lambda site: bootstrap(site, CLIENTS), lambda site: site.set(False, "termination_protection")),
        Rule.EMR_PRIMARY_NODES,
        "termination_protection:",
        "whatever",
    ),
    Case(
        "a step that ends a cluster of three primaries",
        chain(
            three,
            lambda site: bootstrap(site, CLIENTS),
            lambda site: site.set("TERMINATE_CLUSTER", "steps", 0, "on_failure"),
        ),
        Rule.EMR_PRIMARY_NODES,
        "on_failure:",
        "failed",
    ),
    Case(
        "steps side by side",
        lambda site: site.set(4, "step_concurrency"),
        Rule.EMR_STEP_ORDER,
        "step_concurrency:",
        "zones step",
    ),
    Case(
        "steps that go on without zones",
        lambda site: site.set("CONTINUE", "ringfence", "zones", "on_failure"),
        Rule.EMR_STEP_ORDER,
        "on_failure: CONTINUE",
        "no zone",
    ),
    Case(
        "a KMS without TLS",
        lambda site: bootstrap(site, "mode: ringfence-kms\n"),
        Rule.KMS_PLAIN_HTTP,
        "configuration_file:",
        "clear",
    ),
    Case(
        "HDFS on spot instances",
        lambda site: site.set("0.2", "instances", "core", "bid_price"),
        Rule.EMR_SPOT,
        "bid_price:",
        "spot",
    ),
    Case(
        "Spark's secret without Kerberos",
        with_properties("spark-defaults", **{"spark.authenticate": "true"}),
        Rule.EMR_NEEDS_KERBEROS,
        "spark.authenticate:",
        "Spark's secret",
    ),
    Case(
        "an ACL for a key in upper case",
        with_properties("hadoop-kms-acls", **{"key.acl.Key-A.READ": "*"}),
        Rule.ACL_KEY_CASE,
        "key.acl.Key-A.READ:",
        "Key-A",
    ),
    Case(
        "a security configuration by name with Kerberos attributes",
        chain(attributes, lambda site: site.set({"name": "s"}, "security_configuration")),
        Rule.EMR_KERBEROS_MISMATCH,
        "kerberos:",
        "by its name",
    ),
    Case(
        "Kerberos without a keytab",
        chain(kerberos, attributes),
        Rule.EMR_KERBEROS_MISMATCH,
        "configuration_file:",
        "keytab",
    ),
    Case(
        "no security configuration",
        lambda site: site.drop("security_configuration"),
        Rule.EMR_CLEAR_AT_REST,
        "",
        "nothing is encrypted by default",
    ),
]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_the_document_that_every_case_begins_with_is_taken(site: Site) -> None:
    assert site.errors() == []


@pytest.mark.parametrize("case", ERRORS, ids=lambda case: case.why)
def test_what_emr_would_fail_over_is_refused(site: Site, case: Case) -> None:
    found = [finding for finding in case.change(site).errors() if finding.rule is case.rule]
    assert found, [(finding.rule, finding.message) for finding in site.findings()]
    assert case.word in found[0].message
    assert found[0].hint
    if case.line:
        assert found[0].path in {
            f"{site.cluster}:{number}"
            for number, line in enumerate(site.cluster.read_text().splitlines(), 1)
            if case.line in line
        }


@pytest.mark.parametrize("case", ERRORS, ids=lambda case: case.why)
def test_a_refusal_quotes_no_secret(site: Site, case: Case) -> None:
    assert "canary" not in repr(case.change(site).findings()).lower()


@pytest.mark.parametrize("case", WARNINGS, ids=lambda case: case.why)
def test_what_emr_does_without_a_word_is_a_warning_and_no_refusal(site: Site, case: Case) -> None:
    case.change(site)
    assert site.errors() == []
    found = [finding for finding in site.findings() if finding.rule is case.rule and case.word in finding.message]
    assert found, [(finding.rule, finding.message) for finding in site.findings()]
    if case.line:
        assert found[0].path == f"{site.cluster}:{site.line_of(case.line)}"


def test_three_primaries_with_key_servers_elsewhere_are_taken(site: Site) -> None:
    bootstrap(three(site), CLIENTS)
    assert site.errors() == []


def test_three_primaries_with_the_whole_of_ranger_kms_are_taken(site: Site) -> None:
    with_configurations(*RANGER)(existing(three(site)))
    assert site.errors() == []


@pytest.mark.parametrize("left_out", range(len(RANGER)))
def test_three_primaries_with_a_part_of_ranger_kms_are_refused(site: Site, left_out: int) -> None:
    with_configurations(*(block for at, block in enumerate(RANGER) if at != left_out))(existing(three(site)))
    assert [finding.rule for finding in site.errors()] == [Rule.EMR_SINGLE_NODE_KEY_STORE]


def test_transit_settings_are_taken_with_kerberos(site: Site) -> None:
    attributes(kerberos(site))
    with_properties("core-site", **{"hadoop.rpc.protection": "privacy"})(site)
    assert site.errors() == []


@pytest.mark.parametrize(
    "properties",
    [
        {"hadoop.security.credential.provider.path": "jceks://hdfs/x.jceks"},
        {"ssl.server.keystore.password-file": "/etc/x"},
        {"dfs.client.https.keystore.resource": "ssl-client.xml"},
        {"yarn.resourcemanager.delegation.token.renew-interval": "86400000"},
        {"mapreduce.job.token.tracking.ids.enabled": "true"},
        {"hive.server2.authentication.ldap.userMembershipKey": "memberOf"},
        {"fs.s3a.secret.key": ""},
        {"javax.jdo.option.ConnectionURL": "jdbc:mysql://db.example.com/hive?user=hive"},
    ],
    ids=lambda properties: next(iter(properties)),
)
def test_what_only_sounds_like_a_secret_is_taken(site: Site, properties: dict[str, str]) -> None:
    assert with_properties("core-site", **properties)(site).errors() == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--password-file", "/etc/ringfence/db-password"],
        ["--password", ARN],
        ["--secret-arn", ARN],
        ["spark-submit", "--conf", "spark.authenticate=true", "s3://example-emr/token.py"],
    ],
)
def test_arguments_that_name_where_a_secret_is_are_taken(site: Site, arguments: list[str]) -> None:
    assert site.set(arguments, "steps", 0, "args").errors() == []


def test_every_problem_is_told_at_once_with_its_line(site: Site) -> None:
    site.set("m6i", "instances", "primary", "type").set(["Trino"], "applications").set("emr-7.14.0", "release")
    site.set(["--password", "canary-7f3a"], "bootstrap_actions", 0, "args").set("eu", "region")
    found = {finding.rule for finding in site.errors()}
    assert {Rule.BAD_VALUE, Rule.EMR_NO_HDFS} <= found
    lines = [int(finding.path.rpartition(":")[2]) for finding in site.errors()]
    assert lines == sorted(lines)
