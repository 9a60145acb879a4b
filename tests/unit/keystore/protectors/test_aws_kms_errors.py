from __future__ import annotations

import datetime

import pytest

from ringfence_agent.keystore.protectors import aws_kms_errors
from ringfence_agent.keystore.protectors.aws_kms_errors import Call, Reason, error_of_code, error_of_state
from ringfence_zones.errors import ProtectorRefusedError, ProtectorUnavailableError

ARN = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
CALL = Call("Decrypt", ARN, "eu-west-1")
UNAVAILABLE = {Reason.THROTTLED, Reason.CREDENTIALS_EXPIRED, Reason.AWS_FAILED}


@pytest.mark.parametrize("code", sorted(aws_kms_errors._REASONS))
def test_every_known_code_has_a_kind_a_sentence_and_a_fix(code: str) -> None:
    error = error_of_code(code, 400, CALL)
    reason = aws_kms_errors._REASONS[code]
    assert error.reason == reason
    assert isinstance(error, ProtectorUnavailableError if reason in UNAVAILABLE else ProtectorRefusedError)
    assert error.hint
    assert "{" not in error.message + error.hint + (error.command or "")
    assert error.message[0].islower() or error.message.startswith(("AWS", "KMS"))


def test_a_code_with_its_namespace_is_the_same_code() -> None:
    assert error_of_code("com.amazonaws.kms#DisabledException", 400, CALL).reason == Reason.DISABLED


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("Unheard", 400, Reason.REQUEST_REFUSED),
        ("Unheard", 429, Reason.THROTTLED),
        ("Unheard", 503, Reason.AWS_FAILED),
        (None, 301, Reason.REQUEST_REFUSED),
        ("", 502, Reason.AWS_FAILED),
        (["x"], 400, Reason.REQUEST_REFUSED),
    ],
)
def test_an_unknown_code_counts_by_its_status(code: object, status: int, reason: Reason) -> None:
    assert error_of_code(code, status, CALL).reason == reason


@pytest.mark.parametrize("code", ["a b", "x" * 100, "a\nb", "<html>", "Secret=AAAA"])
def test_what_is_no_code_is_not_repeated(code: str) -> None:
    error = error_of_code(code, 400, CALL)
    assert code not in error.message
    assert "no error code" in error.message


def test_every_state_but_enabled_has_its_own_way_out() -> None:
    day = datetime.datetime(2026, 12, 24, tzinfo=datetime.UTC)
    reasons = {
        state: error_of_state(state, day, CALL).reason
        for state in ("Disabled", "PendingDeletion", "PendingReplicaDeletion", "PendingImport", "Unavailable", None)
    }
    assert reasons == {
        "Disabled": Reason.DISABLED,
        "PendingDeletion": Reason.PENDING_DELETION,
        "PendingReplicaDeletion": Reason.PENDING_DELETION,
        "PendingImport": Reason.PENDING_IMPORT,
        "Unavailable": Reason.AWS_FAILED,
        None: Reason.UNUSABLE_STATE,
    }
    assert "2026-12-24" in error_of_state("PendingDeletion", day, CALL).message


def test_a_denied_re_encryption_names_both_keys_and_both_actions() -> None:
    error = error_of_code("AccessDeniedException", 400, Call("ReEncrypt", "new", "eu-west-1", source="old"))
    for word in ("kms:ReEncryptFrom", "kms:ReEncryptTo", "old", "new"):
        assert word in error.message
