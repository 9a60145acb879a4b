"""The first inputs of each target, written by hand; what fuzzing found since lies in `corpus/`."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from ringfence_agent.kms.authentication.delegation_token import Token, TokenIdentifier

CORPUS = Path(__file__).with_name("corpus")
_JCEKS = Path(__file__).parents[1] / "vectors/jceks/hadoop-3.4.2.jceks"
_BACKUP = Path(__file__).parents[1] / "vectors/keystore_backup_1.rfbackup"
_IDENTIFIER = TokenIdentifier("alice", "yarn/rm@EX", "oozie", 1_700_000_000_000, 1_700_600_000_000, 7, 300).encode()
_TOKEN = bytes([len(_IDENTIFIER)]) + _IDENTIFIER + b"\x04pass\x06kms-dt\x00"
_EEK = {"name": "k", "iv": "AAAAAAAAAAAAAAAAAAAAAA", "material": "AAAAAAAAAAAAAAAAAAAAAA"}
_GET = b"GET /kms/v1/key/k/_eek?eek_op=generate HTTP/1.1\r\nHost: h\r\nCookie: a=b\r\n\r\n"


def _keytab_entry() -> bytes:
    def text(value: bytes) -> bytes:
        return struct.pack(">H", len(value)) + value

    data = struct.pack(">H", 2) + text(b"EX") + text(b"HTTP") + text(b"h")
    data += struct.pack(">IIBHH", 1, 0, 1, 18, 4) + b"key!" + struct.pack(">I", 1)
    return struct.pack(">i", len(data)) + data


_RESULT = {"plaintext": "AAAA", "ciphertext": "vault:v1:" + "A" * 80, "reference": ""}

_SEEDS: dict[str, tuple[bytes, ...]] = {
    "transit": (
        b"\xee\x01" + (7).to_bytes(4, "big") + bytes(60),
        b"vault:v7:" + b"A" * 80,
        (3).to_bytes(4, "big") + b"z-" + b"a" * 26,
        json.dumps({"data": {"batch_results": [_RESULT]}, "errors": None}).encode(),
        json.dumps({"errors": ["invalid ciphertext: version is too new"], "data": {"batch_results": None}}).encode(),
    ),
    "http": (
        _GET * 3,
        b"POST /kms/v1/keys HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nabcd" * 2,
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\nT: 1\r\n\r\n" + _GET,
        b"PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab",
    ),
    "token": (b"b" + _TOKEN, b"t" + Token(_IDENTIFIER, b"p" * 20).encode_url().encode()),
    "cookie": (b"hadoop.auth=@", b'a=b; hadoop.auth="@"; c=d', b"hadoop.auth=u=alice&p=alice&t=simple-dt&e=99&s=xxxx"),
    "spnego": (b"Negotiate YIIBAA==", b"negotiate  YII=", b"Basic YTpi"),
    "principal": (b"alice@EXAMPLE.COM", b"nn/host.example.com@EXAMPLE.COM", b"bob@OTHER", b"HTTP/h@EXAMPLE.COM"),
    "hadoop_xml": (
        b"<configuration><property><name>a.b</name><value>1</value><final>true</final></property></configuration>",
        b'<?xml version="1.0"?>\n<configuration>\n<!---->\n<property name="a.b" value="${c.d}"/>\n</configuration>\n',
    ),
    "acl": (b"hadoop.kms.acl.GET=alice,bob staff,ops", b"key.acl.k.READ= staff", b"default.key.acl.ALL=*", b"x=~oozie"),
    "json": (
        json.dumps(_EEK).encode(),
        json.dumps(
            [{"versionName": "k@0", "iv": _EEK["iv"], "encryptedKeyVersion": {**_EEK, "versionName": "EEK"}}]
        ).encode(),
        json.dumps({"name": "k", "cipher": "AES/CTR/NoPadding", "length": 128, "attributes": {"a": "b"}}).encode(),
        b'{"expected_revision":1,"policy":{"version":1}}',
        b'{"RemoteException":{"message":"m","exception":"E","javaClassName":"a.E"}}',
    ),
    "route": (
        b"/kms/v1/key/a%2Fb/_eek?eek_op=generate&num_keys=5",
        b"/kms/v1/keyversion/k%400/_eek?eek_op=decrypt&doAs=x",
    ),
    "jceks": (_JCEKS.read_bytes()[:-20],),
    "keytab": (b"\x05\x02" + _keytab_entry() * 2,),
    "backup": (_BACKUP.read_bytes(), _BACKUP.read_bytes().split(b"\n", 3)[3]),
}


def seeds_of(target: str) -> list[bytes]:
    """Those by hand, then the kept corpus, in the order of their names."""
    return [*_SEEDS[target], *(path.read_bytes() for path in corpus_files(target))]


def corpus_files(target: str) -> list[Path]:
    """The kept inputs of a target."""
    return sorted((CORPUS / target).glob("*"))
