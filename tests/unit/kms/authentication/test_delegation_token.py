"""The bytes of a delegation token: vectors from Hadoop's own classes, and that nothing else is read."""

from __future__ import annotations

import base64
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence_agent.kms.authentication.delegation_token import (
    Token,
    TokenIdentifier,
    _Reader,
    decode_url,
    encode_vlong,
)
from ringfence_zones.errors import InvalidTokenError

LONGS = [
    (0, "00"),
    (-1, "ff"),
    (127, "7f"),
    (128, "8f80"),
    (-112, "90"),
    (-113, "8770"),
    (255, "8fff"),
    (256, "8e0100"),
    (65536, "8d010000"),
    (1700000000123, "8a018bcfe5687b"),
    (-1700000000123, "82018bcfe5687a"),
    ((1 << 63) - 1, "887fffffffffffffff"),
    (-(1 << 63), "807fffffffffffffff"),
]
ALICE = TokenIdentifier("alice@TEST.LOCAL", "yarn", "oozie", 1700000000123, 1700604800123, 1, 2)
ALICE_HEX = "0010616c69636540544553542e4c4f43414c047961726e056f6f7a69658a018bcfe5687b8a018bf3f1ec7b0102"
ALICE_URL = (
    "LQAQYWxpY2VAVEVTVC5MT0NBTAR5YXJuBW9vemlligGLz-Voe4oBi_Px7HsBAhQwJeMYd2QUFWREK5BuF2V4yTyLLwZrbXMtZHQOMTI3LjAuMC4x"
    "Ojk2MDA"
)
PLAIN = TokenIdentifier("alice", "yarn", "oozie", 1700000000000, 1700604800000, 300, 5)
PLAIN_HEX = "0005616c696365047961726e056f6f7a69658a018bcfe568008a018bf3f1ec008e012c05"
PLAIN_URL = "JAAFYWxpY2UEeWFybgVvb3ppZYoBi8_laACKAYvz8ewAjgEsBRRQ1yIWxu5usrv0Kx6Ld--TZ3Y2JAZrbXMtZHQA"
KEY = bytes(range(1, 9))


@pytest.mark.parametrize(("value", "encoded"), LONGS)
def test_numbers_are_javas(value: int, encoded: str) -> None:
    assert encode_vlong(value).hex() == encoded
    reader = _Reader(bytes.fromhex(encoded))
    assert reader.vlong() == value
    reader.finish()


@pytest.mark.parametrize(
    ("identifier", "encoded", "service", "url"),
    [(ALICE, ALICE_HEX, "127.0.0.1:9600", ALICE_URL), (PLAIN, PLAIN_HEX, "", PLAIN_URL)],
)
def test_a_token_of_hadoops_is_read_and_written_byte_for_byte(
    identifier: TokenIdentifier, encoded: str, service: str, url: str
) -> None:
    assert identifier.encode().hex() == encoded
    # The stock server signs with HMAC-SHA1 under a key of 64 bits.
    password = hmac.digest(KEY, identifier.encode(), "sha1")
    token = Token(identifier.encode(), password, service=service)
    assert token.encode_url() == url
    assert decode_url(url.encode()) == (token, identifier)
    assert decode_url((url + "=" * (-len(url) % 4)).encode()) == (token, identifier)


def test_the_text_form_is_the_one_that_hadoops_messages_quote() -> None:
    identifier = TokenIdentifier("client", "client1", "", 1, 2, 1, 2)
    assert str(identifier) == (
        "kms-dt owner=client, renewer=client1, realUser=, issueDate=1, maxDate=2, sequenceNumber=1, masterKeyId=2"
    )


def test_a_password_does_not_print() -> None:
    assert "canary" not in repr(Token(b"id", b"canary"))


def encoded(*parts: bytes) -> bytes:
    return base64.urlsafe_b64encode(b"".join(parts)).rstrip(b"=")


IDENTIFIER = PLAIN.encode()
WHOLE = bytes([len(IDENTIFIER)]) + IDENTIFIER + b"\x01p"


@pytest.mark.parametrize(
    "url_string",
    [
        b"",
        b"=",
        b"!!!",
        b"A",
        b"ab\n",
        b"A" * 9000,
        encoded(WHOLE, b"\x06kms-dt"),
        encoded(WHOLE, b"\x06kms-dt", b"\x00", b"more"),
        encoded(WHOLE, b"\x05other", b"\x00"),
        encoded(WHOLE, b"\x06kms-dt", b"\x01\xff"),
        encoded(b"\xff"),
        encoded(b"\x8c\x7f\xff\xff\xff", IDENTIFIER),
        encoded(b"\x80\x7f\xff\xff\xff\xff\xff\xff\xff"),
        encoded(b"\x88\xff\xff\xff\xff\xff\xff\xff\xff"),
        encoded(bytes([len(IDENTIFIER) + 1]), IDENTIFIER, b"\x00", b"\x01p\x06kms-dt\x00"),
        encoded(bytes([len(IDENTIFIER)]), b"\x01" + IDENTIFIER[1:], b"\x01p\x06kms-dt\x00"),
    ],
)
def test_what_is_not_wholly_a_token_is_refused(url_string: bytes) -> None:
    with pytest.raises(InvalidTokenError):
        decode_url(url_string)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for url_string in (data, base64.urlsafe_b64encode(data)):
        try:
            token, identifier = decode_url(url_string)
        except InvalidTokenError:
            continue
        assert decode_url(token.encode_url().encode())[1] == identifier


@given(st.integers(0, len(PLAIN_URL) - 1), st.sampled_from(b"ABab09-_"))
def test_a_changed_token_is_refused_or_another_token(position: int, byte: int) -> None:
    changed = bytearray(PLAIN_URL.encode())
    changed[position] = byte
    try:
        token, _ = decode_url(bytes(changed))
    except InvalidTokenError:
        return
    assert token.encode_url() is not None


@given(
    st.builds(
        TokenIdentifier,
        *(st.text(max_size=300).filter(lambda text: text.isprintable()) for _ in range(3)),
        *(st.integers(-(1 << 63), (1 << 63) - 1) for _ in range(2)),
        *(st.integers(-(1 << 31), (1 << 31) - 1) for _ in range(2)),
    )
)
def test_what_is_written_is_read_again(identifier: TokenIdentifier) -> None:
    token = Token(identifier.encode(), b"p" * 32, service="kms://https@a;b:9600/kms")
    assert decode_url(token.encode_url().encode()) == (token, identifier)
