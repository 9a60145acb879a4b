"""Batches: vault-measured section 2.1 and the limits of a request."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from vault_contract import CONTEXT, DEK, OTHER_CONTEXT, ContractServer
from vault_double.flavour import OPENBAO

# `absent` leaves the field out.
NO_STRINGS: list[Any] = ["absent", 7, True, [], {}]
OPERATIONS = ["encrypt", "decrypt", "rewrap"]
MAIN = {"encrypt": "plaintext", "decrypt": "ciphertext", "rewrap": "ciphertext"}


@pytest.fixture(scope="module")
def key(server: ContractServer) -> str:
    return server.key()


@pytest.fixture(scope="module")
def ciphertext(server: ContractServer, key: str) -> str:
    return server.ciphertexts(key, 1)[0]


@pytest.fixture
def good(ciphertext: str) -> dict[str, dict[str, Any]]:
    """A good item for each operation."""
    encrypted = {"ciphertext": ciphertext, "context": CONTEXT}
    return {"encrypt": {"plaintext": DEK, "context": CONTEXT}, "decrypt": encrypted, "rewrap": dict(encrypted)}


@pytest.fixture
def bad(ciphertext: str) -> dict[str, dict[str, Any]]:
    """An item of each operation that is the caller's mistake."""
    broken = {"ciphertext": "vault:v1:AAAA", "context": CONTEXT}
    return {"encrypt": {"plaintext": "?", "context": CONTEXT}, "decrypt": broken, "rewrap": dict(broken)}


Items = dict[str, dict[str, Any]]


def _check_results(operation: str, results: list[dict[str, Any]], good_at: set[int]) -> None:
    for index, result in enumerate(results):
        if index in good_at:
            expected = {"plaintext"} if operation == "decrypt" else {"ciphertext", "key_version"}
            assert set(result) == {*expected, "reference"}
        elif operation == "decrypt":
            assert set(result) == {"plaintext", "error", "reference"}
            assert result["plaintext"] == ""
        else:
            assert set(result) == {"error", "reference"}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_all_good(server: ContractServer, key: str, operation: str, good: Items) -> None:
    answer = server.use(operation, key, {"batch_input": [good[operation]] * 3})
    assert answer.status == 200
    _check_results(operation, answer.body["data"]["batch_results"], {0, 1, 2})


@pytest.mark.parametrize("operation", OPERATIONS)
def test_one_bad(server: ContractServer, key: str, operation: str, good: Items, bad: Items) -> None:
    items = [good[operation], bad[operation], good[operation]]
    answer = server.use(operation, key, {"batch_input": items})
    assert answer.status == (200 if operation == "rewrap" else 400)
    _check_results(operation, answer.body["data"]["batch_results"], {0, 2})


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("code", [207, 200])
def test_one_bad_with_a_code_of_the_callers(
    server: ContractServer, key: str, operation: str, code: int, good: Items, bad: Items
) -> None:
    items = [good[operation], bad[operation]]
    answer = server.use(operation, key, {"batch_input": items, "partial_failure_response_code": code})
    if operation == "rewrap":
        assert answer.status == 200
        ignored = "Endpoint ignored these unrecognized parameters: [partial_failure_response_code]"
        assert answer.body["warnings"] == [ignored]
    else:
        assert (answer.status, answer.body["warnings"]) == (code, None)
    _check_results(operation, answer.body["data"]["batch_results"], {0})


@pytest.mark.parametrize("operation", ["encrypt", "decrypt"])
@pytest.mark.parametrize("code", [0, 600, -1])
def test_a_code_outside_the_range_is_ignored_with_a_warning(
    server: ContractServer, key: str, operation: str, code: int, good: Items, bad: Items
) -> None:
    body = {"batch_input": [good[operation], bad[operation]], "partial_failure_response_code": code}
    answer = server.use(operation, key, body)
    assert answer.status == 400
    assert answer.body["warnings"]
    _check_results(operation, answer.body["data"]["batch_results"], {0})


@pytest.mark.parametrize("operation", OPERATIONS)
def test_all_bad(server: ContractServer, key: str, operation: str, bad: Items) -> None:
    body = {"batch_input": [bad[operation]] * 2, "partial_failure_response_code": 207}
    answer = server.use(operation, key, body)
    assert answer.status == (200 if operation == "rewrap" else 400)
    _check_results(operation, answer.body["data"]["batch_results"], set())


