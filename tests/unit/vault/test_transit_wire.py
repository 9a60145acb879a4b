"""Transit's ciphertexts, EDEKs and answers, taken apart strictly."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_node import results

from ringfence_agent.vault.connection import Answer, NoAnswerError
from ringfence_agent.vault.transit_wire import (
    EncryptItem,
    ItemFault,
    OpenItem,
    Operation,
    Refusal,
    TransitCiphertext,
    batch_body,
    bound_context,
    ciphertext_in,
    edek_context,
    edek_from,
    encrypt_row,
    open_row,
    read_answer,
)
from ringfence_zones.errors import InputError
from ringfence_zones.secret import Secret

RAW = bytes(range(44))  # of a DEK of 128 bits
TEXT = base64.b64encode(RAW).decode()
CANARY = b"canary-canary-16"
CANARY_TEXT = base64.b64encode(CANARY).decode()
IV = bytes(16)


# -- ciphertexts


@pytest.mark.parametrize("version", [1, 2, 10, 2**32 - 1])
def test_a_ciphertext_is_built_again_as_it_was(version: int) -> None:
    text = f"vault:v{version}:{TEXT}"
    ciphertext = TransitCiphertext.parse(text)
    assert (ciphertext.version, ciphertext.raw) == (version, RAW)
    assert ciphertext.text == text.encode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        TEXT,
        f"vault:v0:{TEXT}",
        f"vault:v01:{TEXT}",
        f"vault:v+1:{TEXT}",
        f"vault:v-1:{TEXT}",
        f"vault:v 1:{TEXT}",
        f"vault:v1_0:{TEXT}",
        f"vault:v١:{TEXT}",
        f"vault:v{2**32}:{TEXT}",
        f"vault:v99999999999999999999:{TEXT}",
        f"vault:V1:{TEXT}",
        f"Vault:v1:{TEXT}",
        f" vault:v1:{TEXT}",
        f"vault:v1:{TEXT}\n",
        f"vault:v1:{TEXT[:8]}\n{TEXT[8:]}",
        f"vault:v1:{TEXT[:8]}\r{TEXT[8:]}",
        f"vault:v1: {TEXT}",
        f"vault:v1:{TEXT.rstrip('=')}",
        f"vault:v1:{TEXT}=",
        f"vault:v1:{TEXT[:-2]}B=",
        f"vault:v1:{base64.urlsafe_b64encode(b'?' * 42).decode()}",
        f"vault:v1:{base64.b64encode(RAW[:27]).decode()}",
        f"vault:v1:{TEXT}:x",
        f"vault:v1::{TEXT}",
        "vault:v1:",
    ],
)
def test_any_other_spelling_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="not a ciphertext of Vault Transit") as caught:
        TransitCiphertext.parse(text)
    assert TEXT[:12] not in repr(caught.value)


@given(st.integers(1, 2**32 - 1), st.binary(min_size=28, max_size=100))
def test_whatever_transit_makes_is_taken_apart_and_built_again(version: int, raw: bytes) -> None:
    made = f"vault:v{version}:{base64.b64encode(raw).decode()}"
    assert TransitCiphertext.parse(made) == TransitCiphertext(version, raw)
    assert TransitCiphertext.parse(made).text == made.encode()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 80), st.text(max_size=3))
def test_what_is_taken_apart_has_one_spelling(at: int, changed: str) -> None:
    text = f"vault:v12:{TEXT}"
    text = text[:at] + changed + text[at + len(changed) :]
    try:
        ciphertext = TransitCiphertext.parse(text)
    except ValueError:
        return
    assert ciphertext.text.decode() == text


@pytest.mark.parametrize(("version", "raw"), [(0, RAW), (-1, RAW), (2**32, RAW), (1, RAW[:27])])
def test_what_transit_cannot_have_made_is_no_ciphertext(version: int, raw: bytes) -> None:
    with pytest.raises(ValueError, match="not a ciphertext"):
        TransitCiphertext(version, raw)


# -- EDEKs


@pytest.mark.parametrize(("dek_bytes", "edek_bytes"), [(16, 50), (24, 58), (32, 66)])
def test_an_edek_is_marked_and_names_its_version(dek_bytes: int, edek_bytes: int) -> None:
    raw = bytes(12 + dek_bytes + 16)
    edek = edek_from(TransitCiphertext(258, raw))
    assert edek == bytes.fromhex("ee01 00000102") + raw
    assert len(edek) == edek_bytes
    assert ciphertext_in(edek, "key@257", 258) == TransitCiphertext(258, raw)


@pytest.mark.parametrize("version", [0, 1, 3, 257, 258, 2**32 - 1])
def test_an_edek_given_with_another_version_is_refused(version: int) -> None:
    with pytest.raises(InputError, match="EDEK given for key@1 was made with another version"):
        ciphertext_in(edek_from(TransitCiphertext(2, RAW)), "key@1", version)


def test_which_version_transit_has_does_not_follow_from_hadoops_number() -> None:
    assert ciphertext_in(edek_from(TransitCiphertext(1, RAW)), "key@7", 1) == TransitCiphertext(1, RAW)


@pytest.mark.parametrize(
    "edek",
    [
        b"",
        bytes(16),
        bytes(32),
        bytes(50),
        bytes.fromhex("ee0200000001") + RAW,
        bytes.fromhex("ee0300000001") + RAW,
        bytes.fromhex("ee0100000001") + RAW + b"x",
        bytes.fromhex("ee0100000001") + RAW[:-1],
        bytes.fromhex("ee0100000001") + RAW[:28],
    ],
)
def test_any_other_edek_is_refused(edek: bytes) -> None:
    with pytest.raises(InputError, match=r"EDEK given for key@0 was not made by Vault Transit"):
        ciphertext_in(edek, "key@0", 1)


def test_an_edek_of_version_0_is_refused() -> None:
    with pytest.raises(InputError, match="another version"):
        ciphertext_in(bytes.fromhex("ee0100000000") + RAW, "key@0", 1)


def test_the_context_binds_key_name_and_iv_each_behind_its_length() -> None:
    expected = hashlib.sha256(
        b"\x00\x00\x00\x10ringfence-edek-1"
        + b"\x00\x00\x00\x04z-id"
        + b"\x00\x00\x00\x05n\xc3\xa4me"
        + b"\x00\x00\x00\x10"
        + IV
    ).digest()
    assert edek_context("z-id", "näme", IV) == expected
    others = [
        edek_context("z-i", "dnäme", IV),
        edek_context("z-id", "name", IV),
        edek_context("z-id", "näme", b"\1" * 16),
    ]
    assert len({expected, *others}) == 4
    assert bound_context(b"a", b"bc") != bound_context(b"ab", b"c")
    assert bound_context(b"a") != bound_context(b"a", b"")


def test_an_iv_of_another_length_is_refused() -> None:
    with pytest.raises(InputError, match="15 bytes"):
        edek_context("z-id", "name", bytes(15))


# -- requests


def test_a_batch_is_the_json_that_transit_takes() -> None:
    rows = [encrypt_row(EncryptItem(Secret(CANARY), b"c" * 32, 3))]
    context = base64.b64encode(b"c" * 32).decode()
    assert json.loads(batch_body(Operation.ENCRYPT, rows)) == {
        "batch_input": [{"plaintext": CANARY_TEXT, "context": context, "key_version": 3}],
        "partial_failure_response_code": 207,
    }
    rows = [open_row(OpenItem(TransitCiphertext(2, RAW), b"c" * 32))] * 2
    one = {"ciphertext": f"vault:v2:{TEXT}", "context": context}
    assert json.loads(batch_body(Operation.DECRYPT, rows)) == {
        "batch_input": [one, one],
        "partial_failure_response_code": 207,
    }
    # It would only earn a warning.
    assert json.loads(batch_body(Operation.REWRAP, rows)) == {"batch_input": [one, one]}


def test_128_items_stay_well_below_the_limit_of_1000_strings() -> None:
    for rows, operation in (
        ([encrypt_row(EncryptItem(Secret(CANARY), b"c" * 32, 3))] * 128, Operation.ENCRYPT),
        ([open_row(OpenItem(TransitCiphertext(2, RAW), b"c" * 32))] * 128, Operation.DECRYPT),
    ):
        assert batch_body(operation, rows).count(b'"') / 2 < 700


def test_items_do_not_print_plaintext() -> None:
    assert "canary" not in repr(EncryptItem(Secret(CANARY), b"c", 1))
    assert repr(TransitCiphertext(2, RAW)) == "<TransitCiphertext v2, 44 bytes>"


# -- answers

GOOD: dict[Operation, dict[str, Any]] = {
    Operation.ENCRYPT: {"ciphertext": f"vault:v1:{TEXT}", "key_version": 1, "reference": ""},
    Operation.DECRYPT: {"plaintext": CANARY_TEXT, "reference": ""},
    Operation.REWRAP: {"ciphertext": f"vault:v1:{TEXT}", "key_version": 1, "reference": ""},
}
VALUE: dict[Operation, Any] = {
    Operation.ENCRYPT: TransitCiphertext(1, RAW),
    Operation.DECRYPT: Secret(CANARY),
    Operation.REWRAP: TransitCiphertext(1, RAW),
}


def answer(status: int, body: object) -> Answer:
    return Answer(status, body if isinstance(body, bytes) else json.dumps(body).encode())


def bad(sentence: str) -> dict[str, str]:
    return {"plaintext": "", "error": sentence, "reference": ""}


@pytest.mark.parametrize("operation", list(Operation))
@pytest.mark.parametrize("status", [200, 207, 400, 500])
def test_results_count_wherever_they_are(operation: Operation, status: int) -> None:
    body = results(GOOD[operation], bad("refusing to use soft-deleted key"), GOOD[operation])
    good = VALUE[operation]
    assert read_answer(operation, 3, answer(status, body)) == [good, ItemFault.KEY_DISABLED, good]


@pytest.mark.parametrize(
    ("sentence", "fault"),
    [
        ("cipher: message authentication failed", ItemFault.CORRUPT),
        ("invalid ciphertext: no prefix", ItemFault.CORRUPT),
        ("invalid ciphertext: wrong number of fields", ItemFault.CORRUPT),
        ("invalid ciphertext: version number could not be decoded", ItemFault.CORRUPT),
        ("invalid ciphertext: could not decode base64", ItemFault.CORRUPT),
        ("invalid ciphertext length", ItemFault.CORRUPT),
        ("a sentence of a later version", ItemFault.CORRUPT),
        ("invalid ciphertext: version is too new", ItemFault.VERSION_AHEAD),
        ("ciphertext or signature version is disallowed by policy (too old)", ItemFault.VERSION_RETIRED),
        ("refusing to use soft-deleted key", ItemFault.KEY_DISABLED),
        ("encryption key not found", ItemFault.NO_SUCH_KEY),
        ("missing 'context' for key derivation; the key was created using a derived key, which", ItemFault.OUR_BUG),
        ("missing ciphertext to decrypt", ItemFault.OUR_BUG),
        ("illegal base64 data at input byte 0", ItemFault.OUR_BUG),
        ("internal error", ItemFault.SERVER_FAILED),
    ],
)
def test_what_is_said_of_an_item_is_understood(sentence: str, fault: ItemFault) -> None:
    body = results(bad(sentence))
    for operation, status in ((Operation.DECRYPT, 400), (Operation.DECRYPT, 207), (Operation.REWRAP, 200)):
        assert read_answer(operation, 1, answer(status, body)) == [fault]


@pytest.mark.parametrize(
    ("sentence", "fault"),
    [
        ("requested version for encryption is higher than the latest key version", ItemFault.VERSION_AHEAD),
        ("requested version for encryption is less than the minimum encryption key version", ItemFault.VERSION_RETIRED),
        ("no such key version", ItemFault.VERSION_RETIRED),
        ("a sentence of a later version", ItemFault.OUR_BUG),
    ],
)
def test_what_is_said_of_an_item_to_encrypt_is_understood(sentence: str, fault: ItemFault) -> None:
    assert read_answer(Operation.ENCRYPT, 1, answer(400, results({"error": sentence}))) == [fault]


def test_an_item_that_failed_inside_is_the_servers_fault() -> None:
    body = results(GOOD[Operation.DECRYPT], bad("a thing that nobody foresaw"))
    assert read_answer(Operation.DECRYPT, 2, answer(500, body)) == [Secret(CANARY), ItemFault.SERVER_FAILED]


@pytest.mark.parametrize(
    ("status", "sentence", "refusal"),
    [
        (403, "permission denied", Refusal.FORBIDDEN),
        (403, "1 error occurred:\n\t* permission denied\n\n", Refusal.FORBIDDEN),
        (404, 'no handler for route "transit-c1/decrypt/k"', Refusal.NO_SUCH_PATH),
        (413, "http: request body too large", Refusal.TOO_LARGE),
        (400, "refused JSON input due to high complexity: exceeded maximum number of strings", Refusal.TOO_LARGE),
        (400, "context should be set either in all the request blocks or in none", Refusal.NOT_UNDERSTOOD),
        (400, "failed to decode JSON input: canary", Refusal.NOT_UNDERSTOOD),
        (405, "unsupported operation", Refusal.NOT_UNDERSTOOD),
        (500, "1 error occurred:\n\t* failed to parse batch input: canary", Refusal.NOT_UNDERSTOOD),
    ],
)
def test_a_batch_refused_as_a_whole_says_why(status: int, sentence: str, refusal: Refusal) -> None:
    for operation in Operation:
        assert read_answer(operation, 2, answer(status, {"errors": [sentence]})) is refusal


@pytest.mark.parametrize("body", [b"", b"<html>canary</html>", b"\xff\xfe", {"errors": None}, {"errors": []}, {}])
def test_a_refusal_without_a_sentence_is_understood_by_its_status(body: object) -> None:
    assert read_answer(Operation.DECRYPT, 1, answer(403, body)) is Refusal.FORBIDDEN
    assert read_answer(Operation.DECRYPT, 1, answer(404, body)) is Refusal.NO_SUCH_PATH
    assert read_answer(Operation.DECRYPT, 1, answer(413, body)) is Refusal.TOO_LARGE


@pytest.mark.parametrize("sentence", ["encryption key not found", "key not found"])
def test_a_key_that_is_not_there_is_every_items_result(sentence: str) -> None:
    body = {"errors": [sentence]}
    assert read_answer(Operation.DECRYPT, 2, answer(400, body)) == [ItemFault.NO_SUCH_KEY] * 2


@pytest.mark.parametrize("status", [400, 500])
def test_a_disabled_key_is_every_items_result(status: int) -> None:
    body = {"errors": ["refusing to use soft-deleted key"]}
    assert read_answer(Operation.DECRYPT, 2, answer(status, body)) == [ItemFault.KEY_DISABLED] * 2


@pytest.mark.parametrize(
    ("operation", "status", "body"),
    [
        (Operation.DECRYPT, 200, results(GOOD[Operation.DECRYPT])),
        (Operation.DECRYPT, 200, results(*[GOOD[Operation.DECRYPT]] * 3)),
        (Operation.DECRYPT, 200, results(GOOD[Operation.DECRYPT], GOOD[Operation.ENCRYPT])),
        (Operation.ENCRYPT, 200, results(GOOD[Operation.ENCRYPT], GOOD[Operation.DECRYPT])),
        (Operation.ENCRYPT, 200, results(*[{"ciphertext": f"vault:v0:{TEXT}"}] * 2)),
        (Operation.DECRYPT, 200, results(GOOD[Operation.DECRYPT], {"plaintext": "no base64 canary"})),
        (Operation.DECRYPT, 200, results(GOOD[Operation.DECRYPT], {"plaintext": 7})),
        (Operation.DECRYPT, 200, {"data": {"plaintext": CANARY_TEXT}}),
        (Operation.DECRYPT, 200, {"data": None}),
        (Operation.DECRYPT, 200, b"<html>canary"),
        (Operation.DECRYPT, 200, b'{"canary":' + b"[" * 10_000),
        (Operation.DECRYPT, 200, b'{"data":{"batch_results":[{"plaintext":"canary'),
        (Operation.DECRYPT, 200, b""),
        (Operation.DECRYPT, 204, b""),
        (Operation.DECRYPT, 500, {"errors": ["internal error"]}),
        (Operation.DECRYPT, 500, {"errors": ["canary"]}),
        (Operation.DECRYPT, 599, {"errors": ["canary"]}),
        (Operation.DECRYPT, 503, b"canary"),
    ],
)
def test_what_is_not_an_answer_to_the_question_is_none_and_is_not_quoted(
    operation: Operation, status: int, body: object
) -> None:
    with pytest.raises(NoAnswerError) as caught:
        read_answer(operation, 2, answer(status, body))
    error: BaseException | None = caught.value
    while error is not None:
        assert "canary" not in repr(error).lower()
        assert CANARY_TEXT not in repr(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(Operation)), st.integers(200, 599), st.binary(max_size=60), st.integers(0, 60))
def test_any_answer_gives_results_or_a_reason(operation: Operation, status: int, noise: bytes, at: int) -> None:
    body = json.dumps(results(GOOD[operation], bad("invalid"))).encode()
    for content in (noise, body[:at] + noise + body[at:], body[: 2 * at]):
        try:
            found = read_answer(operation, 2, Answer(status, content))
        except NoAnswerError as error:
            assert CANARY_TEXT not in repr(error)
        else:
            assert isinstance(found, Refusal) or len(found) == 2


def test_a_full_audit_log_is_named_as_what_500_internal_error_usually_is() -> None:
    with pytest.raises(NoAnswerError, match="audit log"):
        read_answer(Operation.DECRYPT, 1, answer(500, {"errors": ["internal error"]}))
