from __future__ import annotations

import io

import pytest

from ringfence_agent.keystore.backup.records import MalformedRecordError, Record, encode_record, read_records

ROWS = [
    Record("zone_key", ("pii", 256, -1, None, "", b"\x00\xff", "snowman ☃")),
    Record("store_header", (b"",)),
    Record("canary", ()),
]


def read(data: bytes) -> list[Record]:
    return [record for _, record in read_records(io.BytesIO(data))]


def test_what_is_written_is_read_back_type_for_type() -> None:
    data = b"".join(map(encode_record, ROWS))
    assert read(data) == ROWS
    assert b"".join(encoded for encoded, _ in read_records(io.BytesIO(data))) == data


def test_every_cut_and_every_changed_length_is_refused() -> None:
    data = encode_record(ROWS[0])
    for cut in range(1, len(data)):
        with pytest.raises(MalformedRecordError):
            read(data[:cut])
    for place in range(4):
        changed = bytearray(data)
        changed[place] ^= 0x80
        with pytest.raises(MalformedRecordError):
            read(bytes(changed))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x\0\0\0\0",
        b"i\0\0\0\x08" + bytes(8),
        b"t\0\0\0\x01\xff",
        b"t\0\0\0\x01ai\0\0\0\x01\x00",
        b"t\0\0\0\x01an\0\0\0\x01\x00",
        b"t\0\0\0\x02a",
        b"t\0\0",
    ],
)
def test_what_the_encoding_never_writes_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedRecordError):
        read(len(body).to_bytes(4, "big") + body)


def test_a_length_beyond_the_bound_is_not_read() -> None:
    class Endless(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert size is not None and size <= 64 * 1024 * 1024
            return super().read(size)

    with pytest.raises(MalformedRecordError):
        list(read_records(Endless(b"\xff\xff\xff\xff" + bytes(100))))