@pytest.mark.parametrize(
    ("operation", "value"), [*itertools.product(("encrypt", "decrypt"), NO_STRINGS), ("encrypt", None)]
)
def test_an_item_without_a_string_fails_the_batch(
    server: ContractServer, key: str, operation: str, value: Any, good: Items
) -> None:
    item = {"context": CONTEXT} if value == "absent" else {"context": CONTEXT, MAIN[operation]: value}
    answer = server.use(operation, key, {"batch_input": [good[operation], item]})
    assert answer.status == 500
    assert "data" not in answer.body


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("item", ["text", 1, [1]])
def test_an_item_that_is_no_object_fails_the_batch(
    server: ContractServer, key: str, operation: str, item: Any, good: Items
) -> None:
    answer = server.use(operation, key, {"batch_input": [good[operation], item]})
    assert answer.status == 500
    assert "data" not in answer.body


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (7, "invalid ciphertext: no prefix"),
        (None, "missing ciphertext to decrypt"),
        ("absent", "missing ciphertext to decrypt"),
    ],
)
def test_rewrap_reports_these_in_the_item(
    server: ContractServer, key: str, good: Items, value: Any, error: str
) -> None:
    item = {"context": CONTEXT} if value == "absent" else {"context": CONTEXT, "ciphertext": value}
    answer = server.use("rewrap", key, {"batch_input": [good["rewrap"], item]})
    assert answer.status == 200
    assert answer.data["batch_results"][1] == {"error": error, "reference": ""}


def test_rewrap_takes_null_for_an_empty_item(server: ContractServer, key: str) -> None:
    answer = server.use("rewrap", key, {"batch_input": [None]})
    assert (answer.status, answer.data["batch_results"][0]["error"]) == (200, "missing ciphertext to decrypt")


@pytest.mark.parametrize("operation", ["encrypt", "decrypt"])
def test_a_failed_batch_says_why_in_a_list_of_errors(server: ContractServer, key: str, operation: str) -> None:
    answer = server.use(operation, key, {"batch_input": [None]})
    expected = "1 error occurred:\n\t* failed to parse batch input: [0] expected a map, got '<nil>'\n\n"
    assert (answer.status, answer.errors) == (500, [expected])


@pytest.mark.parametrize("value", [True, [], {}])
def test_rewrap_fails_for_these(server: ContractServer, key: str, good: Items, value: Any) -> None:
    items = [good["rewrap"], {"context": CONTEXT, "ciphertext": value}]
    assert server.use("rewrap", key, {"batch_input": items}).status == 500


@pytest.mark.parametrize(("operation", "status"), [("decrypt", 400), ("rewrap", 200)])
@pytest.mark.parametrize("value", ["", None])
def test_an_empty_ciphertext(
    server: ContractServer, key: str, good: Items, operation: str, status: int, value: str | None
) -> None:
    items = [good[operation], {"ciphertext": value, "context": CONTEXT}]
    answer = server.use(operation, key, {"batch_input": items})
    assert answer.status == status
    assert answer.body["data"]["batch_results"][1]["error"] == "missing ciphertext to decrypt"


@pytest.mark.parametrize(("code", "status"), [(None, 500), (207, 207)])
@pytest.mark.parametrize("operation", ["encrypt", "decrypt"])
def test_an_internal_error_in_one_item_still_returns_the_others(
    server: ContractServer, key: str, good: Items, operation: str, code: int | None, status: int
) -> None:
    """A 500 can carry plaintexts: every body is secret, whatever its status."""
    items = [good[operation], {**good[operation], "associated_data": "?"}]
    answer = server.use(operation, key, {"batch_input": items, "partial_failure_response_code": code})
    assert answer.status == status
    results = answer.body["data"]["batch_results"]
    _check_results(operation, results, {0})
    if operation == "decrypt":
        assert results[0]["plaintext"] == DEK


def test_associated_data_of_an_item(server: ContractServer, key: str) -> None:
    item = {"plaintext": DEK, "context": CONTEXT, "associated_data": OTHER_CONTEXT}
    sealed = server.use("encrypt", key, {"batch_input": [item]}).data["batch_results"][0]["ciphertext"]
    items = [
        {"ciphertext": sealed, "context": CONTEXT, "associated_data": OTHER_CONTEXT},
        {"ciphertext": sealed, "context": CONTEXT},
    ]
    results = server.use("decrypt", key, {"batch_input": items}).body["data"]["batch_results"]
    assert (results[0]["plaintext"], results[1]["error"]) == (DEK, "cipher: message authentication failed")
    rewrapped = server.use("rewrap", key, {"batch_input": items}).data["batch_results"]
    assert [result["error"] for result in rewrapped] == ["cipher: message authentication failed"] * 2


@pytest.mark.parametrize("operation", OPERATIONS)
def test_contexts_in_some_items_only(server: ContractServer, key: str, good: Items, operation: str) -> None:
    without = {name: value for name, value in good[operation].items() if name != "context"}
    answer = server.use(operation, key, {"batch_input": [good[operation], without]})
    assert answer.status == 400
    assert answer.errors == ["context should be set either in all the request blocks or in none"]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_empty_batch(server: ContractServer, key: str, operation: str) -> None:
    answer = server.use(operation, key, {"batch_input": []})
    assert (answer.status, answer.errors) == (400, ["missing batch input to process"])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_null_batch_is_none(server: ContractServer, key: str, good: Items, operation: str) -> None:
    path = f"{server.transit}/{operation}/{key}"
    answer = server.call("POST", path, {"batch_input": None, **good[operation]})
    assert answer.status == 200
    assert "batch_results" not in answer.data


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_batch_that_is_no_list(server: ContractServer, key: str, operation: str) -> None:
    assert server.use(operation, key, {"batch_input": "x"}).status == 500


