"""Which key providers are the expected one."""

from __future__ import annotations

import pytest

from ringfence_bootstrap.zones_step.expected_kms import parse_expected_kms
from ringfence_zones.errors import InputError, KmsUnavailableError

PAIR = "kms://https@kms1.example.com;kms2.example.com:9600/kms"


def ours(_provider: str) -> bool:
    return True


def stock(_provider: str) -> bool:
    return False


def silent(_provider: str) -> bool:
    raise KmsUnavailableError("nobody answers")


@pytest.mark.parametrize(
    "provider",
    [
        PAIR,
        "kms://https@kms2.example.com;kms1.example.com:9600/kms",
        "kms://https@KMS1.example.com;kms2.example.com/kms",
        PAIR + "/",
    ],
)
def test_the_same_servers_written_otherwise_are_the_same(provider: str) -> None:
    assert parse_expected_kms(PAIR, tls=True).find_difference(provider, stock) is None


@pytest.mark.parametrize(
    "provider",
    [
        None,
        "jceks://file@/x",
        "kms://http@kms1.example.com;kms2.example.com:9600/kms",
        "kms://https@kms1.example.com:9600/kms",
        "kms://https@kms1.example.com;kms2.example.com:9700/kms",
        "kms://https@kms1.example.com;kms2.example.com:9600/other",
    ],
)
def test_any_other_is_a_difference_that_is_told(provider: str | None) -> None:
    told = parse_expected_kms(PAIR, tls=False).find_difference(provider, ours)
    assert told is not None
    assert (provider or "no key provider") in told


def test_a_word_takes_any_address() -> None:
    ringfence, existing = parse_expected_kms("ringfence", tls=False), parse_expected_kms("existing", tls=False)
    assert ringfence.find_difference("kms://http@h:9600/kms", ours) is None
    assert "not Ringfence's" in (ringfence.find_difference("kms://http@h:9600/kms", stock) or "")
    assert existing.find_difference("kms://http@h:9600/kms", stock) is None


@pytest.mark.parametrize("word", ["ringfence", "existing", PAIR])
def test_a_kms_that_does_not_serve_is_not_there_yet(word: str) -> None:
    assert "nobody answers" in (parse_expected_kms(word, tls=False).find_difference(PAIR, silent) or "")


def test_tls_is_a_demand_on_the_address_that_the_namenode_names() -> None:
    expected = parse_expected_kms("existing", tls=True)
    assert "plain http" in (expected.find_difference("kms://http@h:9600/kms", stock) or "")
    assert expected.find_difference("kms://https@h:9600/kms", stock) is None
    assert str(expected) == "existing KMS over https"


@pytest.mark.parametrize(
    ("word", "tls"), [("stock", False), ("https://h:9600", False), ("kms://http@h:9600/kms", True)]
)
def test_what_cannot_be_expected_is_bad_input(word: str, *, tls: bool) -> None:
    with pytest.raises(InputError, match="--kms") as caught:
        parse_expected_kms(word, tls=tls)
    assert "kms://https@" in (caught.value.hint or "")
