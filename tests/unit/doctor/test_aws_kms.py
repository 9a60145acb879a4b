"""`ringfence doctor aws-kms` against the double, as its users run it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aws_kms_double import ACCOUNT, ROLE, AwsKmsDouble
from aws_kms_places import CLUSTER, make_key, policy_for
from click.testing import CliRunner, Result

from ringfence_agent import process_hygiene
from ringfence_agent.cli.doctor import doctor
from ringfence_zones.errors import InputError

NEEDED = ("kms:Encrypt", "kms:Decrypt", "kms:DescribeKey")
BOUND = {"StringEquals": {"kms:EncryptionContext:ringfence:cluster": CLUSTER}}
LOOK_AT_ITSELF = {"Statement": [{"Effect": "Allow", "Action": "iam:GetRole", "Resource": "*"}]}


@pytest.fixture(autouse=True)
def this_process_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_hygiene, "forbid_core_dumps", lambda: None)


def run(double: AwsKmsDouble, monkeypatch: pytest.MonkeyPatch, *arguments: str, json_: bool = True) -> Result:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", double.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_IAM", double.url)
    options = ["--endpoint", double.url, *(["--json"] if json_ else [])]
    return CliRunner().invoke(doctor, ["aws-kms", *arguments, *options])


def look(double: AwsKmsDouble, monkeypatch: pytest.MonkeyPatch, key: str, *arguments: str) -> dict[str, Any]:
    result = run(double, monkeypatch, "--key", key, "--region", "eu-west-1", "--cluster", CLUSTER, *arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    document = json.loads(result.output)
    assert result.exit_code == (3 if document["findings"] else 0)
    assert isinstance(document, dict)
    return document


def results(document: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["result"] for each in document["checks"]}


def rules(document: dict[str, Any]) -> list[str]:
    return [each["rule"] for each in document["findings"]]


@pytest.fixture
def knows_itself(aws_kms_double: AwsKmsDouble) -> Any:
    """The role may look at itself, so its path is known."""
    aws_kms_double.set_policy(aws_kms_double.server, LOOK_AT_ITSELF)
    yield
    aws_kms_double.set_policy(aws_kms_double.server, {})


def bound_policy(*actions: str) -> dict[str, Any]:
    policy = policy_for(ROLE, *actions)
    policy["Statement"][1]["Condition"] = BOUND
    policy["Statement"].append(
        {"Effect": "Allow", "Principal": {"AWS": ROLE}, "Action": "kms:DescribeKey", "Resource": "*"}
    )
    return policy


def put_policy(double: AwsKmsDouble, key: str, policy: dict[str, Any]) -> None:
    double.client("kms", double.admin).put_key_policy(KeyId=key, Policy=json.dumps(policy))


def test_a_key_that_is_as_it_should_be_is_fine(
    aws_kms_double: AwsKmsDouble, monkeypatch: pytest.MonkeyPatch, knows_itself: None
) -> None:
    key = make_key(aws_kms_double)
    policy = bound_policy("kms:Encrypt", "kms:Decrypt")
    policy["Statement"].append(
        {"Effect": "Allow", "Principal": {"AWS": ROLE}, "Action": ["kms:GetKeyPolicy", "kms:ListGrants"]}
    )
    put_policy(aws_kms_double, key, policy)
    document = look(aws_kms_double, monkeypatch, key)
    assert document["findings"] == []
    assert set(results(document).values()) == {"ok"}
    assert document["key_policy"] == document["role_policy"] == []


def test_the_statement_it_prints_is_what_was_missing(
    aws_kms_double: AwsKmsDouble, monkeypatch: pytest.MonkeyPatch, knows_itself: None
) -> None:
    key = make_key(aws_kms_double, "kms:ListAliases")
    before = look(aws_kms_double, monkeypatch, key)
    assert rules(before) == ["aws_kms_permission"] * 2
    seals, looks = before["key_policy"]
    assert seals["Principal"] == looks["Principal"] == {"AWS": ROLE}
    assert seals["Condition"] == BOUND
    policy = policy_for(ROLE)
    policy["Statement"] += before["key_policy"]
    put_policy(aws_kms_double, key, policy)
    after = look(aws_kms_double, monkeypatch, key)
    assert after["findings"] == []
    assert (results(after)["round_trip"], results(after)["context"]) == ("ok", "ok")
    # And no more than that: another cluster gets nothing by it.
    other = look(aws_kms_double, monkeypatch, key, "--cluster", "other")
    assert rules(other) == ["aws_kms_permission"]


@pytest.mark.parametrize("missing", NEEDED)
def test_each_missing_permission_is_named(
    aws_kms_double: AwsKmsDouble, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    key = make_key(aws_kms_double, *(action for action in NEEDED if action != missing))
    (found,) = look(aws_kms_double, monkeypatch, key)["findings"]
    assert found["rule"] == "aws_kms_permission"
    assert missing in found["message"]


def test_a_role_that_may_not_look_at_itself_is_warned_about_its_path(
    aws_kms_double: AwsKmsDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key(aws_kms_double, "kms:DescribeKey")
    result = run(aws_kms_double, monkeypatch, "--key", key, "--cluster", CLUSTER, json_=False)
    assert result.exit_code == 3
    assert "kms:Encrypt" in result.output
    assert f'"AWS": "arn:aws:iam::{ACCOUNT}:role/ringfence-kms"' in result.output
    assert "note: if the role has a path" in result.output
    assert "add to the key's policy" in result.output
    # The statement is JSON that can be copied as it stands.
    begin = result.output.index("{")
    assert json.JSONDecoder().raw_decode(result.output[begin:])[0]["Sid"] == "RingfenceSealsAndOpens"


def test_a_key_of_another_account_needs_a_statement_on_either_side(
    aws_kms_double: AwsKmsDouble, monkeypatch: pytest.MonkeyPatch, knows_itself: None
) -> None:
    theirs = aws_kms_double.client("kms", aws_kms_double.other_admin)
    key = theirs.create_key()["KeyMetadata"]["Arn"]
    document = look(aws_kms_double, monkeypatch, key)
    policy = json.loads(theirs.get_key_policy(KeyId=key, PolicyName="default")["Policy"])
    policy["Statement"] += document["key_policy"]
    theirs.put_key_policy(KeyId=key, Policy=json.dumps(policy))
    assert rules(look(aws_kms_double, monkeypatch, key)) == ["aws_kms_permission"] * 2
    own = {"Statement": LOOK_AT_ITSELF["Statement"] + document["role_policy"]}
    aws_kms_double.set_policy(aws_kms_double.server, own)
    assert look(aws_kms_double, monkeypatch, key)["findings"] == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"state": "Disabled"}, "is disabled"),
        ({"state": "PendingDeletion", "deletion": 1_800_000_000.0}, "is to be deleted on 2027-01-15"),
        ({"spec": "HMAC_256", "usage": "GENERATE_VERIFY_MAC"}, "HMAC_256"),
        ({"manager": "AWS"}, "managed by AWS"),
    ],
)
def test_a_key_that_cannot_serve_is_found(
    aws_kms_double: AwsKmsDouble, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], words: str
) -> None:
    key = make_key(aws_kms_double)
    aws_kms_double.set_key(key, **fields)
    document = look(aws_kms_double, monkeypatch, key)
    assert any(words in each["message"] for each in document["findings"] if each["rule"] == "aws_kms")


def test_material_that_expires_is_found(aws_kms_double: AwsKmsDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    key = make_key(aws_kms_double)
    aws_kms_double.set_key(key, origin="EXTERNAL", valid_to=1_800_000_000.0)
    (found,) = look(aws_kms_double, monkeypatch, key)["findings"]
    assert (found["severity"], "expires at 2027-01-15" in found["message"]) == ("warn", True)


def test_who_else_could_open_is_found(
    aws_kms_double: AwsKmsDouble, monkeypatch: pytest.MonkeyPatch, knows_itself: None
) -> None:
    key = make_key(aws_kms_double, *NEEDED, "kms:GetKeyPolicy", "kms:ListGrants")
    policy = policy_for(ROLE, *NEEDED, "kms:GetKeyPolicy", "kms:ListGrants")
    backup = f"arn:aws:iam::{ACCOUNT}:role/backup"
    policy["Statement"].append({"Effect": "Allow", "Principal": {"AWS": backup}, "Action": "kms:*"})
    policy["Statement"].append({"Effect": "Allow", "Principal": "*", "Action": "kms:Decrypt"})
    put_policy(aws_kms_double, key, policy)
    granted = f"arn:aws:iam::{ACCOUNT}:role/granted"
    # On the second page.
    harmless = [{"GranteePrincipal": f"{ROLE}-only-encrypts", "Operations": ["Encrypt"]}] * 110
    aws_kms_double.set_key(key, grants=[*harmless, {"GranteePrincipal": granted, "Operations": ["Decrypt"]}])
    document = look(aws_kms_double, monkeypatch, key)
    assert rules(document) == ["aws_kms_open"] * 4
    everybody, others, itself, grants = (each["message"] for each in document["findings"])
    assert "everybody" in everybody
    assert backup in others
    assert ROLE in itself
    assert granted in grants
    assert "only-encrypts" not in grants


def test_what_may_not_be_read_is_not_called_fine(aws_kms_double: AwsKmsDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    document = look(aws_kms_double, monkeypatch, make_key(aws_kms_double, *NEEDED))
    assert (results(document)["policy"], results(document)["grants"]) == ("not_checked", "not_checked")
    assert document["findings"] == []


def test_an_alias_is_looked_up_and_checked_as_its_key(
    aws_kms_double: AwsKmsDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key(aws_kms_double, *NEEDED)
    aws_kms_double.client("kms", aws_kms_double.admin).create_alias(AliasName="alias/doctor", TargetKeyId=key)
    assert results(look(aws_kms_double, monkeypatch, "alias/doctor"))["round_trip"] == "ok"
    put_policy(aws_kms_double, key, policy_for(ROLE, "kms:Encrypt", "kms:Decrypt"))
    assert results(look(aws_kms_double, monkeypatch, "alias/doctor"))["round_trip"] == "not_checked"


def test_what_opens_under_any_context_is_not_kms(aws_kms_double: AwsKmsDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    from ringfence_agent.keystore.protectors.aws_kms_api import AwsKms

    key = make_key(aws_kms_double, *NEEDED)
    honest = AwsKms.decrypt

    def careless(self: AwsKms, key: str, items: Any) -> Any:
        ((ciphertext, context),) = items
        return honest(self, key, [(ciphertext, dict(context) | {"ringfence:purpose": "preflight"})])

    monkeypatch.setattr(AwsKms, "decrypt", careless)
    (found,) = look(aws_kms_double, monkeypatch, key)["findings"]
    assert "not its own" in found["message"]


def test_without_aws_every_check_says_so(
    aws_kms_double: AwsKmsDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = f"aws_kms:\n  key: {make_key(aws_kms_double)}\n  cluster: {CLUSTER}\n  deadline: 500ms\n"
    (tmp_path / "kms.yaml").write_text(text)
    aws_kms_double.fault("*", code="ServiceUnavailableException", status=503)
    document = json.loads(run(aws_kms_double, monkeypatch, "--config", str(tmp_path / "kms.yaml")).output)
    assert "ok" not in results(document).values()
    assert set(rules(document)) == {"aws_kms"}


def test_the_key_of_kms_yaml_is_looked_at_by_itself(
    aws_kms_double: AwsKmsDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, knows_itself: None
) -> None:
    key, former = make_key(aws_kms_double, "kms:DescribeKey"), make_key(aws_kms_double)
    text = f"aws_kms:\n  key: {key}\n  cluster: {CLUSTER}\n  deadline: 3s\n  former_keys: [{former}]\n"
    (tmp_path / "kms.yaml").write_text(text)
    result = run(aws_kms_double, monkeypatch, "--config", str(tmp_path / "kms.yaml"))
    (statement, _) = json.loads(result.output)["key_policy"]
    assert statement["Action"] == ["kms:Encrypt", "kms:Decrypt", "kms:ReEncryptTo"]
    assert statement["Condition"] == BOUND


def test_a_cluster_that_nobody_named_is_not_made_a_condition(
    aws_kms_double: AwsKmsDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGFENCE_KMS_CONFIG", "/nonexistent/kms.yaml")
    key = make_key(aws_kms_double, "kms:DescribeKey")
    document = json.loads(run(aws_kms_double, monkeypatch, "--key", key).output)
    assert "Condition" not in document["key_policy"][0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no AWS KMS key is named"),
        (["--key", "x"], "--key must be"),
        (["--key", "alias/x"], "does not say its region"),
        (["--key", "alias/x", "--region", "eu-west-1", "--endpoint", "http://aws.example.com"], "--endpoint must be"),
    ],
)
def test_what_cannot_be_looked_at_is_bad_input(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.setenv("RINGFENCE_KMS_CONFIG", "/nonexistent/kms.yaml")
    result = CliRunner().invoke(doctor, ["aws-kms", *arguments])
    assert isinstance(result.exception, InputError)
    assert words in result.exception.message
