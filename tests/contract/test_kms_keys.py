"""Keys over the wire: what Hadoop's clients send and what they must get back, byte for byte where it matters."""

from __future__ import annotations

import base64
import itertools
import os
import time

import pytest
from http_serving import RawClient
from kms_serving import RunningKms, call, json_of, remote_exception_of

from ringfence_zones import kms_wire

AES = "AES/CTR/NoPadding"
IO = "java.io.IOException"
ILLEGAL = "java.lang.IllegalArgumentException"
INVALID_PARAMETER = "java.security.InvalidParameterException"
_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    """A key name nobody used before."""
    return f"key{next(_numbers)}-{os.getpid()}"


def create(client: RawClient, name: str, **fields: object) -> None:
    answer = call(client, "POST", "/kms/v1/keys", {"name": name, "cipher": AES, "length": 128, **fields})
    assert answer.status == 201, answer


def test_create_answers_201_with_the_first_version_and_its_material(kms: RunningKms, name: str) -> None:
    answer = call(kms.one_worker(), "POST", "/kms/v1/keys", {"name": name, "cipher": AES, "length": 256})
    assert (answer.status, answer.reason) == (201, "Created")
    body = json_of(answer)
    assert (body["name"], body["versionName"]) == (name, f"{name}@0")
    assert len(base64.urlsafe_b64decode(body["material"] + "=")) == 32
    assert answer.header("Location") == f"http://localhost/kms/v1/key/{name}"


def test_a_created_key_is_answered_by_every_worker_at_once(kms: RunningKms, name: str) -> None:
    for number, client in enumerate(kms.every_worker()):
        create(client, f"{name}-{number}")
        for other in kms.every_worker():
            assert json_of(call(other, "GET", f"/kms/v1/key/{name}-{number}/_metadata"))["versions"] == 1


def test_a_rolled_key_is_answered_by_every_worker_at_once(kms: RunningKms, name: str) -> None:
    workers = kms.every_worker()
    create(workers[0], name)
    for client in workers:  # in every memory
        assert json_of(call(client, "GET", f"/kms/v1/key/{name}/_currentversion"))["versionName"] == f"{name}@0"
    for number, client in enumerate(workers, start=1):
        assert json_of(call(client, "POST", f"/kms/v1/key/{name}", b"{}"))["versionName"] == f"{name}@{number}"
        for other in workers:
            current = json_of(call(other, "GET", f"/kms/v1/key/{name}/_currentversion"))
            assert current["versionName"] == f"{name}@{number}"
            (eek,) = json_of(call(other, "GET", f"/kms/v1/key/{name}/_eek", query={"eek_op": "generate"}))
            assert eek["versionName"] == f"{name}@{number}"


def test_a_deleted_key_is_gone_from_every_worker_at_once(kms: RunningKms, name: str) -> None:
    workers = kms.every_worker()
    for number, client in enumerate(workers):
        key = f"{name}-{number}"
        create(client, key)
        for other in workers:
            assert json_of(call(other, "GET", f"/kms/v1/key/{key}"))["name"] == key
        answer = call(client, "DELETE", f"/kms/v1/key/{key}")
        assert (answer.status, answer.body) == (200, b"")
        for other in workers:
            assert json_of(call(other, "GET", f"/kms/v1/key/{key}/_metadata")) == {}
            assert json_of(call(other, "GET", f"/kms/v1/keyversion/{key}%400")) == {}
            assert json_of(call(other, "GET", f"/kms/v1/key/{key}/_versions")) == []
            assert json_of(call(other, "GET", f"/kms/v1/key/{key}/_currentversion")) == {}


def test_a_key_made_again_continues_its_version_numbers(kms: RunningKms, name: str) -> None:
    client = kms.one_worker()
    create(client, name)
    call(client, "DELETE", f"/kms/v1/key/{name}")
    answer = call(client, "POST", "/kms/v1/keys", {"name": name})
    assert json_of(answer)["versionName"] == f"{name}@1"
    assert json_of(call(client, "GET", f"/kms/v1/key/{name}/_metadata"))["versions"] == 2
    assert [v["versionName"] for v in json_of(call(client, "GET", f"/kms/v1/key/{name}/_versions"))] == [f"{name}@1"]


def test_a_create_that_the_client_sent_twice_gets_a_clean_refusal(kms: RunningKms, name: str) -> None:
    workers = kms.every_worker()
    create(workers[0], name)
    status, java_class, message = remote_exception_of(call(workers[-1], "POST", "/kms/v1/keys", {"name": name}))
    assert (status, java_class) == (500, IO)
    assert message.startswith(f"Key {name} already exists in ")


