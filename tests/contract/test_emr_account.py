"""`ringfence emr security-config create | show | list | delete | audit` against the double of EMR."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from emr_double import REGION, EmrDouble
from emr_places import Outcome, ask_as, double_calls, run_command
from emr_requests import cluster_request

from ringfence_bootstrap.account.audit import audit
from ringfence_bootstrap.cli.emr_security_config_account import shown_lines

RELEASE = "emr-7.12.0"
FULL = {
    "EncryptionConfiguration": {
        "EnableInTransitEncryption": True,
        "EnableAtRestEncryption": True,
        "InTransitEncryptionConfiguration": {
            "TLSCertificateConfiguration": {"CertificateProviderType": "PEM", "S3Object": "s3://b/certificates.zip"}
        },
        "AtRestEncryptionConfiguration": {"S3EncryptionConfiguration": {"EncryptionMode": "SSE-S3"}},
    }
}
AT_REST_ONLY: dict[str, Any] = json.loads(json.dumps(FULL))
AT_REST_ONLY["EncryptionConfiguration"]["EnableInTransitEncryption"] = False
del AT_REST_ONLY["EncryptionConfiguration"]["InTransitEncryptionConfiguration"]


class Account:
    """The commands, and clusters of the account."""

    def __init__(self, double: EmrDouble, capsys: pytest.CaptureFixture[str], directory: Path) -> None:
        self.double = double
        self._capsys = capsys
        self._directory = directory

    def file(self, document: object, name: str = "configuration.json") -> Path:
        path = self._directory / name
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    def run(self, *argv: object) -> Outcome:
        return run_command(self._capsys, "emr", "security-config", *argv)

    def create(self, name: str, document: object = FULL) -> Outcome:
        return self.run("create", name, self.file(document), "--release", RELEASE)

    def launch(self, configuration: str | None, name: str = "a cluster", **more: Any) -> str:
        if configuration is not None:
            more["SecurityConfiguration"] = configuration
        made = self.double.client("emr").run_job_flow(**cluster_request(Name=name, **more))
        return str(made["JobFlowId"])

    def names(self) -> list[str]:
        return sorted(self.double.world.configurations)


@pytest.fixture
def account(emr_double: EmrDouble, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Account:
    return Account(emr_double, capsys, tmp_path)


def test_a_document_is_stored_once(account: Account) -> None:
    first, second = account.create("analytics"), account.create("analytics")
    assert (first.code, first.out) == (0, f"stored analytics in {REGION}\n")
    assert (second.code, second.out) == (0, "nothing to do: analytics is this document\n")
    assert json.loads(account.double.world.configurations["analytics"][0]) == FULL


def test_the_same_document_in_another_order_is_the_same(account: Account) -> None:
    account.create("analytics")
    encryption = dict(reversed(FULL["EncryptionConfiguration"].items()))
    assert account.create("analytics", {"EncryptionConfiguration": encryption}).code == 0


def test_another_document_under_a_taken_name_is_refused_with_the_way_out(account: Account) -> None:
    account.create("analytics-7")
    refused = account.create("analytics-7", AT_REST_ONLY)
    assert refused.code == 1
    assert "another document under 'analytics-7'" in refused.err
    assert "EnableInTransitEncryption" in refused.err
    assert "ringfence emr security-config create analytics-8" in refused.err
    assert json.loads(account.double.world.configurations["analytics-7"][0]) == FULL


def test_a_document_with_errors_reaches_nobody(account: Account) -> None:
    document = {"EncryptionConfiguration": {**FULL["EncryptionConfiguration"], "EnableAtRestEncription": True}}
    refused = account.create("analytics", document)
    assert refused.code == 1
    assert "EnableAtRestEncription" in refused.err
    assert "[emr_unknown_member]" in refused.err
    assert account.names() == []


def test_a_document_with_errors_for_the_release_reaches_nobody(account: Account) -> None:
    document: dict[str, Any] = json.loads(json.dumps(FULL))
    tls = document["EncryptionConfiguration"]["InTransitEncryptionConfiguration"]
    tls["TLSCertificateConfiguration"] = {"CertificateProviderType": "EMR"}
    assert account.create("analytics", document).code == 0
    file = account.file(document)
    refused = account.run("create", "older", file, "--release", "emr-7.10.0")
    assert (refused.code, account.names()) == (1, ["analytics"])
    assert "7.11.0" in refused.err


def test_what_somebody_else_stored_at_the_same_moment_is_compared(account: Account) -> None:
    """The answer to the first look is lost in time: the name is taken when it is created."""
    account.create("analytics")
    account.double.fault(
        "DescribeSecurityConfiguration",
        "InvalidRequestException",
        message="Security configuration with name 'analytics' does not exist.",
    )
    assert account.create("analytics").out == "nothing to do: analytics is this document\n"


def test_show_prints_what_the_account_has(account: Account) -> None:
    account.create("analytics")
    assert json.loads(account.run("show", "analytics").out) == FULL
    shown = json.loads(account.run("show", "analytics", "--json").out)
    assert (shown["name"], shown["document"]) == ("analytics", FULL)
    assert shown["created"].endswith("+00:00")


def test_show_leaves_out_what_emr_added_when_asked(account: Account) -> None:
    document: dict[str, Any] = json.loads(json.dumps(FULL))
    tls = document["EncryptionConfiguration"]["InTransitEncryptionConfiguration"]["TLSCertificateConfiguration"]
    tls["CACertificateSecretARN"] = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:ca"
    account.double.world.configurations["theirs"] = (json.dumps(document), 1.0)
    assert json.loads(account.run("show", "theirs").out) == document
    assert json.loads(account.run("show", "theirs", "--reusable").out) == FULL


def test_a_name_that_is_not_there_gets_the_nearest(account: Account) -> None:
    account.create("analytics")
    missing = account.run("show", "analytic")
    assert (missing.code, "did you mean 'analytics'?" in missing.err) == (1, True)


def test_list_names_them_all(account: Account) -> None:
    assert account.run("list").out == f"no security configuration in {REGION}\n"
    for name in ("b", "a"):
        account.create(name)
    listed = json.loads(account.run("list", "--json").out)
    assert [each["name"] for each in listed["configurations"]] == ["a", "b"]
    assert [line.split()[0] for line in account.run("list").out.splitlines()] == ["NAME", "a", "b"]


def test_delete_prints_what_it_was(account: Account) -> None:
    account.create("analytics")
    deleted = account.run("delete", "analytics")
    assert (deleted.code, json.loads(deleted.out)) == (0, FULL)
    assert account.names() == []
    assert account.run("delete", "analytics").code == 1


def test_what_could_not_be_printed_is_not_deleted(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    account.create("analytics")

    def full(text: str) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("ringfence_bootstrap.cli.emr_security_config_account.shown_lines", full)
    with pytest.raises(OSError, match="No space"):
        account.run("delete", "analytics")
    assert account.names() == ["analytics"]


def test_a_document_in_lines_and_tabs_is_printed_as_json() -> None:
    text = json.dumps({"a": "b\u2028c"}, indent="\t", ensure_ascii=False)
    assert json.loads(shown_lines(text)) == {"a": "b\u2028c"}


def test_a_configuration_in_use_is_deleted_only_when_told_so(account: Account) -> None:
    account.create("analytics")
    cluster_id = account.launch("analytics")
    refused = account.run("delete", "analytics")
    assert (refused.code, cluster_id in refused.err, account.names()) == (1, True, ["analytics"])
    done = account.run("delete", "analytics", "--yes", "--json")
    assert (done.code, json.loads(done.out)["clusters"], account.names()) == (0, [cluster_id], [])


def test_a_cluster_that_is_down_holds_nothing_back(account: Account) -> None:
    account.create("analytics")
    cluster_id = account.launch("analytics")
    account.double.client("emr").terminate_job_flows(JobFlowIds=[cluster_id])
    account.double.advance(60)
    assert account.run("delete", "analytics").code == 0


def test_one_configuration_serves_two_clusters(account: Account) -> None:
    account.create("analytics")
    made = [account.launch("analytics", name) for name in ("one", "two")]
    account.double.advance(120)
    report = json.loads(account.run("audit", "--json").out)
    assert report["configurations"] == [
        {"name": "analytics", "created": report["configurations"][0]["created"], "clusters": made[::-1]}
    ]
    assert {each["state"] for each in report["clusters"]} == {"WAITING"}


def test_a_cluster_without_a_configuration_leaves_everything_in_clear(account: Account) -> None:
    cluster_id = account.launch(None, "bare")
    found = account.run("audit")
    assert found.code == 3
    assert f"{cluster_id} (bare)" in found.out
    report = json.loads(account.run("audit", "--json").out)
    errors = [each for each in report["findings"] if each["severity"] == "error"]
    assert {each["rule"] for each in errors} == {"emr_clear_at_rest", "emr_clear_in_transit"}
    assert all("nothing is encrypted by default" in each["message"] for each in errors)


def test_the_audit_says_what_a_configuration_leaves_in_clear(account: Account) -> None:
    account.create("half", AT_REST_ONLY)
    cluster_id = account.launch("half")
    found = json.loads(account.run("audit", "--json").out)["findings"]
    switch = [each for each in found if each["rule"] == "emr_clear_in_transit" and each["severity"] == "error"]
    (finding,) = switch
    assert finding["path"] == f"{cluster_id} (a cluster)"
    assert finding["message"].endswith("(security configuration half)")
    assert "EnableInTransitEncryption is not true" in finding["message"]


def test_logs_without_a_key_of_their_own_are_worth_knowing(account: Account) -> None:
    account.create("analytics")
    account.launch("analytics", "plain", LogUri="s3://logs/")
    account.launch("analytics", "sealed", LogUri="s3://logs/", LogEncryptionKmsKeyId="arn:aws:kms:x")
    found = json.loads(account.run("audit", "--json").out)["findings"]
    logs = [(each["severity"], each["path"][-8:]) for each in found if "its logs in" in each["message"]]
    assert logs == [("info", " (plain)")]
    assert "its logs in" not in account.run("audit").out
    assert "its logs in" in account.run("audit", "-v").out


def test_the_audit_goes_by_the_clusters_release(account: Account) -> None:
    account.create("analytics")
    old = account.launch("analytics", "old", ReleaseLabel="emr-6.15.0")
    new = account.launch("analytics", "new")
    found = json.loads(account.run("audit", "--json").out)["findings"]
    gaps = {each["path"] for each in found if "does not reach yet" in each["message"]}
    assert gaps == {f"{old} (old)"}
    assert any(each["path"].startswith(new) for each in found)


def test_the_audit_finds_clusters_on_another_document(account: Account) -> None:
    account.create("analytics-1", AT_REST_ONLY)
    old, bare = account.launch("analytics-1", "old"), account.launch(None, "bare")
    account.create("analytics-2")
    account.launch("analytics-2", "new")
    file = account.file(FULL, "wanted.json")
    report = json.loads(account.run("audit", "-f", file, "--json").out)
    other = {each["path"]: each["message"] for each in report["findings"] if each["rule"] == "emr_other_document"}
    assert other.keys() == {f"{old} (old)", f"{bare} (bare)"}
    assert "EnableInTransitEncryption" in other[f"{old} (old)"]
    assert "no security configuration" in other[f"{bare} (bare)"]
    assert report["same_document"] == ["analytics-2"]


def test_the_audit_can_be_limited_to_names(account: Account) -> None:
    account.create("analytics-1")
    account.create("others", AT_REST_ONLY)
    mine = account.launch("analytics-1")
    account.launch("others")
    report = json.loads(account.run("audit", "--only", "analytics-*", "--json").out)
    assert [each["id"] for each in report["clusters"]] == [mine]
    assert [each["name"] for each in report["configurations"]] == ["analytics-1"]


def test_a_cluster_whose_configuration_is_gone_is_found(account: Account) -> None:
    account.create("analytics")
    cluster_id = account.launch("analytics")
    account.run("delete", "analytics", "--yes")
    found = json.loads(account.run("audit", "--json").out)["findings"]
    assert [(each["path"], each["rule"]) for each in found] == [(f"{cluster_id} (a cluster)", "emr_configuration_gone")]


def test_a_configuration_that_no_cluster_uses_is_judged_too(account: Account) -> None:
    account.create("half", AT_REST_ONLY)
    outcome = account.run("audit", "--json")
    found = json.loads(outcome.out)["findings"]
    assert outcome.code == 3
    assert {each["path"] for each in found} == {"security configuration half"}
    assert {each["severity"] for each in found} == {"warn"}


def test_what_cannot_be_read_is_said_and_not_guessed(account: Account) -> None:
    account.create("odd")
    cluster_id = account.launch("odd")
    account.double.world.configurations["odd"] = ('["not", "an object"]', 1.0)
    found = {each["path"]: each["rule"] for each in json.loads(account.run("audit", "--json").out)["findings"]}
    assert found == {
        f"{cluster_id} (a cluster)": "emr_configuration_gone",
        "security configuration odd": "emr_unchecked",
    }
    assert account.run("show", "odd").out == '["not", "an object"]\n'


def test_a_clean_account_is_no_finding(account: Account) -> None:
    clean = account.run("audit")
    assert (clean.code, "nothing in clear" in clean.out) == (0, True)


def test_an_audit_of_many_clusters_is_never_throttled(account: Account) -> None:
    """The double throttles as EMR does; the audit's own waiting goes by the double's clock."""
    account.create("analytics")
    for number in range(20):
        account.launch("analytics", f"cluster {number}")
    double = account.double
    double.world.throttles = True
    began = double.world.clock.now()
    double.world.counts.clear()
    report = audit(double_calls(double))
    assert len(report.clusters) == 20
    assert double.world.counts["DescribeCluster"] == 20, "none was asked twice"
    assert double.world.counts["DescribeSecurityConfiguration"] == 1, "one configuration is read once"
    assert double.world.clock.now() - began >= 12


def test_a_missing_permission_is_named(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    ask_as(monkeypatch, account.double, account.double.auditor)
    account.double.allow("elasticmapreduce:ListSecurityConfigurations")
    refused = account.run("audit")
    assert refused.code == 1
    assert "may not call elasticmapreduce:ListClusters" in refused.err
    assert "emr-account.md" in refused.err


def test_aws_that_throttles_for_good_is_said_so(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _seconds: None)  # the SDK's pauses between attempts
    account.double.fault("ListSecurityConfigurations", "ThrottlingException", times=100)
    refused = account.run("list")
    assert (refused.code, "throttles" in refused.err) == (1, True)


def test_no_region_and_an_unsafe_address_are_bad_input(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    unsafe = account.run("list", "--endpoint", "emr=http://emr.example.com")
    assert (unsafe.code, "plain http" in unsafe.err) == (2, True)
    assert account.run("list", "--endpoint", "emr").code == 2
    assert account.run("list", "--region", "mars").code == 2
    assert account.run("list", "--profile", "nobody").code == 2
    monkeypatch.delenv("AWS_REGION")
    nowhere = account.run("list")
    assert (nowhere.code, "no region is named" in nowhere.err) == (2, True)


def test_no_credentials_is_said_so(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    refused = account.run("list")
    assert (refused.code, "no AWS credentials" in refused.err) == (1, True)


def test_where_emr_s_sentence_says_something_new_the_list_of_names_decides(account: Account) -> None:
    account.create("analytics")
    says = {"code": "InvalidRequestException", "message": "Whatever it says next year."}
    account.double.fault("DescribeSecurityConfiguration", **says)
    there = account.run("show", "analytics")
    assert (there.code, "Whatever it says next year" in there.err) == (1, True)
    account.double.fault("DescribeSecurityConfiguration", **says)
    gone = account.run("show", "other")
    assert (gone.code, "there is no security configuration 'other'" in gone.err) == (1, True)
