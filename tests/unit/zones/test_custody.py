"""Custody as a word: in attributes, and in bytes of the NameNode's memory."""

from __future__ import annotations

import pytest

from ringfence_agent.vault.transit_wire import TransitCiphertext, edek_from
from ringfence_zones.custody import CUSTODIES, custody_word, edek_bytes, parse_custody
from ringfence_zones.errors import InputError

# AES-GCM's nonce and tag, which Vault's ciphertext holds beside the text.
_NONCE_AND_TAG_BYTES = 28


@pytest.mark.parametrize("custody", CUSTODIES)
def test_an_attribute_chooses_the_custody_and_without_one_it_is_envelope(custody: str) -> None:
    assert parse_custody({"ringfence.custody": custody, "other": "x"}) == custody
    assert parse_custody({"other": "x"}) == "envelope"


@pytest.mark.parametrize("word", ["", "Transit", "transit ", "hsm"])
def test_any_other_word_is_refused_and_both_good_ones_are_named(word: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_custody({"ringfence.custody": word})
    assert f"{word!r} is no custody: it is envelope or transit" in raised.value.message
    assert custody_word({"ringfence.custody": word}) == word


@pytest.mark.parametrize("length_bits", [128, 256])
def test_the_lengths_of_edeks_are_those_that_are_made(length_bits: int) -> None:
    assert edek_bytes("envelope", length_bits) == length_bits // 8
    made = edek_from(TransitCiphertext(1, bytes(length_bits // 8 + _NONCE_AND_TAG_BYTES)))
    assert edek_bytes("transit", length_bits) == len(made)
