"""What an answer holds is looked at before it is used: something else than Vault may have sent it."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence_agent.vault import refusal
from ringfence_agent.vault.caller import data_of, number, texts
from ringfence_agent.vault.exchange import VaultAnswer
from ringfence_zones.errors import ProtectorRefusedError


def test_what_is_left_out_is_nothing() -> None:
    assert (number({}, "ttl"), number({"ttl": None}, "ttl"), number({"ttl": 7}, "ttl")) == (0, 0, 7)
    assert (texts({}, "keys"), texts({"keys": None}, "keys"), texts({"keys": ["a"]}, "keys")) == ((), (), ("a",))


@pytest.mark.parametrize("value", ["7", 7.5, float("inf"), [], {}])
def test_a_number_that_is_none_is_refused_by_name_alone(value: Any) -> None:
    with pytest.raises(ProtectorRefusedError, match=r"sends a ttl that Vault would not send$"):
        number({"ttl": value}, "ttl")


@pytest.mark.parametrize("value", ["hvs.CANARY", 7, {"a": "b"}, [1], [None]])
def test_a_list_that_is_none_is_refused_by_name_alone(value: Any) -> None:
    with pytest.raises(ProtectorRefusedError, match=r"sends a policies that Vault would not send$"):
        texts({"policies": value}, "policies")


@pytest.mark.parametrize("body", [b"[" * 200_000, b"null", b"[]", b"\xff", b"", b'"x"'])
def test_a_body_that_is_no_object_is_an_empty_answer(body: bytes) -> None:
    assert data_of(VaultAnswer(200, body).json) == {}
    assert refusal.find_reason(body) is None
