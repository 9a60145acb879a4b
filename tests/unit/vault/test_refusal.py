"""What answers mean, and that none of their words gets out."""

from __future__ import annotations

import json

import pytest

from ringfence_agent.vault import refusal
from ringfence_agent.vault.refusal import Reason

CANARY = "hunter2-hunter2-hunter2"


def errors(*texts: str) -> bytes:
    return json.dumps({"errors": list(texts)}).encode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("check-and-set parameter did not match the current version", Reason.CAS_LOST),
        ("encryption key not found", Reason.KEY_NOT_FOUND),
        ("error deleting policy K: could not delete key; not found", Reason.KEY_ALREADY_DELETED),
        ("error deleting policy K: deletion is not allowed for this key", Reason.DELETION_NOT_ALLOWED),
        ("invalid role or secret ID", Reason.INVALID_LOGIN),
        ("1 error occurred:\n\t* invalid role or secret ID\n\n", Reason.INVALID_LOGIN),
        ("wrapping token is not valid or does not exist", Reason.WRAPPING_TOKEN_SPENT),
        ('no handler for route "x/y". route entry not found.', Reason.NO_ROUTE),
        ("something new", None),
    ],
)
def test_the_phrases_that_matter_are_known(text: str, reason: Reason | None) -> None:
    assert refusal.find_reason(errors(text)) is reason


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{", b'{"errors":null}', b'{"errors":[1]}', b"\xff", b'"x"'])
def test_a_body_that_is_no_error_answer_has_no_reason(body: bytes) -> None:
    assert refusal.find_reason(body) is None
    assert refusal.refused("GET x", 400, body).status == 400


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 412, 429, 472, 473, 474, 500, 501, 502, 503, 504, 530])
def test_these_may_be_better_later(status: int) -> None:
    assert refusal.is_unavailable(status, errors("whatever"))


@pytest.mark.parametrize("status", [200, 204, 400, 403, 404, 405, 413])
def test_these_are_answers(status: int) -> None:
    assert not refusal.is_unavailable(status, errors("whatever"))


def test_a_500_that_lasts_is_an_answer_and_a_mount_that_prepares_itself_is_none() -> None:
    assert not refusal.is_unavailable(500, errors("put failed due to value being too large"))
    assert refusal.is_unavailable(400, errors("Upgrading from non-versioned. It will resume service shortly."))


@pytest.mark.parametrize(
    ("status", "uncertain"), [(500, True), (502, True), (504, True), (503, False), (429, False), (307, False)]
)
def test_only_what_may_come_after_the_fact_may_have_changed_something(status: int, uncertain: bool) -> None:
    assert refusal.unavailable("https://a", status, changes=True).may_have_changed is uncertain
    assert refusal.unavailable("https://a", status, changes=False).may_have_changed is False


@pytest.mark.parametrize("status", [400, 403, 404, 405, 413, 500])
def test_no_word_of_a_body_is_in_an_error(status: int) -> None:
    bodies = [
        errors(CANARY),
        errors(f"check-and-set parameter did not match the current version {CANARY}"),
        json.dumps({"data": {"batch_results": [{"plaintext": CANARY}]}}).encode(),
        CANARY.encode(),
    ]
    for body in bodies:
        error = refusal.refused("POST x", status, body)
        assert CANARY not in f"{error} {error!r} {error.hint} {error.reason} {error.__dict__}"


def test_a_refusal_names_what_was_asked_and_a_way_on() -> None:
    error = refusal.refused("POST transit/keys/k", 403, errors("permission denied"))
    assert "POST transit/keys/k" in error.message
    assert "ringfence vault policy" in (error.hint or "")