def test_two_creates_at_the_same_moment_make_one_key(kms: RunningKms, name: str) -> None:
    clients = [kms.connect() for _ in range(8)]
    body = kms_wire.encode(kms_wire.CreateKeyBody(name=name))
    head = b"POST /kms/v1/keys?user.name=hdfs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    request = head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    for client in clients:
        client.send(request)
    statuses = sorted(client.read_answer().status for client in clients)
    assert statuses == [201, *[500] * 7]
    for client in clients:
        client.socket.close()
    assert json_of(call(kms.one_worker(), "GET", f"/kms/v1/key/{name}/_metadata"))["versions"] == 1


def test_metadata_has_the_types_that_java_casts_to(kms: RunningKms, name: str) -> None:
    before_ms = time.time() * 1000
    create(kms.one_worker(), name, description="words", attributes={"a": "b"}, length=256)
    for path in (f"/kms/v1/key/{name}/_metadata", f"/kms/v1/key/{name}", f"/kms/v1/key/{name}/_metadata/"):
        body = json_of(call(kms.one_worker(), "GET", path))
        created = body.pop("created")
        assert isinstance(created, int) and created > 2**31
        assert before_ms - 5000 < created < time.time() * 1000 + 5000
        assert body == {
            "name": name,
            "cipher": AES,
            "length": 256,
            "description": "words",
            "attributes": {"a": "b", "key.acl.name": name},
            "versions": 1,
        }


def test_create_without_cipher_and_length_takes_hadoops_defaults(kms: RunningKms, name: str) -> None:
    client = kms.one_worker()
    assert call(client, "POST", "/kms/v1/keys", {"name": name, "length": 0}).status == 201
    body = json_of(call(client, "GET", f"/kms/v1/key/{name}/_metadata"))
    assert (body["cipher"], body["length"], body["description"]) == (AES, 128, None)


def test_material_given_comes_back_and_must_have_the_length(kms: RunningKms, name: str) -> None:
    client, material = kms.one_worker(), bytes(range(0xF0, 0x100))
    create(client, name, material=base64.b64encode(material).decode())
    body = json_of(call(client, "GET", f"/kms/v1/keyversion/{name}%400"))
    assert body == {"name": name, "versionName": f"{name}@0", "material": "8PHy8_T19vf4-fr7_P3-_w"}
    wrong = {"material": base64.b64encode(bytes(32)).decode()}
    for path, fields in (("/kms/v1/keys", {"name": name + "x", "length": 128}), (f"/kms/v1/key/{name}", {})):
        answer = call(client, "POST", path, {**fields, **wrong})
        assert remote_exception_of(answer) == (500, IO, "Wrong key length. Required 128, but got 256")
    assert json_of(call(client, "GET", f"/kms/v1/key/{name}/_metadata"))["versions"] == 1


def test_roll_takes_given_material_and_versions_are_listed_oldest_first(kms: RunningKms, name: str) -> None:
    client = kms.one_worker()
    create(client, name)
    given = base64.urlsafe_b64encode(b"\xff" * 16).decode().rstrip("=")
    rolled = json_of(call(client, "POST", f"/kms/v1/key/{name}", {"material": given}))
    assert rolled == {"name": name, "versionName": f"{name}@1", "material": given}
    versions = json_of(call(client, "GET", f"/kms/v1/key/{name}/_versions"))
    assert [version["versionName"] for version in versions] == [f"{name}@0", f"{name}@1"]
    assert versions[1] == rolled == json_of(call(client, "GET", f"/kms/v1/key/{name}/_currentversion"))


def test_absent_keys_are_not_errors_on_reads(kms: RunningKms) -> None:
    client = kms.one_worker()
    for path, expected in (
        ("/kms/v1/key/absent/_metadata", b"{}"),
        ("/kms/v1/key/absent/_currentversion", b"{}"),
        ("/kms/v1/keyversion/absent%400", b"{}"),
        ("/kms/v1/keyversion/noversion", b"{}"),
        ("/kms/v1/key/absent/_versions", b"[]"),
    ):
        answer = call(client, "GET", path)
        assert (answer.status, answer.body) == (200, expected), path


def test_roll_and_delete_of_an_absent_key_say_so_as_hadoop(kms: RunningKms) -> None:
    client = kms.one_worker()
    answer = call(client, "POST", "/kms/v1/key/absent", b"{}")
    assert remote_exception_of(answer) == (500, IO, "Can't find Metadata for key absent")
    status, java_class, message = remote_exception_of(call(client, "DELETE", "/kms/v1/key/absent"))
    assert (status, java_class) == (500, IO)
    assert message.startswith("Key absent does not exist in ")