@pytest.mark.parametrize("operation", ["decrypt", "rewrap"])
def test_a_missing_key_fails_the_whole_batch(server: ContractServer, good: Items, operation: str) -> None:
    answer = server.use(operation, server.fresh("missing"), {"batch_input": [good[operation]]})
    assert (answer.status, answer.errors) == (400, ["encryption key not found"])
    assert "data" not in answer.body


def test_references_come_back_and_order_is_kept(server: ContractServer, key: str) -> None:
    items = [{"plaintext": DEK, "context": CONTEXT, "reference": str(index)} for index in range(5)]
    results = server.use("encrypt", key, {"batch_input": items}).data["batch_results"]
    assert [result["reference"] for result in results] == ["0", "1", "2", "3", "4"]


def test_top_level_fields_are_ignored_beside_a_batch(server: ContractServer, key: str, good: Items) -> None:
    body = {"batch_input": [good["decrypt"]], "ciphertext": "nonsense", "context": "?"}
    assert server.use("decrypt", key, body).data["batch_results"][0]["plaintext"] == DEK


def test_items_of_a_batch_may_name_a_version(server: ContractServer) -> None:
    name = server.key()
    server.rotate(name)
    items = [{"plaintext": DEK, "context": CONTEXT, "key_version": version} for version in (1, 2, 9)]
    answer = server.use("encrypt", name, {"batch_input": items})
    assert answer.status == 400
    results = answer.body["data"]["batch_results"]
    assert [result.get("key_version") for result in results] == [1, 2, None]
    assert results[2]["error"] == "requested version for encryption is higher than the latest key version"


@pytest.mark.parametrize(("operation", "status"), [("encrypt", 400), ("decrypt", 400), ("rewrap", 200)])
def test_a_soft_deleted_key_refuses_each_item(server: ContractServer, operation: str, status: int) -> None:
    name = server.key()
    ciphertext = server.ciphertexts(name, 1)[0]
    deleted = server.call("DELETE", f"{server.transit}/keys/{name}/soft-delete")
    assert deleted.status == (200 if server.flavour.has_soft_delete else 404)
    if deleted.status == 404:
        return
    item = {"plaintext": DEK} if operation == "encrypt" else {"ciphertext": ciphertext}
    answer = server.use(operation, name, {"batch_input": [{**item, "context": CONTEXT}]})
    assert answer.status == status
    assert answer.body["data"]["batch_results"][0]["error"] == "refusing to use soft-deleted key"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_128_items_are_safe(server: ContractServer, key: str, good: Items, operation: str) -> None:
    answer = server.use(operation, key, {"batch_input": [good[operation]] * 128})
    assert len(answer.data["batch_results"]) == 128


@pytest.mark.parametrize(
    ("count", "extra", "is_accepted"),
    [
        (249, {}, True),
        (250, {}, False),
        (166, {"reference": "r"}, True),
        (167, {"reference": "r"}, False),
    ],
)
def test_a_thousand_strings(
    server: ContractServer, key: str, good: Items, count: int, extra: dict[str, str], is_accepted: bool
) -> None:
    """Keys of the JSON count as well."""
    answer = server.use("decrypt", key, {"batch_input": [{**good["decrypt"], **extra}] * count})
    _check_limit(server, answer.status, answer.errors, is_accepted)


@pytest.mark.parametrize(("count", "is_accepted"), [(499, True), (500, False)])
def test_a_thousand_strings_without_contexts(server: ContractServer, count: int, is_accepted: bool) -> None:
    name = server.key(derived=False)
    ciphertext = server.encrypt(name, context=None).data["ciphertext"]
    answer = server.use("decrypt", name, {"batch_input": [{"ciphertext": ciphertext}] * count})
    _check_limit(server, answer.status, answer.errors, is_accepted)


def test_one_superfluous_field_at_the_top_still_fits(server: ContractServer, key: str, good: Items) -> None:
    path = f"{server.transit}/decrypt/{key}"
    body = {"ciphertext": None, "batch_input": [good["decrypt"]] * 249}
    assert server.call("POST", path, body).status == 200


def _check_limit(server: ContractServer, status: int, errors: list[str], is_accepted: bool) -> None:
    if is_accepted or server.flavour.max_json_strings != OPENBAO.max_json_strings:
        assert status == 200
        return
    assert status == 400
    assert "refused JSON input due to high complexity: exceeded maximum number of strings" in errors[0]
