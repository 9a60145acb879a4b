"""What is fuzzed: everything that reads bytes from somebody who was not asked for them, or from a file.

A check takes any bytes. Errors of Ringfence's own tree are an answer; every other exception, a wrong round trip, and an
input that takes a second are findings.
"""

from __future__ import annotations

import atexit
import base64
import io
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ringfence_agent.doctor import keytab
from ringfence_agent.http import reader
from ringfence_agent.http.limits import Limits
from ringfence_agent.http.request import Peer, Request
from ringfence_agent.http.response import Response, ResponseHead
from ringfence_agent.http.service import HttpService
from ringfence_agent.keystore import held
from ringfence_agent.keystore.backup import canary, file_format
from ringfence_agent.keystore.backup import records as backup_records
from ringfence_agent.keystore.jceks import java_objects
from ringfence_agent.keystore.jceks import provider as jceks
from ringfence_agent.keystore.jceks import seal as jceks_seal
from ringfence_agent.kms import routes
from ringfence_agent.kms.authentication import cookie, delegation_token
from ringfence_agent.kms.authorization import acls
from ringfence_agent.spnego import auth_to_local, negotiate
from ringfence_agent.vault import transit_wire
from ringfence_agent.vault.connection import Answer, NoAnswerError
from ringfence_zones import access_list, hadoop_conf, hadoop_xml, kms_wire
from ringfence_zones.errors import RingfenceError
from ringfence_zones.hadoop_conf import HadoopConf
from ringfence_zones.secret import Secret


@dataclass(frozen=True)
class Target:
    """`words` are what inputs are made of; `modules` those whose lines count."""

    name: str
    check: Callable[[bytes], None]
    modules: tuple[ModuleType, ...]
    words: Sequence[bytes] = ()

    @property
    def files(self) -> frozenset[str]:
        """The source files of the modules."""
        return frozenset(module.__file__ for module in self.modules if module.__file__ is not None)


# -- HTTP: however the bytes are cut, the same requests come out


def check_http(data: bytes) -> None:
    whole = _requests(data[at : at + reader.SLICE_BYTES] for at in range(0, len(data), reader.SLICE_BYTES))
    single = _requests(data[at : at + 1] for at in range(len(data)))
    assert whole == single, "cut into single bytes, other requests come out"


def _requests(pieces: Iterable[bytes]) -> list[object]:
    outcome: list[object] = []

    def take(request: Request) -> None:
        fields = (request.method, request.raw_path, request.raw_query, dict(request.headers), request.body)
        outcome.append((*fields, request.keep_alive))

    service = HttpService(lambda _request: Response(ResponseHead(200)), Limits(body_bytes=1000, header_count=20))
    made = reader.RequestReader(service, Peer("127.0.0.1"), take)
    try:
        for piece in pieces:
            made.feed(piece)
    except reader.RefusedRequestError:
        # Why may differ: of two faults, the one seen first depends on where the bytes were cut.
        outcome.append("refused")
    assert 0 <= service.held_body_bytes <= 1000
    return _until_the_end(outcome)


def _until_the_end(outcome: list[object]) -> list[object]:
    for count, one in enumerate(outcome, 1):
        if isinstance(one, tuple) and not one[-1]:
            return outcome[:count]
    return outcome


# -- tokens, cookies, SPNEGO


def check_token(data: bytes) -> None:
    # The first byte says whether the rest is the base64 or what the base64 holds: few mutations of base64 mean much.
    text = data[1:] if data[:1] == b"t" else base64.urlsafe_b64encode(data[1:]).rstrip(b"=")
    with suppress(RingfenceError):
        token, identifier = delegation_token.decode_url(text)
        again, same = delegation_token.decode_url(token.encode_url().encode())
        assert (again, same) == (token, identifier)
        assert delegation_token.decode_url(
            delegation_token.Token(identifier.encode(), token.password, token.kind, token.service).encode_url().encode()
        )[1] == identifier  # fmt: skip


_SIGNER = cookie.CookieSigner(cookie.RollingSecrets(Secret(b"s" * 32), 36_000), "simple-dt", 36_000, lambda: 1_000_000)
COOKIE = _SIGNER.sign("alice", "alice")[0].encode()


