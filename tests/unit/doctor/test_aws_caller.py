from __future__ import annotations

import pytest

from ringfence_agent.doctor.aws_caller import parse_caller


def test_a_session_is_its_role_whose_path_it_does_not_tell() -> None:
    caller = parse_caller("arn:aws:sts::111122223333:assumed-role/ringfence-kms/i-0abc")
    assert caller is not None
    assert (caller.arn, caller.role_name) == ("arn:aws:iam::111122223333:role/ringfence-kms", "ringfence-kms")
    assert (caller.account, caller.is_whole) == ("111122223333", False)
    whole = caller.with_arn("arn:aws:iam::111122223333:role/service/ringfence-kms")
    assert (whole.arn, whole.is_whole) == ("arn:aws:iam::111122223333:role/service/ringfence-kms", True)


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:iam::111122223333:user/people/ada",
        "arn:aws-cn:iam::111122223333:root",
        "arn:aws:sts::111122223333:federated-user/ada",
    ],
)
def test_others_are_named_as_they_are(arn: str) -> None:
    caller = parse_caller(arn)
    assert caller is not None
    assert (caller.arn, caller.role_name, caller.is_whole) == (arn, None, True)


def test_another_form_is_not_guessed() -> None:
    assert parse_caller("arn:aws:iam::1:user/x") is None
    assert parse_caller("me") is None