def test_keys_metadata_answers_in_order_with_empty_objects_for_unknown_names(kms: RunningKms, name: str) -> None:
    client = kms.one_worker()
    create(client, f"{name}a")
    create(client, f"{name}b")
    query = f"key={name}b&key=absent&key={name}a"
    client.send(f"GET /kms/v1/keys/metadata?{query}&user.name=hdfs HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    bodies = json_of(client.read_answer())
    assert [body.get("name") for body in bodies] == [f"{name}b", None, f"{name}a"]
    assert bodies[1] == {}


def test_keys_names_lists_live_keys(kms: RunningKms, name: str) -> None:
    client = kms.one_worker()
    create(client, f"{name}a")
    create(client, f"{name}b")
    call(client, "DELETE", f"/kms/v1/key/{name}b")
    for other in kms.every_worker():
        names = json_of(call(other, "GET", "/kms/v1/keys/names"))
        assert f"{name}a" in names and f"{name}b" not in names


def test_invalidate_cache_has_no_body_and_is_200_for_a_deleted_key_too(kms: RunningKms, name: str) -> None:
    client = kms.one_worker()
    create(client, name)
    for _ in range(2):
        answer = call(client, "POST", f"/kms/v1/key/{name}/_invalidatecache")
        assert (answer.status, answer.body) == (200, b"")
        call(client, "DELETE", f"/kms/v1/key/{name}")


@pytest.mark.parametrize(
    ("key", "encoded"),
    [
        ('key %^[\n{]}|"<>\\', "key%20%25%5E%5B%0A%7B%5D%7D%7C%22%3C%3E%5C"),
        ("a/b", "a%2Fb"),
        ("c/d", "c/d"),
        ("plus+sign", "plus+sign"),
        ("at@sign", "at%40sign"),
        ("größe", "gr%C3%B6%C3%9Fe"),
        ("_eek", "_eek"),
        ("x/_versions", "x%2F_versions"),
    ],
)
def test_names_with_special_characters_are_addressed_by_their_encoding(kms: RunningKms, key: str, encoded: str) -> None:
    client = kms.one_worker()
    created = call(client, "POST", "/kms/v1/keys", {"name": key})
    assert created.status == 201
    assert json_of(created)["versionName"] == f"{key}@0"
    assert json_of(call(client, "GET", f"/kms/v1/key/{encoded}/_metadata"))["name"] == key
    assert json_of(call(client, "GET", f"/kms/v1/keyversion/{encoded}%400"))["name"] == key
    assert call(client, "DELETE", f"/kms/v1/key/{encoded}").status == 200


@pytest.mark.parametrize(
    ("body", "status", "java_class", "message"),
    [
        ({}, 400, ILLEGAL, "Parameter 'name' cannot be null"),
        ({"name": ""}, 400, ILLEGAL, "Parameter 'name' cannot be empty"),
        ({"name": "bad", "length": 100}, 400, INVALID_PARAMETER, "Wrong keysize: must be equal to 128 or 256"),
        ({"name": "bad", "length": 192}, 400, INVALID_PARAMETER, "Wrong keysize: must be equal to 128 or 256"),
        (
            {"name": "bad", "cipher": "X"},
            500,
            IO,
            "the cipher X is not supported; zones use AES/CTR/NoPadding",
        ),
        (b"{", 500, IO, "the body is not well-formed JSON"),
        (b"", 400, ILLEGAL, "the body must come with the Content-Type application/json"),
        ({"name": "bad", "material": "!"}, 400, ILLEGAL, "a base64 value is malformed"),
    ],
)
def test_bad_creates_are_refused_with_hadoops_classes(
    kms: RunningKms, body: object, status: int, java_class: str, message: str
) -> None:
    answer = call(kms.one_worker(), "POST", "/kms/v1/keys", body)
    assert remote_exception_of(answer) == (status, java_class, message)
    assert json_of(call(kms.one_worker(), "GET", "/kms/v1/key/bad/_metadata")) == {}


def test_unknown_paths_and_methods_are_remote_exceptions(kms: RunningKms) -> None:
    client = kms.one_worker()
    for path in ("/kms/v1/nothing", "/kms/v2/keys", "/", "/kms/v1//keys", "/kms/v1/keys/names/x"):
        assert remote_exception_of(call(client, "GET", path))[:2] == (404, "java.io.FileNotFoundException"), path
    answer = call(client, "PUT", "/kms/v1/keys/names")
    assert remote_exception_of(answer)[:2] == (405, "java.lang.UnsupportedOperationException")
    assert answer.header("Allow") == "GET"


def test_head_answers_as_get_without_the_body(kms: RunningKms, name: str) -> None:
    client = kms.one_worker()
    create(client, name)
    answer = call(client, "HEAD", f"/kms/v1/key/{name}/_metadata")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.header("Content-Length") or 0) > 0