def check_cookie(data: bytes) -> None:
    # `@` stands for a genuine cookie, so that mutations happen around one.
    value = cookie.find_cookie_value(data.replace(b"@", COOKIE))
    if value is not None:
        session = _SIGNER.find_session(value)
        assert session is None or (session.user == "alice" and value.encode("utf-8", "surrogateescape") == COOKIE)


def check_spnego(data: bytes) -> None:
    token = negotiate.find_token(data)
    # The last character may hold bits that mean nothing.
    assert token is None or base64.b64encode(token).rstrip(b"=")[:-1] in data


_NAMES = auth_to_local.AuthToLocal(
    r"RULE:[1:$1@$0](.*@OTHER)s/@.*// RULE:[2:$1;$2](h.*;.*)s/;.*$/x/L RULE:[2:$1](nn|dn)s/.*/hdfs/ DEFAULT",
    "EXAMPLE.COM",
)


def check_principal(data: bytes) -> None:
    with suppress(RingfenceError):
        short = _NAMES.short_name(data.decode("utf-8", "surrogateescape"))
        assert not set("/@") & set(short)


# -- Hadoop's files and lists

_DIRECTORY = Path(tempfile.mkdtemp(prefix="ringfence-fuzz-"))
atexit.register(shutil.rmtree, _DIRECTORY, ignore_errors=True)


def _in_file(name: str, data: bytes) -> Path:
    path = _DIRECTORY / name
    path.write_bytes(data)
    return path


def check_hadoop_xml(data: bytes) -> None:
    _in_file("x-site.xml", data)
    conf, found = None, None
    with suppress(RingfenceError):
        conf = hadoop_conf.read_hadoop_conf(_DIRECTORY, "x-site.xml")
        for name in conf:
            conf.find_untrimmed(name)
    with suppress(RingfenceError):
        found = hadoop_xml.read_properties(data)
        hadoop_xml.property_lines(data)
    if conf is not None and found is not None:
        for name, each in found.items():
            if each.value and "${" not in each.value:
                assert conf.find_untrimmed(name) == each.value, f"reader and editor differ on {name!r}"
    with suppress(RingfenceError):
        edited = hadoop_xml.set_properties(data, {"a.b": "v&<", "c.d": " "})
        again = hadoop_xml.read_properties(edited)
        assert (again["a.b"].value, again["c.d"].value) == ("v&<", " ")
        assert found is not None and {name for name in found if name not in again} == set()


def check_acl(data: bytes) -> None:
    name, _, text = data.decode("utf-8", "replace").partition("=")
    listed = access_list.parse_access_list(text)
    listed.admits("alice", lambda _: frozenset({"staff"}), "oozie")
    with suppress(ValueError):
        assert access_list.parse_access_list(listed.to_text()) == listed
    conf = HadoopConf({hadoop_conf.trim(name): text, "default.key.acl.READ": "*"})
    acls.find_ineffective(conf)
    read = acls.read_acls(conf)
    for operation in acls.Operation:
        read.decide_operation(operation, "alice", lambda _: frozenset())
    for key_operation in acls.KeyOperation:
        decision = read.decide_key("k", key_operation, "alice", lambda _: frozenset())
        # Only the key's own ALL gives ALL, and only READ has a default here.
        assert not decision.allowed or "key.acl.k." in decision.rule or key_operation.value in decision.rule


# -- the KMS's JSON and paths

_DECODERS: tuple[Callable[[bytes], object], ...] = (
    kms_wire.decode_create_key,
    kms_wire.decode_roll_key,
    kms_wire.decode_open_eek,
    kms_wire.decode_eek_list,
    kms_wire.decode_publish,
    kms_wire.decode_key_version,
    kms_wire.decode_key_versions,
    kms_wire.decode_names,
    kms_wire.decode_metadata,
    kms_wire.decode_metadata_list,
    kms_wire.decode_remote_exception,
)


def check_json(data: bytes) -> None:
    for decode in _DECODERS:
        with suppress(RingfenceError):
            decode(data)
    with suppress(RingfenceError):
        body = kms_wire.decode_open_eek(data)
        for text in (body.iv, body.material):
            if text is not None:
                raw = kms_wire.decode_base64(text)
                assert kms_wire.decode_base64(kms_wire.encode_base64(raw)) == raw
    with suppress(RingfenceError):
        assert len(kms_wire.decode_iv(data.decode("utf-8", "replace"))) == 16


