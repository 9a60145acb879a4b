from __future__ import annotations

from typing import Any

import pytest

from ringfence_agent.doctor.aws_key_policy import limits_to_cluster, openers

ROOT = "arn:aws:iam::111122223333:root"
ROLE = "arn:aws:iam::111122223333:role/ringfence-kms"
OTHER = "arn:aws:iam::111122223333:role/other"
BOUND = {"StringEquals": {"kms:EncryptionContext:ringfence:cluster": "analytics"}}


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Statement": [{"Effect": "Allow", "Resource": "*", **each} for each in statements]}


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ({"Principal": {"AWS": ROOT}, "Action": "kms:*"}, set()),
        ({"Principal": {"AWS": "111122223333"}, "Action": "kms:*"}, set()),
        ({"Principal": {"AWS": [ROLE, OTHER]}, "Action": ["kms:Decrypt"]}, {ROLE, OTHER}),
        ({"Principal": {"AWS": ROLE}, "Action": "kms:ReEncrypt*"}, {ROLE}),
        ({"Principal": {"AWS": ROLE}, "Action": "KMS:decrypt"}, {ROLE}),
        ({"Principal": {"AWS": ROLE}, "Action": ["kms:Encrypt", "kms:Put*"]}, set()),
        ({"Principal": {"AWS": ROLE}, "NotAction": "kms:Encrypt"}, {ROLE}),
        ({"Principal": {"AWS": ROLE}, "NotAction": ["kms:Decrypt", "kms:ReEncrypt*"]}, set()),
        ({"Principal": {"AWS": ROLE}, "Action": "kms:*", "Effect": "Deny"}, set()),
        ({"Principal": "*", "Action": "kms:*"}, {"*"}),
        ({"Principal": {"AWS": "*"}, "Action": "kms:*", "Condition": {"Bool": {"x": "y"}}}, set()),
        ({"NotPrincipal": {"AWS": ROLE}, "Action": "kms:*"}, {"*"}),
        ({"Principal": {"Service": "logs.amazonaws.com"}, "Action": "kms:Decrypt"}, {"logs.amazonaws.com"}),
    ],
)
def test_whoever_may_open_by_name_is_found(statement: dict[str, Any], found: set[str]) -> None:
    assert openers(policy(statement)) == found
    assert openers({"Statement": {"Effect": "Allow", **statement}}) == found


def test_one_statement_without_the_condition_is_enough_to_open_all() -> None:
    bound = {"Principal": {"AWS": ROLE}, "Action": "kms:Decrypt", "Condition": BOUND}
    free = {"Principal": {"AWS": ROLE}, "Action": "kms:*"}
    assert limits_to_cluster(policy(bound), ROLE, "analytics")
    assert not limits_to_cluster(policy(bound, free), ROLE, "analytics")
    assert not limits_to_cluster(policy(bound), ROLE, "other")
    # Not named here at all: what lets it open stands elsewhere.
    assert limits_to_cluster(policy(free), OTHER, "analytics")


@pytest.mark.parametrize("condition", [{"StringNotEquals": BOUND["StringEquals"]}, {"StringEquals": []}, [], "x"])
def test_another_condition_is_not_taken_for_it(condition: object) -> None:
    statement = {"Principal": {"AWS": ROLE}, "Action": "kms:Decrypt", "Condition": condition}
    assert not limits_to_cluster(policy(statement), ROLE, "analytics")


@pytest.mark.parametrize("document", [None, [], {}, {"Statement": "x"}, {"Statement": [7]}, {"Statement": [{}]}])
def test_a_document_of_another_shape_names_nobody(document: object) -> None:
    assert openers(document) == set()
    assert limits_to_cluster(document, ROLE, "analytics")
