"""JCEKS files: one that Hadoop made is read, byte for byte; damaged, hostile and foreign ones are refused."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence_agent.keystore.interface import ImportedKey, StoredKey
from ringfence_agent.keystore.jceks import seal as jceks_seal
from ringfence_agent.keystore.jceks.java_objects import (
    KEY_METADATA,
    SEALED,
    SECRET_KEY,
    JavaObject,
    from_modified_utf8,
    modified_utf8,
    read_object,
    write_object,
)
from ringfence_agent.keystore.jceks.keys import make_entries, read_keys, receipt_of
from ringfence_agent.keystore.jceks.provider import JceksEntry, format_jceks, parse_jceks
from ringfence_agent.keystore.jceks.seal import check_password, seal, unseal
from ringfence_zones.errors import InputError
from ringfence_zones.keys import KeyVersion
from ringfence_zones.secret import Secret

FILE = Path(__file__).parents[3] / "vectors/jceks/hadoop-3.4.2.jceks"
PASSWORD = Secret(b"correct horse")
K1 = [bytes(range(16)), bytes(range(16, 32))]
QUICK = 10  # Rounds: 200,000 take 0.2 s.


def ignore(_done: int, _total: int) -> None:
    pass


@pytest.fixture(scope="module")
def entries() -> tuple[JceksEntry, ...]:
    return parse_jceks(FILE.read_bytes(), PASSWORD, "f")


@pytest.fixture(scope="module")
def keys(entries: tuple[JceksEntry, ...]) -> tuple[ImportedKey, ...]:
    return read_keys(entries, PASSWORD, {}, ignore)


def stored(keys: tuple[ImportedKey, ...]) -> list[StoredKey]:
    return [
        StoredKey(
            key.metadata, tuple(KeyVersion(key.metadata.name, each.number, each.material) for each in key.versions)
        )
        for key in keys
    ]


def quick_file(*objects: tuple[str, JavaObject]) -> tuple[JceksEntry, ...]:
    return tuple(JceksEntry(alias, 1, seal(made, PASSWORD, QUICK)) for alias, made in objects)


def metadata_of(text: bytes) -> JavaObject:
    return JavaObject(KEY_METADATA, {}, len(text).to_bytes(4, "big") + text)


def version_of(material: bytes) -> JavaObject:
    return JavaObject(SECRET_KEY, {"algorithm": "AES/CTR/NoPadding", "key": material})


GOOD = b'{"cipher":"AES/CTR/NoPadding","bitLength":128,"created":1700000000000,"versions":1}'


def test_the_keys_that_hadoop_wrote_are_read_with_everything_they_have(keys: tuple[ImportedKey, ...]) -> None:
    pii, k1 = keys
    assert (pii.metadata.name, pii.metadata.length_bits, pii.metadata.versions) == ("data.pii", 256, 1)
    assert pii.metadata.description == "Gehälter " * 40
    assert dict(pii.metadata.attributes) == {"key.acl.name": "k1"}
    assert pii.versions[0].material.reveal() == bytes(range(32, 64))
    assert (k1.metadata.description, dict(k1.metadata.attributes), k1.metadata.versions) == (None, {}, 2)
    assert k1.metadata.cipher == "AES/CTR/NoPadding"
    assert k1.metadata.created_ms == 1795330661044
    assert [(version.number, version.material.reveal()) for version in k1.versions] == list(enumerate(K1))


def test_what_hadoop_wrote_comes_out_again_byte_for_byte(entries: tuple[JceksEntry, ...]) -> None:
    assert format_jceks(entries, PASSWORD) == FILE.read_bytes()
    for entry in entries:
        outer, _ = read_object(entry.sealed)
        assert write_object(outer) == entry.sealed
        inner = unseal(entry.sealed, PASSWORD, entry.alias)
        assert read_object(write_object(inner))[0] == inner


@pytest.mark.parametrize(
    ("salt", "content"),
    [
        ("0102030405060708", "2c499a14ed51257aa746ec7adff63907"),
        ("0102030401020304", "20c8c95740d5cec1adc8542b5b43cad3"),
    ],
    ids=["halves-differ", "halves-alike"],
)
def test_the_cipher_is_the_jdks(salt: str, content: str) -> None:
    # The content is JDK 17's own: `JceksKeys.java pbe 'correct horse' SALT 20 'a sealed text'`.
    cipher = jceks_seal._cipher(PASSWORD, jceks_seal._salt_halves(bytes.fromhex(salt))[0], 20)
    assert cipher.decryptor().update(bytes.fromhex(content)) == b"a sealed text\x03\x03\x03"


@pytest.mark.parametrize("way", [0, 1], ids=["new-jdk", "old-jdk"])
def test_a_salt_of_equal_halves_opens_as_new_and_as_old_jdks_sealed_with_it(
    way: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = jceks_seal._salt_halves(b"abcdabcd")
    assert ways == [(b"dcba", b"abcd"), (b"dabd", b"abcd")]
    with monkeypatch.context() as patch:
        patch.setattr("ringfence_agent.keystore.jceks.seal.secrets.token_bytes", lambda _count: b"abcdabcd")
        patch.setattr(jceks_seal, "_salt_halves", lambda _salt: [ways[way]])
        sealed = seal(version_of(b"k" * 16), PASSWORD, QUICK)
    assert unseal(sealed, PASSWORD, "k") == version_of(b"k" * 16)


@pytest.mark.parametrize("iterations", [1, 127, 128, 255, 10_000, 200_000, 5_000_000])
def test_rounds_survive_their_der_form(iterations: int) -> None:
    salt = bytes(range(8))
    assert jceks_seal._parse_parameters(jceks_seal._format_parameters(salt, iterations), "k") == (salt, iterations)


def test_a_wrong_password_is_one_sentence_with_the_places_hadoop_takes_it_from() -> None:
    with pytest.raises(InputError) as caught:
        parse_jceks(FILE.read_bytes(), Secret(b"none"), "the file")
    assert caught.value.message == "the file does not open: the password is wrong, or the file was changed"
    assert "HADOOP_KEYSTORE_PASSWORD" in (caught.value.hint or "")


@pytest.mark.parametrize("password", ["tab\there", "Fünf", "line\n"])
def test_a_password_java_would_not_seal_with_is_refused(password: str) -> None:
    with pytest.raises(InputError, match="printable ASCII"):
        check_password(Secret(password.encode()))


@pytest.mark.parametrize("at", range(0, 3000, 97))
def test_a_changed_byte_anywhere_is_noticed(at: int) -> None:
    data = bytearray(FILE.read_bytes())
    data[at] ^= 1
    with pytest.raises(InputError):
        parse_jceks(bytes(data), PASSWORD, "f")


@pytest.mark.parametrize("length", [0, 11, 31, 40, 500, 3000])
def test_a_file_cut_off_is_refused(length: int) -> None:
    with pytest.raises(InputError):
        parse_jceks(FILE.read_bytes()[:length], PASSWORD, "f")


@pytest.mark.parametrize(("data", "what"), [(b"\xfe\xed\xfe\xed" + b"0" * 40, "JKS"), (b"\x30\x82" * 20, "PKCS#12")])
def test_other_key_stores_of_java_are_named(data: bytes, what: str) -> None:
    with pytest.raises(InputError, match=what):
        parse_jceks(data, PASSWORD, "f")


def with_trailer(body: bytes) -> bytes:
    from ringfence_agent.keystore.jceks.provider import _integrity

    return body + _integrity(body, PASSWORD)


HEAD = b"\xce\xce\xce\xce\x00\x00\x00\x02"
ENTRY = b"\x00\x00\x00\x03\x00\x01k" + bytes(8)


@pytest.mark.parametrize(
    "make",
    [
        lambda sealed: HEAD + struct.pack(">I", 2) + ENTRY + sealed,
        lambda sealed: HEAD + struct.pack(">I", 2) + (ENTRY + sealed) * 2,
        lambda sealed: HEAD + struct.pack(">I", 0) + ENTRY + sealed,
        lambda sealed: HEAD + struct.pack(">I", 0xFFFFFFFF) + ENTRY + sealed,
        lambda sealed: HEAD + struct.pack(">I", 1) + b"\0\0\0\x01" + ENTRY[4:] + sealed,
        lambda sealed: HEAD + struct.pack(">I", 1) + ENTRY + sealed[:-1],
        lambda sealed: HEAD + struct.pack(">I", 1) + ENTRY + b"\xac\xed\x00\x05\x74\x00\x01k",
        lambda sealed: HEAD[:4] + b"\0\0\0\x01" + struct.pack(">I", 1) + ENTRY + sealed,
        lambda sealed: HEAD + struct.pack(">I", 1) + b"\0\0\0\x03\xff\xff" + ENTRY,
    ],
    ids=["fewer", "twice", "more", "endless", "private", "cut", "text", "version-1", "long-alias"],
)
def test_a_container_that_lies_is_refused_even_with_the_right_password(make: Callable[[bytes], bytes]) -> None:
    sealed = seal(version_of(b"k" * 16), PASSWORD, QUICK)
    with pytest.raises(InputError):
        parse_jceks(with_trailer(make(sealed)), PASSWORD, "f")


def test_only_the_five_classes_are_read() -> None:
    good = write_object(version_of(b"k" * 16))
    for hostile in (
        good.replace(b"javax.crypto.spec.SecretKeySpec", b"java.crypto.spec.EvilKeySpecXyz"),
        good.replace(struct.pack(">q", 6577238317307289933), struct.pack(">q", 1)),
        good.replace(b"\x02\x00\x02L", b"\x03\x00\x02L"),
        good.replace(b"algorithm", b"algorythm"),
    ):
        assert hostile != good
        with pytest.raises(InputError):
            read_object(hostile)


def test_an_array_longer_than_the_stream_takes_no_memory() -> None:
    good = write_object(version_of(b"k" * 16))
    with pytest.raises(InputError, match="cut off"):
        read_object(good.replace(struct.pack(">i", 16) + b"k", struct.pack(">i", 0x7FFFFFFF) + b"k"))
    with pytest.raises(InputError, match="cut off"):
        read_object(good.replace(struct.pack(">i", 16) + b"k", struct.pack(">i", -1) + b"k"))


@settings(max_examples=300)
@given(st.data())
def test_no_damage_leads_to_anything_but_a_refusal(data: st.DataObject) -> None:
    stream = bytearray(
        write_object(metadata_of(GOOD * 4)) if data.draw(st.booleans()) else seal(version_of(b"k" * 16), PASSWORD, 2)
    )
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(4, len(stream) - 1))] = data.draw(st.integers(0, 255))
    try:
        found, end = read_object(bytes(stream[: data.draw(st.integers(1, len(stream)))]))
        if found.class_name == SEALED and len(found.values["encodedParams"]) < 30:
            jceks_seal._parse_parameters(bytes(found.values["encodedParams"]), "k")  # type: ignore[arg-type]
    except InputError:
        return
    assert end <= len(stream)


@given(st.text())
def test_text_survives_javas_own_utf_8(text: str) -> None:
    encoded = modified_utf8(text)
    assert b"\0" not in encoded
    assert from_modified_utf8(encoded) == text


def test_rounds_beyond_javas_bound_are_refused() -> None:
    sealed = seal(version_of(b"k" * 16), PASSWORD, QUICK)
    der = jceks_seal._format_parameters(bytes(8), QUICK)
    hostile = write_object(JavaObject(SEALED, {**read_object(sealed)[0].values, "encodedParams": der[:-1] + b"\x7f"}))
    with pytest.raises(InputError):  # another salt, and no such key
        unseal(hostile, PASSWORD, "k")
    long = jceks_seal._format_parameters(bytes(8), 0x7FFFFFFF)
    with pytest.raises(InputError, match="rounds"):
        unseal(
            write_object(JavaObject(SEALED, {**read_object(sealed)[0].values, "encodedParams": long})), PASSWORD, "k"
        )


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        GOOD.replace(b"128", b'"128"'),
        GOOD.replace(b'"versions":1', b'"versions":0'),
        GOOD.replace(b'"versions":1', b'"versions":true'),
        GOOD.replace(b"128", b"1e400"),
    ],
)
def test_metadata_that_is_none_names_the_key(text: bytes) -> None:
    damaged = quick_file(("k", metadata_of(text)), ("k@0", version_of(b"m" * 16)))
    with pytest.raises(InputError, match="key k"):
        read_keys(damaged, PASSWORD, {}, ignore)


@pytest.mark.parametrize("numbers", [(), (1,), (0, 2), (0, 1, 3)], ids=str)
def test_missing_versions_name_the_key_and_what_is_there(numbers: tuple[int, ...]) -> None:
    claimed = metadata_of(GOOD.replace(b'"versions":1', b'"versions":3'))
    file = quick_file(("k", claimed), *((f"k@{number}", version_of(b"m" * 16)) for number in numbers))
    with pytest.raises(InputError, match="key k says that it has 3 versions"):
        read_keys(file, PASSWORD, {}, ignore)


def test_a_key_recreated_in_ringfence_begins_where_it_begins() -> None:
    claimed = metadata_of(GOOD.replace(b'"versions":1', b'"versions":3'))
    [key] = read_keys(quick_file(("k", claimed), ("k@2", version_of(b"m" * 16))), PASSWORD, {}, ignore)
    assert [version.number for version in key.versions] == [2]


def test_material_of_another_length_names_the_version() -> None:
    file = quick_file(("k", metadata_of(GOOD)), ("k@0", version_of(b"m" * 32)))
    with pytest.raises(InputError, match="version 0 of key k has 256 bits"):
        read_keys(file, PASSWORD, {}, ignore)


def test_an_entry_of_keytools_is_told_from_a_key() -> None:
    with pytest.raises(InputError, match="keytool"):
        read_keys(quick_file(("k", version_of(b"m" * 16))), PASSWORD, {}, ignore)


def test_a_key_whose_name_looks_like_a_version_is_a_key() -> None:
    file = quick_file(("a@1", metadata_of(GOOD)), ("a@1@0", version_of(b"m" * 16)))
    assert [key.metadata.name for key in read_keys(file, PASSWORD, {}, ignore)] == ["a@1"]


def test_keys_of_a_receipt_are_neither_opened_nor_sealed_again(
    entries: tuple[JceksEntry, ...], keys: tuple[ImportedKey, ...]
) -> None:
    receipt = receipt_of(entries)
    assert read_keys(entries, PASSWORD, receipt, ignore) == ()
    again = make_entries(stored(keys), PASSWORD, {entry.alias: entry for entry in entries}, receipt, ignore)
    assert sorted(entry.digest for entry in again) == sorted(receipt.values())


def test_a_key_with_an_entry_the_receipt_does_not_know_is_opened(entries: tuple[JceksEntry, ...]) -> None:
    receipt = {alias: digest for alias, digest in receipt_of(entries).items() if alias != "k1@1"}
    assert [key.metadata.name for key in read_keys(entries, PASSWORD, receipt, ignore)] == ["k1"]


def test_entries_the_receipt_does_not_know_are_sealed_afresh(
    entries: tuple[JceksEntry, ...], keys: tuple[ImportedKey, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed_rounds: list[int] = []

    def quick_seal(inner: JavaObject, password: Secret) -> bytes:
        sealed_rounds.append(1)
        return seal(inner, password, QUICK)

    monkeypatch.setattr("ringfence_agent.keystore.jceks.keys.seal", quick_seal)
    carried = {entry.alias: entry for entry in entries}
    made = make_entries(stored(keys), PASSWORD, carried, {"k1@0": carried["k1@0"].digest}, ignore)
    assert len(sealed_rounds) == 4
    assert {entry.alias for entry in made} == {"k1", "k1@0", "k1@1", "data.pii", "data.pii@0"}
    back = read_keys(parse_jceks(format_jceks(made, PASSWORD), PASSWORD, "f"), PASSWORD, {}, ignore)
    assert stored(back) == stored(keys)


def test_names_that_java_would_mix_up_are_refused(keys: tuple[ImportedKey, ...]) -> None:
    from dataclasses import replace

    [_, k1] = stored(keys)
    upper = StoredKey(replace(k1.metadata, name="K1"), ())
    other = StoredKey(replace(k1.metadata, name="aB"), ())
    with pytest.raises(InputError, match=r"capital letters .*: K1, aB$"):
        make_entries([k1, other, upper], PASSWORD, {}, {}, ignore)
    clash = StoredKey(replace(k1.metadata, name="k1@0"), ())
    with pytest.raises(InputError, match="one entry"):
        make_entries([k1, clash], PASSWORD, {}, {}, ignore)