def check_route(data: bytes) -> None:
    path, _, query = data.partition(b"?")
    router = routes.Router()
    for _ in range(2):  # the second time from memory
        with suppress(RingfenceError):
            route = router.find_route(path)
            assert route is None or len(route.name) <= routes.MAX_NAME_CHARS
        with suppress(RingfenceError):
            router.query(query)


# -- Java's and Kerberos's files


def check_jceks(data: bytes) -> None:
    password = Secret(b"none")
    # Sealed anew, so that mutations reach what lies behind the checksum.
    for whole in (data, data + jceks._integrity(data, password)):
        with suppress(RingfenceError):
            entries = jceks.parse_jceks(whole, password, "it")
            assert jceks.parse_jceks(jceks.format_jceks(entries, password), password, "it") == entries
    with suppress(RingfenceError):
        java_objects.read_object(data)
    with suppress(RingfenceError):
        text = java_objects.from_modified_utf8(data)
        assert java_objects.from_modified_utf8(java_objects.modified_utf8(text)) == text
    with suppress(RingfenceError):
        jceks_seal._parse_parameters(data, "it")


def check_keytab(data: bytes) -> None:
    with suppress(RingfenceError):
        keytab.read_keytab(_in_file("keytab", data))


# -- a backup, which a thief may have changed


def check_backup(data: bytes) -> None:
    # With a manifest made for it, so that mutations reach what lies behind the digest.
    for whole in (data, _with_manifest(data)):
        with suppress(RingfenceError):
            backup = file_format.BackupFile(io.BytesIO(whole), "it")
            found = list(backup.records())
            assert whole.endswith(b"\n" + b"".join(map(backup_records.encode_record, found)))
            for record in found:
                with suppress(backup_records.MalformedRecordError):
                    assert canary.canary_record(canary.canary_of(record)) == record._replace(kind=canary.KIND)


def _with_manifest(body: bytes) -> bytes:
    digest = file_format.BodyDigest()
    with suppress(backup_records.MalformedRecordError):
        for encoded, record in backup_records.read_records(io.BytesIO(body)):
            digest.add(record.kind, encoded)
    numbers = {"made_ms": 1, "store_created_ms": 1, "schema_version": 3, "change_number": 1, "policy_revision": 0}
    manifest = file_format.Manifest(
        product="p",
        source="s",
        store_id="ab" * 16,
        protector="slots",
        protector_header="",
        columns={},
        rows=digest.rows,
        body_bytes=digest.body_bytes,
        sha256=digest.sha256,
        **numbers,
    )
    whole = io.BytesIO()
    file_format.write_file(whole, manifest, Secret(bytes(32)), io.BytesIO(body))
    return whole.getvalue()


# -- custody transit: EDEKs that clients send, ciphertexts and answers of Vault, the place that rests in a store


def check_transit(data: bytes) -> None:
    version = int.from_bytes(data[2:6], "big")
    with suppress(RingfenceError):
        assert transit_wire.edek_from(transit_wire.ciphertext_in(data, "k@0", version)) == data
    with suppress(ValueError):
        text = data.decode()
        assert transit_wire.TransitCiphertext.parse(text).text.decode() == text
    with suppress(ValueError):
        assert held.TransitVersion.from_bytes(data).to_bytes() == data
    for operation in transit_wire.Operation:
        for status in (200, 400, 500):
            with suppress(NoAnswerError):
                found = transit_wire.read_answer(operation, 1, Answer(status, data))
                assert not isinstance(found, list) or len(found) == 1


