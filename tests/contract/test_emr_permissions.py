"""`ringfence emr permissions` against the double, which decides by key policies as AWS does.

What the command says is compared with what then happens: the double starts clusters, and ends those whose roles may
not use their key.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from emr_double import ACCOUNT, INSTANCE_ROLE, OTHER_ACCOUNT, REGION, SERVICE_ROLE, EmrDouble
from emr_places import Outcome, ask_as, run_command
from emr_requests import cluster_request

from ringfence_bootstrap.account.key_calls import KeyArn, KeyCalls
from ringfence_zones.errors import AwsError

USERS = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"]


def allow(role: str, *actions: str, **more: Any) -> dict[str, Any]:
    return {
        "Effect": "Allow",
        "Principal": {"AWS": role},
        "Action": list(actions) or USERS,
        "Resource": "*",
        **more,
    }


def grants(role: str) -> dict[str, Any]:
    return allow(role, "kms:CreateGrant", Condition={"Bool": {"kms:GrantIsForAWSResource": "true"}})


def disks(key: str, *, ebs: bool = False) -> dict[str, Any]:
    disk = {"EncryptionKeyProviderType": "AwsKms", "AwsKmsKey": key, "EnableEbsEncryption": ebs}
    return at_rest(LocalDiskEncryptionConfiguration=disk)


def at_rest(**blocks: Any) -> dict[str, Any]:
    return {
        "EncryptionConfiguration": {
            "EnableInTransitEncryption": False,
            "EnableAtRestEncryption": True,
            "AtRestEncryptionConfiguration": blocks,
        }
    }


class Roles:
    """The command, and clusters that show whether it was right."""

    def __init__(self, double: EmrDouble, capsys: pytest.CaptureFixture[str], directory: Path) -> None:
        self.double = double
        self._capsys = capsys
        self.directory = directory

    def run(self, *argv: object) -> Outcome:
        return run_command(self._capsys, "emr", "permissions", *argv)

    def check(self, document: Mapping[str, Any], *argv: object) -> tuple[int, dict[str, Any]]:
        path = self.directory / "configuration.json"
        path.write_text(json.dumps(document))
        outcome = self.run(path, "--json", *argv)
        assert outcome.out, outcome.err
        return outcome.code, json.loads(outcome.out)

    def apply(self, document: Mapping[str, Any], *argv: object) -> tuple[int, dict[str, Any]]:
        return self.check(document, "--apply", "--yes", "--undo-dir", self.directory / "undo", *argv)

    def starts(self, document: Mapping[str, Any]) -> bool:
        """Whether a cluster of this document comes up."""
        emr = self.double.client("emr")
        name = f"c{len(self.double.world.configurations)}"
        emr.create_security_configuration(Name=name, SecurityConfiguration=json.dumps(document))
        cluster_id = emr.run_job_flow(**cluster_request(SecurityConfiguration=name))["JobFlowId"]
        self.double.advance(60)
        return bool(emr.describe_cluster(ClusterId=cluster_id)["Cluster"]["Status"]["State"] == "WAITING")

    def policy(self, key: str) -> dict[str, Any]:
        found = self.double.client("kms").get_key_policy(KeyId=key)["Policy"]
        return dict(json.loads(found))


@pytest.fixture
def roles(emr_double: EmrDouble, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Roles:
    return Roles(emr_double, capsys, tmp_path)


def rules(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(each["severity"], each["rule"]) for each in found["findings"]]


@pytest.mark.parametrize("ebs", [False, True])
def test_what_is_missing_is_found_added_and_enough(roles: Roles, ebs: bool) -> None:
    document = disks(roles.double.make_key(), ebs=ebs)
    code, found = roles.check(document)
    assert code == 3
    assert {each["rule"] for each in found["findings"]} == {"emr_key_permission"}
    assert not roles.starts(document)
    code, found = roles.apply(document)
    assert (code, found["findings"], found["proposals"], len(found["applied"])) == (0, [], [], 1)
    assert roles.starts(document)
    assert roles.check(document)[0] == 0


def test_the_printed_statements_are_the_consoles_key_users(roles: Roles) -> None:
    key = roles.double.make_key()
    _, found = roles.check(disks(key, ebs=True))
    (proposal,) = found["proposals"]
    assert proposal["key"] == key
    users, volumes = proposal["statements"]
    assert (users["Principal"]["AWS"], users["Action"]) == ([SERVICE_ROLE, INSTANCE_ROLE], USERS)
    assert volumes["Principal"] == {"AWS": SERVICE_ROLE}
    assert volumes["Condition"] == {"Bool": {"kms:GrantIsForAWSResource": "true"}}
    assert roles.policy(key)["Statement"][1:] == [], "a look changes nothing"


def test_the_rest_of_a_policy_stays_and_comes_back(roles: Roles) -> None:
    theirs = allow(f"arn:aws:iam::{ACCOUNT}:role/theirs", "kms:Decrypt", Sid="Theirs", Condition={})
    key = roles.double.make_key(theirs)
    before = roles.policy(key)
    _, found = roles.apply(disks(key))
    after = roles.policy(key)
    assert after["Statement"][: len(before["Statement"])] == before["Statement"]
    assert [each["Sid"] for each in after["Statement"][2:]] == ["RingfenceEmrKeyUsers"]
    (record,) = found["applied"]
    assert Path(record).stat().st_mode & 0o777 == 0o600
    undone = roles.run("--undo", record, "--yes")
    assert (undone.code, roles.policy(key)) == (0, before)
    assert roles.run("--undo", record, "--yes").out == "nothing to do: it is as it was\n"


def test_another_role_joins_the_statement_that_is_there(roles: Roles) -> None:
    key = roles.double.make_key()
    roles.apply(disks(key))
    other = f"arn:aws:iam::{ACCOUNT}:role/other-nodes"
    roles.double.make_role(other)
    code, _ = roles.apply(disks(key), "--instance-role", "other-nodes")
    (statement,) = roles.policy(key)["Statement"][1:]
    assert (code, statement["Principal"]["AWS"]) == (0, [INSTANCE_ROLE, other])


def test_what_somebody_else_changed_meanwhile_is_not_undone(roles: Roles) -> None:
    key = roles.double.make_key()
    _, found = roles.apply(disks(key))
    changed = roles.policy(key)
    changed["Statement"].append(allow(f"arn:aws:iam::{ACCOUNT}:role/late"))
    roles.double.client("kms").put_key_policy(KeyId=key, PolicyName="default", Policy=json.dumps(changed))
    refused = roles.run("--undo", found["applied"][0], "--yes")
    assert (refused.code, "changed by somebody else" in refused.err) == (1, True)
    assert roles.policy(key) == changed


def test_without_yes_and_nobody_to_ask_nothing_is_changed(roles: Roles) -> None:
    key = roles.double.make_key()
    code, found = roles.check(disks(key), "--apply", "--undo-dir", roles.directory / "undo")
    assert (code, found["applied"], len(roles.policy(key)["Statement"])) == (3, [], 1)


def test_a_policy_that_cannot_be_written_leaves_no_record(roles: Roles) -> None:
    key = roles.double.make_key()
    roles.double.fault("PutKeyPolicy", "AccessDeniedException")
    path = roles.directory / "configuration.json"
    path.write_text(json.dumps(disks(key)))
    refused = roles.run(path, "--apply", "--yes", "--undo-dir", roles.directory / "undo")
    assert (refused.code, "kms:PutKeyPolicy" in refused.err) == (1, True)
    assert list((roles.directory / "undo").iterdir()) == []


def test_of_two_keys_the_one_that_was_changed_can_be_put_back(roles: Roles, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = roles.double.make_key(), roles.double.make_key()
    before = roles.policy(one), roles.policy(other)
    document = disks(one)
    document["EncryptionConfiguration"]["AtRestEncryptionConfiguration"]["S3EncryptionConfiguration"] = {
        "EncryptionMode": "SSE-KMS",
        "AwsKmsKey": other,
    }
    path = roles.directory / "configuration.json"
    path.write_text(json.dumps(document))
    put, calls = KeyCalls.put_key_policy, []

    def first_only(self: KeyCalls, key: KeyArn, policy: str) -> None:
        calls.append(key)
        if len(calls) > 1:
            raise AwsError("not now")
        put(self, key, policy)

    monkeypatch.setattr(KeyCalls, "put_key_policy", first_only)
    refused = roles.run(path, "--apply", "--yes", "--undo-dir", roles.directory / "undo")
    monkeypatch.setattr(KeyCalls, "put_key_policy", put)
    assert (refused.code, len(calls)) == (1, 2)
    (record,) = (roles.directory / "undo").iterdir()
    assert f"--undo {record}" in refused.err
    assert roles.run("--undo", record, "--yes").code == 0
    assert (roles.policy(one), roles.policy(other)) == before


def test_when_nobody_knows_whether_it_arrived_the_way_back_is_named(
    roles: Roles, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = roles.double.make_key()
    path = roles.directory / "configuration.json"
    path.write_text(json.dumps(disks(key)))
    put = KeyCalls.put_key_policy

    def unread(self: KeyCalls, arn: KeyArn) -> str:
        raise AwsError("no answer")

    def breaks(self: KeyCalls, arn: KeyArn, policy: str) -> None:
        put(self, arn, policy)
        monkeypatch.setattr(KeyCalls, "key_policy", unread)
        raise AwsError("the connection broke")

    monkeypatch.setattr(KeyCalls, "put_key_policy", breaks)
    refused = roles.run(path, "--apply", "--yes", "--undo-dir", roles.directory / "undo")
    (record,) = (roles.directory / "undo").iterdir()
    assert refused.code == 1
    assert f"--undo {record}" in refused.err


def test_a_disk_that_is_full_keeps_no_half_record_and_changes_nothing(
    roles: Roles, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = roles.double.make_key()
    before = roles.policy(key)
    path = roles.directory / "configuration.json"
    path.write_text(json.dumps(disks(key)))

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    refused = roles.run(path, "--apply", "--yes", "--undo-dir", roles.directory / "undo")
    assert (refused.code, "nothing was changed" in refused.err, roles.policy(key)) == (1, True, before)
    assert list((roles.directory / "undo").iterdir()) == []


def test_the_roles_own_policies_count_where_the_key_leaves_it_to_the_account(roles: Roles) -> None:
    own = {"Statement": [{"Effect": "Allow", "Action": ["kms:*"], "Resource": "*"}]}
    roles.double.make_role(INSTANCE_ROLE, own)
    delegated, closed = disks(roles.double.make_key()), disks(roles.double.make_key(delegates=False))
    assert (roles.check(delegated)[0], roles.starts(delegated)) == (0, True)
    assert (roles.check(closed)[0], roles.starts(closed)) == (3, False)


def test_a_grant_counts(roles: Roles) -> None:
    key = roles.double.make_key()
    operations = [
        "Encrypt", "Decrypt", "ReEncryptFrom", "ReEncryptTo", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext",
        "DescribeKey",
    ]  # fmt: skip
    roles.double.client("kms").create_grant(KeyId=key, GranteePrincipal=INSTANCE_ROLE, Operations=operations)
    assert (roles.check(disks(key))[0], roles.starts(disks(key))) == (0, True)


@pytest.mark.parametrize("by_key", [True, False])
def test_a_denial_wins_and_no_statement_is_offered_against_it(roles: Roles, by_key: bool) -> None:
    denial = {"Effect": "Deny", "Action": "kms:GenerateDataKey", "Resource": "*"}
    if by_key:
        key = roles.double.make_key(allow(INSTANCE_ROLE), {**denial, "Principal": {"AWS": INSTANCE_ROLE}})
    else:
        key = roles.double.make_key(allow(INSTANCE_ROLE))
        roles.double.make_role(INSTANCE_ROLE, {"Statement": [denial]})
    code, found = roles.check(disks(key))
    (finding,) = found["findings"]
    assert (code, found["proposals"], roles.starts(disks(key))) == (3, [], False)
    assert "is forbidden kms:GenerateDataKey" in finding["message"]
    assert ("the key's policy" if by_key else "a policy of the role") in finding["message"]


def test_luks_has_no_encryption_context_so_a_statement_that_asks_for_one_is_none(roles: Roles) -> None:
    condition = {"StringEquals": {"kms:EncryptionContext:aws:s3:arn": "arn:aws:s3:::b/o"}}
    key = roles.double.make_key(allow(INSTANCE_ROLE, Condition=condition))
    assert (roles.check(disks(key))[0], roles.starts(disks(key))) == (3, False)


def test_a_condition_that_nobody_knows_is_a_warning_and_not_a_yes(roles: Roles) -> None:
    condition = {"StringEquals": {"aws:SourceVpce": "vpce-1"}}
    key = roles.double.make_key(allow(INSTANCE_ROLE, Condition=condition))
    code, found = roles.check(disks(key))
    assert (code, rules(found)) == (0, [("warn", "emr_key_permission")])
    assert "under conditions that are not known here" in found["findings"][0]["message"]


@pytest.mark.parametrize(
    ("fields", "says", "command"),
    [
        ({"state": "Disabled"}, "is disabled", "aws kms enable-key"),
        ({"state": "PendingDeletion", "deletion": 1_900_000_000}, "is to be deleted on 2030-03-17", "cancel-key-del"),
        ({"state": "PendingImport"}, "has no key material", None),
        ({"spec": "RSA_2048", "usage": "SIGN_VERIFY"}, "needs a symmetric one", None),
        ({"manager": "AWS"}, "is managed by AWS", None),
    ],
)
def test_a_key_that_nobody_can_use_is_found(
    roles: Roles, fields: dict[str, Any], says: str, command: str | None
) -> None:
    key = roles.double.make_key(allow(INSTANCE_ROLE))
    vars(roles.double.world.keys[key]).update(fields)
    code, found = roles.check(disks(key))
    (finding,) = found["findings"]
    assert (code, finding["severity"], finding["rule"]) == (3, "error", "emr_key")
    assert says in finding["message"]
    assert command is None or command in finding["command"]
    if fields.get("manager") != "AWS":
        assert not roles.starts(disks(key))


def test_a_disabled_key_is_found_by_a_real_call_of_kms(roles: Roles) -> None:
    key = roles.double.make_key(allow(INSTANCE_ROLE))
    kms = roles.double.client("kms")
    assert roles.check(disks(key))[0] == 0
    kms.disable_key(KeyId=key)
    assert "is disabled" in roles.check(disks(key))[1]["findings"][0]["message"]
    kms.enable_key(KeyId=key)
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    assert "is to be deleted" in roles.check(disks(key))[1]["findings"][0]["message"]


def test_a_key_of_another_region_and_one_that_is_gone_are_found(roles: Roles) -> None:
    key = roles.double.make_key(allow(INSTANCE_ROLE))
    code, elsewhere = roles.check(disks(key.replace(REGION, "us-east-1")))
    assert (code, rules(elsewhere)) == (3, [("error", "emr_key")])
    assert "is in us-east-1" in elsewhere["findings"][0]["message"]
    code, gone = roles.check(disks(key[:-4] + "0000"))
    assert (code, rules(gone)) == (3, [("error", "emr_key")])
    assert "does not exist" in gone["findings"][0]["message"]


def test_a_key_of_another_account_needs_both_sides(roles: Roles) -> None:
    key = roles.double.make_key()
    world = roles.double.world
    foreign = key.replace(ACCOUNT, OTHER_ACCOUNT)
    world.keys[foreign] = world.keys.pop(key)
    admin = allow(f"arn:aws:iam::{ACCOUNT}:user/admin", "kms:*")
    vars(world.keys[foreign]).update(
        arn=foreign, account=OTHER_ACCOUNT, policy={"Statement": [admin, allow(INSTANCE_ROLE)]}
    )
    code, found = roles.check(disks(foreign))
    assert (code, found["proposals"]) == (3, []), "the key's policy says what it can"
    assert found["role_policies"][INSTANCE_ROLE]["Resource"] == [foreign]
    own = {"Statement": [{"Effect": "Allow", "Action": ["kms:*"], "Resource": foreign}]}
    roles.double.make_role(INSTANCE_ROLE, own)
    assert (roles.check(disks(foreign))[0], roles.starts(disks(foreign))) == (0, True)


def test_roles_that_the_document_maps_for_s3_are_looked_at(roles: Roles) -> None:
    mapped = f"arn:aws:iam::{ACCOUNT}:role/analysts-on-s3"
    roles.double.make_role(mapped)
    key = roles.double.make_key(allow(INSTANCE_ROLE))
    document = at_rest(S3EncryptionConfiguration={"EncryptionMode": "SSE-KMS", "AwsKmsKey": key})
    mapping = {"Role": mapped, "IdentifierType": "User", "Identifiers": ["a"]}
    document["AuthorizationConfiguration"] = {"EmrFsConfiguration": {"RoleMappings": [mapping]}}
    code, found = roles.check(document)
    assert (code, "role for EMRFS analysts-on-s3" in found["findings"][0]["message"]) == (3, True)
    assert roles.apply(document)[0] == 0


def test_the_service_of_write_ahead_logs_needs_the_key_too(roles: Roles) -> None:
    key = roles.double.make_key(allow(INSTANCE_ROLE))
    document = {"EncryptionConfiguration": {"EMRWALEncryptionConfiguration": {"AwsKmsKey": key}}}
    code, found = roles.check(document)
    (statement,) = found["proposals"][0]["statements"]
    assert (code, statement["Principal"]) == (3, {"Service": "emrwal.amazonaws.com"})
    assert roles.apply(document)[0] == 0


def test_a_cluster_brings_its_configuration_and_its_roles(roles: Roles) -> None:
    key = roles.double.make_key(allow(INSTANCE_ROLE))
    emr = roles.double.client("emr")
    emr.create_security_configuration(Name="disks", SecurityConfiguration=json.dumps(disks(key)))
    cluster_id = emr.run_job_flow(**cluster_request(SecurityConfiguration="disks"))["JobFlowId"]
    for arguments in (["--cluster", cluster_id], ["--name", "disks"]):
        outcome = roles.run(*arguments, "--json")
        assert (outcome.code, json.loads(outcome.out)["keys"]) == (0, [key])
    bare = emr.run_job_flow(**cluster_request())["JobFlowId"]
    refused = roles.run("--cluster", bare)
    assert (refused.code, "no security configuration" in refused.err) == (1, True)


def test_a_role_that_is_not_there_is_named(roles: Roles) -> None:
    path = roles.directory / "configuration.json"
    path.write_text(json.dumps(disks(roles.double.make_key())))
    refused = roles.run(path, "--instance-role", "nobody")
    assert (refused.code, "role nobody" in refused.err) == (1, True)


def test_what_the_caller_may_not_read_is_not_taken_for_allowed(roles: Roles, monkeypatch: pytest.MonkeyPatch) -> None:
    key = roles.double.make_key(allow(INSTANCE_ROLE))
    double = roles.double
    double.allow("kms:DescribeKey", "iam:GetRole", "iam:GetInstanceProfile")
    ask_as(monkeypatch, double, double.auditor)
    code, found = roles.check(disks(key))
    assert (code, rules(found)) == (0, [("warn", "emr_unchecked")])
    assert "its policy could not be read" in found["findings"][0]["message"]


def test_a_document_that_names_no_key_is_said_so(roles: Roles) -> None:
    path = roles.directory / "configuration.json"
    path.write_text(json.dumps(at_rest(S3EncryptionConfiguration={"EncryptionMode": "SSE-S3"})))
    outcome = roles.run(path)
    assert (outcome.code, "names no KMS key" in outcome.out) == (0, True)


def test_one_subject_is_named(roles: Roles) -> None:
    assert roles.run().code == 2
    assert roles.run("--name", "a", "--cluster", "j-1").code == 2


def test_a_record_that_is_none_is_bad_input(roles: Roles) -> None:
    path = roles.directory / "record.json"
    path.write_text('{"schema": 1, "key": "k", "before": "{}", "after": "{}"}')
    assert roles.run("--undo", path, "--yes").code == 2
    assert roles.run("--undo", roles.directory / "none", "--yes").code == 2


def test_a_default_role_is_asked_for_only_when_it_is_needed(roles: Roles) -> None:
    """Accounts with EMR_DefaultRole_V2 have no EMR_DefaultRole."""
    del roles.double.world.roles["EMR_DefaultRole"]
    assert roles.check(disks(roles.double.make_key(allow(INSTANCE_ROLE))))[0] == 0
    path = roles.directory / "configuration.json"
    path.write_text(json.dumps(disks(roles.double.make_key(), ebs=True)))
    refused = roles.run(path)
    assert (refused.code, "--service-role" in refused.err) == (2, True)


def test_the_service_role_s_own_policies_are_simulated_with_what_ec2_asks(roles: Roles) -> None:
    by_ec2 = {"StringEquals": {"kms:ViaService": f"ec2.{REGION}.amazonaws.com"}}
    for_aws = {"Bool": {"kms:GrantIsForAWSResource": "true"}}
    own = [
        {"Effect": "Allow", "Action": ["kms:*Encrypt*", "kms:Decrypt", "kms:Re*", "kms:G*", "kms:D*"], "Resource": "*"},
        {"Effect": "Allow", "Action": "kms:CreateGrant", "Resource": "*", "Condition": {**by_ec2, **for_aws}},
    ]
    document = disks(roles.double.make_key(allow(INSTANCE_ROLE)), ebs=True)
    assert roles.check(document)[0] == 3
    roles.double.make_role(SERVICE_ROLE, {"Statement": own})
    assert (roles.check(document)[0], roles.starts(document)) == (0, True)


def test_a_policy_without_room_for_more_is_left_as_it_is(roles: Roles) -> None:
    many = [allow(f"arn:aws:iam::{ACCOUNT}:role/{'x' * 50}{number}", Sid=f"S{number}") for number in range(180)]
    key = roles.double.make_key(*many)
    before = roles.policy(key)
    path = roles.directory / "configuration.json"
    path.write_text(json.dumps(disks(key)))
    refused = roles.run(path, "--apply", "--yes", "--undo-dir", roles.directory / "undo")
    assert (refused.code, "32768 bytes" in refused.err, roles.policy(key)) == (1, True, before)
