"""EDEKs over the wire: generate, decrypt, re-encrypt, batch; byte for byte as Hadoop's vectors have it."""

from __future__ import annotations

import base64
import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from http_serving import Answer, RawClient
from kms_serving import RunningKms, call, json_of, remote_exception_of

IO = "java.io.IOException"
ILLEGAL = "java.lang.IllegalArgumentException"
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "eek.json").read_text())["vectors"]
_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    return f"eek{next(_numbers)}-{os.getpid()}"


def standard(data: bytes) -> str:
    return base64.b64encode(data).decode()


def url_safe(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def raw(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "==")


def create(client: RawClient, name: str, material: bytes) -> None:
    body = {"name": name, "length": len(material) * 8, "material": standard(material)}
    assert call(client, "POST", "/kms/v1/keys", body).status == 201


def generate(client: RawClient, name: str, count: int | str | None = None) -> Answer:
    query = {"eek_op": "generate", **({"num_keys": str(count)} if count is not None else {})}
    return call(client, "GET", f"/kms/v1/key/{name}/_eek", query=query)


def open_eek(client: RawClient, version: str, body: object, eek_op: str = "decrypt") -> Answer:
    return call(client, "POST", f"/kms/v1/keyversion/{version}/_eek", body, query={"eek_op": eek_op})


def decrypt(client: RawClient, name: str, eek: dict[str, Any]) -> bytes:
    body = {"name": name, "iv": eek["iv"], "material": eek["encryptedKeyVersion"]["material"]}
    answer = json_of(open_eek(client, eek["versionName"].replace("@", "%40"), body))
    assert (answer["name"], answer["versionName"]) == (name, "EK")
    return raw(answer["material"])


@pytest.mark.parametrize("vector", VECTORS)
@pytest.mark.parametrize("encode", [standard, url_safe])
def test_hadoops_vectors_decrypt_on_every_worker(
    kms: RunningKms, name: str, vector: dict[str, str], encode: Any
) -> None:
    create(kms.one_worker(), name, bytes.fromhex(vector["kek"]))
    body = {
        "name": name,
        "iv": encode(bytes.fromhex(vector["iv"])),
        "material": encode(bytes.fromhex(vector["edek"])),
    }
    dek = url_safe(bytes.fromhex(vector["dek"]))
    for client in kms.every_worker():
        answer = open_eek(client, f"{name}%400", body)
        assert answer.body == f'{{"name":"{name}","versionName":"EK","material":"{dek}"}}'.encode()


def test_hadoops_vector_reencrypts_alone_and_in_a_batch(kms: RunningKms, name: str) -> None:
    vector, client = VECTORS[0], kms.one_worker()
    create(client, name, bytes.fromhex(vector["kek"]))
    call(client, "POST", f"/kms/v1/key/{name}", {"material": standard(bytes.fromhex(vector["new_kek"]))})
    iv, edek = bytes.fromhex(vector["iv"]), bytes.fromhex(vector["edek"])
    expected = {
        "versionName": f"{name}@1",
        "iv": url_safe(iv),
        "encryptedKeyVersion": {
            "name": name,
            "versionName": "EEK",
            "material": url_safe(bytes.fromhex(vector["reencrypted"])),
        },
    }
    single = {"name": name, "iv": standard(iv), "material": standard(edek)}
    assert json_of(open_eek(client, f"{name}%400", single, "reencrypt")) == expected
    old = {
        "versionName": f"{name}@0",
        "iv": url_safe(iv),
        "encryptedKeyVersion": {"name": None, "versionName": "EEK", "material": url_safe(edek)},
    }
    for other in kms.every_worker():
        # The second is of the current version already: it comes back as it was.
        answer = call(other, "POST", f"/kms/v1/key/{name}/_reencryptbatch", [old, expected])
        assert json_of(answer) == [expected, expected]


@pytest.mark.parametrize("count", [1, 150, 351, 500, 1000])
@pytest.mark.parametrize("key_bytes", [16, 32])
def test_generate_makes_as_many_edeks_as_asked_and_all_open(
    kms: RunningKms, name: str, count: int, key_bytes: int
) -> None:
    workers = kms.every_worker()
    create(workers[0], name, os.urandom(key_bytes))
    eeks = json_of(generate(workers[-1], name, count))
    assert len(eeks) == count == len({eek["iv"] for eek in eeks})
    for eek in (eeks[0], eeks[-1]):
        assert set(eek) == {"versionName", "iv", "encryptedKeyVersion"}
        assert len(raw(eek["iv"])) == 16
        assert len(raw(eek["encryptedKeyVersion"]["material"])) == key_bytes
        deks = {decrypt(client, name, eek) for client in workers}
        assert len(deks) == 1
        assert len(deks.pop()) == key_bytes


def test_generate_takes_one_by_default_and_none_for_zero_or_less(kms: RunningKms, name: str) -> None:
    client = kms.one_worker()
    create(client, name, os.urandom(16))
    assert len(json_of(generate(client, name))) == 1
    assert generate(client, name, 0).body == b"[]"
    assert generate(client, name, -5).body == b"[]"


def test_an_old_version_still_opens_after_a_roll_and_a_batch_moves_it_on(kms: RunningKms, name: str) -> None:
    workers = kms.every_worker()
    create(workers[0], name, os.urandom(32))
    eeks = json_of(generate(workers[0], name, 700))
    deks = [decrypt(workers[0], name, eek) for eek in eeks[:5]]
    call(workers[0], "POST", f"/kms/v1/key/{name}", b"{}")
    moved = json_of(call(workers[-1], "POST", f"/kms/v1/key/{name}/_reencryptbatch", eeks))
    assert len(moved) == 700
    assert [eek["iv"] for eek in moved] == [eek["iv"] for eek in eeks]
    assert {eek["versionName"] for eek in moved} == {f"{name}@1"}
    for client in workers:
        assert [decrypt(client, name, eek) for eek in moved[:5]] == deks
        assert [decrypt(client, name, eek) for eek in eeks[:5]] == deks


def test_a_tombstoned_keys_edek_fails_clearly_after_the_key_is_made_again(kms: RunningKms, name: str) -> None:
    client = kms.one_worker()
    create(client, name, os.urandom(16))
    (eek,) = json_of(generate(client, name))
    call(client, "DELETE", f"/kms/v1/key/{name}")
    create(client, name, os.urandom(16))
    body = {"name": name, "iv": eek["iv"], "material": eek["encryptedKeyVersion"]["material"]}
    for other in kms.every_worker():
        answer = open_eek(other, f"{name}%400", body)
        assert remote_exception_of(answer) == (400, ILLEGAL, f"'{name}@0' not found")


def test_errors_of_generate_have_hadoops_classes(kms: RunningKms, name: str) -> None:
    client = kms.one_worker()
    create(client, name, os.urandom(16))
    # As IllegalArgumentException a missing key would kill the NameNode's warm-up thread.
    assert remote_exception_of(generate(client, "absent")) == (500, IO, "No KeyVersion exists for key 'absent'")
    assert remote_exception_of(generate(client, name, 1001)) == (
        400,
        ILLEGAL,
        "num_keys=1001 is more than the 1000 EDEKs that one call makes: ask again",
    )
    assert remote_exception_of(generate(client, name, "x"))[:2] == (400, ILLEGAL)
    assert len(json_of(generate(client, name, ""))) == 1  # as if it were not there
    missing = call(client, "GET", f"/kms/v1/key/{name}/_eek")
    assert remote_exception_of(missing) == (400, ILLEGAL, "Parameter 'eekOp' cannot be null")
    wrong = call(client, "GET", f"/kms/v1/key/{name}/_eek", query={"eek_op": "decrypt"})
    message = "IllegalArgumentException Wrong eek_op value, it must be generate or decrypt"
    assert remote_exception_of(wrong) == (400, ILLEGAL, message)


def test_errors_of_decrypt_have_hadoops_classes(kms: RunningKms, name: str) -> None:
    client = kms.one_worker()
    create(client, name, os.urandom(16))
    good = {"name": name, "iv": standard(bytes(16)), "material": standard(bytes(16))}
    cases: list[tuple[str, object, str, tuple[int, str, str]]] = [
        (f"{name}%407", good, "decrypt", (400, ILLEGAL, f"'{name}@7' not found")),
        ("absent%400", good, "decrypt", (400, ILLEGAL, "'absent@0' not found")),
        (
            f"{name}%400",
            {**good, "name": "other"},
            "decrypt",
            (400, ILLEGAL, f"KeyVersion '{name}@0' does not belong to the key 'other'"),
        ),
        (
            f"{name}%400",
            {**good, "name": None},
            "decrypt",
            (400, ILLEGAL, f"KeyVersion '{name}@0' does not belong to the key 'null'"),
        ),
        (f"{name}%400", {**good, "iv": None}, "decrypt", (400, ILLEGAL, "Parameter 'iv' cannot be null")),
        (
            f"{name}%400",
            {"name": name, "iv": good["iv"]},
            "decrypt",
            (400, ILLEGAL, "Parameter 'material' cannot be null"),
        ),
        (
            f"{name}%400",
            {**good, "iv": standard(bytes(15))},
            "decrypt",
            (500, IO, "an IV must be 16 bytes long, not 15"),
        ),
        (f"{name}%400", {**good, "material": "*"}, "decrypt", (400, ILLEGAL, "a base64 value is malformed")),
        (f"{name}%400", b"[1]", "reencrypt", (500, IO, "")),
        (
            f"{name}%400",
            good,
            "generate",
            (400, ILLEGAL, "IllegalArgumentException Wrong eek_op value, it must be generate or decrypt"),
        ),
    ]
    for version, body, eek_op, (status, java_class, message) in cases:
        found = remote_exception_of(open_eek(client, version, body, eek_op))
        assert found[:2] == (status, java_class), (body, found)
        assert found[2] == message or not message


def test_an_empty_edek_opens_to_an_empty_dek(kms: RunningKms, name: str) -> None:
    client = kms.one_worker()
    create(client, name, os.urandom(16))
    answer = open_eek(client, f"{name}%400", {"name": name, "iv": standard(bytes(16)), "material": ""})
    assert json_of(answer)["material"] == ""


def test_a_batch_with_another_keys_version_is_refused_whole(kms: RunningKms, name: str) -> None:
    client = kms.one_worker()
    create(client, name, os.urandom(16))
    create(client, f"{name}b", os.urandom(16))
    ours, theirs = json_of(generate(client, name)) + json_of(generate(client, f"{name}b"))
    answer = call(client, "POST", f"/kms/v1/key/{name}/_reencryptbatch", [ours, theirs])
    assert remote_exception_of(answer) == (
        400,
        ILLEGAL,
        f"KeyVersion '{name}b@0' does not belong to the key '{name}'",
    )
    assert json_of(call(client, "POST", f"/kms/v1/key/{name}/_reencryptbatch", [])) == []


def test_a_batch_for_a_key_that_is_not_there_fails_on_its_first_version(kms: RunningKms, name: str) -> None:
    client, path = kms.one_worker(), f"/kms/v1/key/{name}/_reencryptbatch"
    entry = {"versionName": f"{name}@0", "iv": standard(bytes(16)), "encryptedKeyVersion": {"versionName": "EEK"}}
    assert remote_exception_of(call(client, "POST", path, [entry])) == (400, ILLEGAL, f"'{name}@0' not found")
    assert json_of(call(client, "POST", path, [])) == []


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; b=c"]
)
def test_a_body_of_another_type_than_json_is_refused(kms: RunningKms, name: str, content_type: str) -> None:
    """What a web page could make a browser send on a user's behalf changes nothing."""
    client, body = kms.one_worker(), json.dumps({"name": name})
    client.send(
        f"POST /kms/v1/keys?user.name=hdfs HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    message = "the body must come with the Content-Type application/json"
    assert remote_exception_of(client.read_answer()) == (400, ILLEGAL, message)
    assert json_of(call(client, "GET", f"/kms/v1/key/{name}/_metadata")) == {}


def test_hdfs_natives_compact_request_is_served_without_a_cookie(kms: RunningKms, name: str) -> None:
    client = kms.one_worker()
    create(client, name, os.urandom(16))
    (eek,) = json_of(generate(client, name))
    body = json.dumps(
        {
            "name": name,
            "iv": standard(raw(eek["iv"])),
            "material": standard(raw(eek["encryptedKeyVersion"]["material"])),
        },
        separators=(",", ":"),
    )
    client.send(
        f"POST /kms/v1/keyversion/{name}%400/_eek?eek_op=decrypt&user.name=hdfs HTTP/1.1\r\n"
        f"content-type: application/json\r\naccept: */*\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
        f"{body}".encode()
    )
    assert raw(json_of(client.read_answer())["material"]) == decrypt(client, name, eek)