TARGETS = (
    Target(
        "http",
        check_http,
        (reader,),
        (
            b"GET ",
            b" HTTP/1.1\r\n",
            b"Host: h\r\n",
            b"\r\n",
            b"\r\n\r\n",
            b"Content-Length: ",
            b"Transfer-Encoding: chunked\r\n",
            b"Expect: 100-continue\r\n",
            b"Connection: close\r\n",
            b"0\r\n\r\n",
            b"Upgrade: h2c\r\n",
        ),
    ),
    Target(
        "token", check_token, (delegation_token,), (b"kms-dt", b"KMS_DELEGATION_TOKEN", b"\x00", b"\x8f", b"\x87", b"t")
    ),
    Target("cookie", check_cookie, (cookie,), (b"hadoop.auth=", b'"', b"@", b"; ", b"&s=", b"u=", b"&e=", b"&i=")),
    Target("spnego", check_spnego, (negotiate,), (b"Negotiate ", b"negotiate", b"YII=", b", ", b"=")),
    Target(
        "principal", check_principal, (auth_to_local,), (b"@EXAMPLE.COM", b"@OTHER", b"nn/", b"h", b"/", b"@", b"\xff")
    ),
    Target(
        "hadoop_xml",
        check_hadoop_xml,
        (hadoop_conf, hadoop_xml),
        (
            b"<configuration>",
            b"</configuration>",
            b"<property>",
            b"</property>",
            b"<name>",
            b"</name>",
            b"<value>",
            b"</value>",
            b"<final>true</final>",
            b"a.b",
            b"<!--",
            b"-->",
            b"<![CDATA[",
            b"]]>",
            b"${a.b}",
            b"${",
            b"&lt;",
            b"<value/>",
            b"/>",
            b' name="a.b"',
            b'<?xml version="1.0"?>',
        ),
    ),
    Target(
        "acl",
        check_acl,
        (access_list, acls),
        (
            b"key.acl.k.READ=",
            b"key.acl.",
            b"default.key.acl.ALL=",
            b"*",
            b" ",
            b",",
            b"~",
            b"hadoop.kms.acl.GET=",
            b"hadoop.kms.blacklist.",
            b"whitelist.key.acl.READ",
            b"alice",
            b"${",
            b"\n",
            b"\xc2\xa0",
        ),
    ),
    Target(
        "json",
        check_json,
        (kms_wire,),
        (
            b'{"name":',
            b'"iv":"',
            b'"material":"',
            b'"versionName":"EEK"',
            b"null",
            b"[",
            b"]",
            b"}",
            b'"encryptedKeyVersion":{',
            b'"length":',
            b'"attributes":{',
            b'"RemoteException":',
            b"AAAAAAAAAAAAAAAAAAAAAA",
            b"\\u0000",
            b'"expected_revision":',
            b'"policy":',
        ),
    ),
    Target(
        "route",
        check_route,
        (routes,),
        (
            b"/kms/v1/key/",
            b"/_eek",
            b"/kms/v1/keyversion/",
            b"?eek_op=",
            b"%2F",
            b"%00",
            b"%",
            b"&doAs=",
            b"user.name=",
            b"&op=",
            b"+",
            b"/ringfence/v1/policy",
            b"/ringfence/v1/key/",
            b"/_undelete",
            b"/kms/v1/keys/metadata?key=",
        ),
    ),
    Target(
        "jceks",
        check_jceks,
        (jceks, java_objects, jceks_seal),
        (
            b"\xce\xce\xce\xce\x00\x00\x00\x02",
            b"\xac\xed\x00\x05",
            b"sr",
            b"\x00\x00\x00\x03",
            b"javax.crypto.SealedObject",
            b"PBEWithMD5AndTripleDES",
            b"xp",
            b"0\x0d\x04\x08",
            b"\xc0\x80",
            b"\xed\xa0\x80",
        ),
    ),
    Target(
        "keytab", check_keytab, (keytab,), (b"\x05\x02", b"\x00\x00\x00", b"HTTP", b"\x00\x04", b"\xff\xff\xff\xfe")
    ),
    Target(
        "backup",
        check_backup,
        (file_format, backup_records, canary),
        (
            b"ringfence keystore backup 1\n",
            b"\n",
            b"t\x00\x00\x00\x06canary",
            b"t\x00\x00\x00\x08zone_key",
            b"i\x00\x00\x00\x08",
            b"n\x00\x00\x00\x00",
            b"b\x00\x00\x00\x20",
            b"\x00\x00\x00\x10",
            b"\xff\xff\xff\xff",
            b'"rows":{',
            b'"sha256":"',
        ),
    ),
    Target(
        "transit",
        check_transit,
        (transit_wire, held),
        (b"\xee\x01", b"vault:v1:", b'{"batch_results":[', b'"plaintext":"', b'"ciphertext":"', b'"error":"', b"z-"),
    ),
)
