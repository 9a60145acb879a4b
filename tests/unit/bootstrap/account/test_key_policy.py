"""What a key's policy says to a role, one element at a time, and what is added to it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ringfence_bootstrap.account.key_calls import RoleArn, find_role_arn
from ringfence_bootstrap.account.key_policy import (
    NO_CONTEXT,
    Answer,
    PolicySays,
    Question,
    ask,
    key_users,
    volume_grants,
    wal_service,
    with_statements,
)

KEY = "arn:aws:kms:eu-west-1:111122223333:key/k"


def role(text: str) -> RoleArn:
    found = find_role_arn(text)
    assert found is not None
    return found


ROLE = role("arn:aws:iam::111122223333:role/path/nodes")
ACCOUNT = "arn:aws:iam::111122223333:root"
DECRYPT = Question("kms:Decrypt", ROLE, KEY, {"kms:viaservice": "s3.eu-west-1.amazonaws.com"})
YES, NO, MAYBE = Answer.YES, Answer.NO, Answer.MAYBE


def statement(**fields: Any) -> dict[str, Any]:
    plain = {"Effect": "Allow", "Principal": {"AWS": ROLE.text}, "Action": "kms:Decrypt", "Resource": "*"}
    return {name: value for name, value in {**plain, **fields}.items() if value is not None}


def says(*statements: dict[str, Any], question: Question = DECRYPT) -> PolicySays:
    return ask({"Statement": list(statements)}, question)


@pytest.mark.parametrize(
    ("fields", "named", "delegated"),
    [
        ({}, YES, NO),
        ({"Principal": {"AWS": ["x", ROLE.text]}}, YES, NO),
        ({"Principal": "*"}, YES, NO),
        ({"Principal": {"AWS": "*"}}, YES, NO),
        ({"Principal": {"AWS": ACCOUNT}}, NO, YES),
        ({"Principal": {"AWS": "111122223333"}}, NO, YES),
        ({"Principal": {"AWS": "arn:aws:iam::444455556666:root"}}, NO, NO),
        ({"Principal": {"Service": "s3.amazonaws.com"}}, NO, NO),
        ({"Principal": None, "NotPrincipal": {"AWS": "x"}}, MAYBE, NO),
        ({"Action": ["kms:*"]}, YES, NO),
        ({"Action": "KMS:decrypt"}, YES, NO),
        ({"Action": "kms:De?rypt"}, YES, NO),
        ({"Action": "kms:[D]ecrypt"}, NO, NO),
        ({"Action": "kms:Encrypt"}, NO, NO),
        ({"Action": None, "NotAction": "kms:Encrypt"}, YES, NO),
        ({"Action": None, "NotAction": "kms:D*"}, NO, NO),
        ({"Resource": KEY}, YES, NO),
        ({"Resource": KEY + "2"}, NO, NO),
        ({"Resource": None}, NO, NO),
        ({"Effect": "Maybe"}, NO, NO),
    ],
)
def test_each_element_of_a_statement(fields: dict[str, Any], named: Answer, delegated: Answer) -> None:
    assert says(statement(**fields)) == PolicySays(named, delegated, NO)


@pytest.mark.parametrize(
    ("condition", "answer"),
    [
        ({"StringEquals": {"kms:CallerAccount": "111122223333"}}, YES),
        ({"StringEquals": {"kms:CallerAccount": "444455556666"}}, NO),
        ({"StringNotEquals": {"kms:CallerAccount": "444455556666"}}, YES),
        ({"StringLike": {"kms:ViaService": "s3.*.amazonaws.com"}}, YES),
        ({"StringEquals": {"kms:ViaService": ["ec2.eu-west-1.amazonaws.com"]}}, NO),
        ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::111122223333:role/*"}}, YES),
        ({"StringEqualsIfExists": {"kms:ViaService": "s3.eu-west-1.amazonaws.com"}}, YES),
        ({"StringEquals": {"kms:EncryptionContext:a": "b"}}, MAYBE),
        ({"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["a"]}}, MAYBE),
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, MAYBE),
        ({"StringEquals": {"kms:CallerAccount": "444455556666", "aws:SourceVpce": "v"}}, NO),
        ({"Null": {"kms:ViaService": "true"}}, NO),
        ({}, YES),
    ],
)
def test_each_kind_of_condition(condition: dict[str, Any], answer: Answer) -> None:
    assert says(statement(Condition=condition)).named is answer


@pytest.mark.parametrize(
    ("condition", "answer"),
    [
        ({"StringEquals": {"kms:EncryptionContext:a": "b"}}, NO),
        ({"StringEquals": {"kms:ViaService": "s3.eu-west-1.amazonaws.com"}}, NO),
        ({"StringEqualsIfExists": {"kms:ViaService": "s3.eu-west-1.amazonaws.com"}}, YES),
        ({"StringNotEquals": {"kms:ViaService": "s3.eu-west-1.amazonaws.com"}}, YES),
        ({"Null": {"kms:EncryptionContextKeys": "true"}}, YES),
        ({"Null": {"kms:EncryptionContextKeys": "false"}}, NO),
    ],
)
def test_a_node_that_asks_kms_itself_has_neither_context_nor_service(condition: dict[str, Any], answer: Answer) -> None:
    question = Question("kms:Decrypt", ROLE, KEY, {}, NO_CONTEXT)
    assert says(statement(Condition=condition), question=question).named is answer


def test_a_denial_of_the_account_holds_for_its_roles() -> None:
    assert says(statement(), statement(Effect="Deny", Principal={"AWS": ACCOUNT})) == PolicySays(YES, NO, YES)
    assert says(statement(Effect="Deny", Condition={"IpAddress": {"aws:SourceIp": "1"}})).denied is MAYBE


def test_one_statement_needs_no_list() -> None:
    assert ask({"Statement": statement()}, DECRYPT).named is YES
    assert ask({}, DECRYPT) == PolicySays(NO, NO, NO)


def test_statements_are_added_behind_the_others_and_nothing_else_changes() -> None:
    before = {"Version": "2012-10-17", "Id": "theirs", "Statement": [statement(Sid="Theirs")], "Other": 1}
    kept = copy.deepcopy(before)
    after = with_statements(before, [key_users([ROLE]), volume_grants([ROLE]), wal_service()])
    assert before == kept
    assert {name: after[name] for name in after if name != "Statement"} == {
        name: before[name] for name in before if name != "Statement"
    }
    assert after["Statement"][0] == kept["Statement"][0]  # type: ignore[index]
    assert [each["Sid"] for each in after["Statement"][1:]] == [
        "RingfenceEmrKeyUsers",
        "RingfenceEmrVolumeGrants",
        "RingfenceEmrWal",
    ]


def test_adding_twice_is_adding_once() -> None:
    wanted = [key_users([ROLE]), volume_grants([ROLE]), wal_service()]
    once = with_statements({"Statement": []}, wanted)
    assert with_statements(once, wanted) == once


def test_a_statement_of_our_name_that_somebody_changed_is_left_alone() -> None:
    theirs = {**key_users([ROLE]), "Condition": {"Bool": {"aws:MultiFactorAuthPresent": "true"}}}
    after = with_statements({"Statement": [theirs]}, [key_users([ROLE])])
    assert after["Statement"] == [theirs, {**key_users([ROLE]), "Sid": "RingfenceEmrKeyUsers2"}]


def test_a_grant_for_volumes_is_for_services_of_aws_alone() -> None:
    policy = {"Statement": [volume_grants([ROLE])]}
    by_aws = Question("kms:CreateGrant", ROLE, KEY, {"kms:grantisforawsresource": "true"})
    assert ask(policy, by_aws).named is YES
    assert ask(policy, Question("kms:CreateGrant", ROLE, KEY)).named is MAYBE
