"""Batches of the control plane against a scripted server: what whole answers mean, and what is cut in two."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scripted_http import Answer, ScriptedServer, Seen, scripted_server
from vault_settings import make_settings

from ringfence_agent.vault.control import FixedToken, VaultControl
from ringfence_agent.vault.transit_batches import BATCH_ITEMS
from ringfence_agent.vault.transit_wire import ItemFault, OpenItem, TransitCiphertext
from ringfence_zones.errors import ProtectorRefusedError, ProtectorUnavailableError
from ringfence_zones.secret import Secret

CANARY = b"canary of a data key, 32 bytes.."
HEALTH = b'{"sealed":false,"version":"2.6.2"}'


@contextmanager
def control_of(
    answer: Callable[[list[dict[str, str]]], Answer], directory: Path
) -> Iterator[tuple[VaultControl, ScriptedServer]]:
    """A control plane whose batches are answered so."""

    def script(seen: Seen) -> Answer:
        return (200, HEALTH) if "sys/health" in seen.target else answer(json.loads(seen.body)["batch_input"])

    with scripted_server(script) as server:
        settings = make_settings(f"http://127.0.0.1:{server.port}", directory)
        with VaultControl(settings, FixedToken(Secret(b"s.token")), sleep=lambda _: None) as control:
            yield control, server


def items(count: int) -> list[OpenItem]:
    """Each with a number of its own in its ciphertext."""
    return [OpenItem(TransitCiphertext(1, bytes(27) + bytes([number])), b"context") for number in range(count)]


def opened(batch: list[dict[str, str]], status: int = 200) -> Answer:
    """A plaintext for each item: the number in its ciphertext."""
    numbers = [base64.b64decode(item["ciphertext"].rpartition(":")[2])[-1] for item in batch]
    results: list[dict[str, Any]] = [{"plaintext": base64.b64encode(bytes([each])).decode()} for each in numbers]
    return status, json.dumps({"data": {"batch_results": results}}).encode()


def sizes(server: ScriptedServer) -> list[int]:
    return [len(json.loads(seen.body)["batch_input"]) for seen in server.seen if seen.method == "POST"]


def test_no_call_carries_more_than_its_share(tmp_path: Path) -> None:
    with control_of(opened, tmp_path) as (control, server):
        found = control.batches.decrypt("k", items(200))
    assert found == [Secret(bytes([number])) for number in range(200)]
    assert sizes(server) == [BATCH_ITEMS, 200 - BATCH_ITEMS]


def test_nothing_is_asked_for_nothing(tmp_path: Path) -> None:
    with control_of(opened, tmp_path) as (control, server):
        assert control.batches.decrypt("k", []) == []
    assert server.seen == []


@pytest.mark.parametrize(
    "refusal",
    [
        (400, b'{"errors":["refused JSON input due to high complexity: exceeded maximum number of strings"]}'),
        (413, b'{"errors":["http: request body too large"]}'),
    ],
)
def test_what_is_too_much_for_a_server_is_cut_in_two_and_stays_in_order(refusal: Answer, tmp_path: Path) -> None:
    with control_of(lambda batch: opened(batch) if len(batch) <= 3 else refusal, tmp_path) as (control, _):
        assert control.batches.decrypt("k", items(10)) == [Secret(bytes([number])) for number in range(10)]


def test_one_item_that_is_too_much_is_refused(tmp_path: Path) -> None:
    with (
        control_of(lambda _: (413, b"{}"), tmp_path) as (control, _),
        pytest.raises(ProtectorRefusedError, match="too large") as caught,
    ):
        control.batches.decrypt("k", items(1))
    assert caught.value.reason == "too_large"


def test_results_count_with_whatever_status_they_come(tmp_path: Path) -> None:
    for status in (200, 207, 400):
        with control_of(lambda batch, status=status: opened(batch, status), tmp_path) as (control, _):  # type: ignore[misc]
            assert control.batches.decrypt("k", items(2)) == [Secret(b"\0"), Secret(b"\1")]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((200, b"{}"), ProtectorUnavailableError),
        ((200, b"no json"), ProtectorUnavailableError),
        ((200, b'{"data":{"batch_results":[]}}'), ProtectorUnavailableError),
        ((500, b'{"errors":["internal error"]}'), ProtectorUnavailableError),
        ((503, b'{"errors":["Vault is sealed"]}'), ProtectorUnavailableError),
        ((404, b'{"errors":["no handler for route"]}'), ProtectorRefusedError),
        ((400, b'{"errors":["failed to parse batch input"]}'), ProtectorRefusedError),
    ],
)
def test_an_answer_without_a_result_for_each_is_an_error(answer: Answer, kind: type[Exception], tmp_path: Path) -> None:
    with control_of(lambda _: answer, tmp_path) as (control, _), pytest.raises(kind):
        control.batches.decrypt("k", items(2))


def test_a_500_that_holds_plaintexts_gives_none_of_them_away(tmp_path: Path) -> None:
    """An answer of a real server's, when one item of a batch fails inside."""
    plain = base64.b64encode(CANARY).decode()
    body = {"data": {"batch_results": [{"plaintext": plain}, {"error": "internal error " + plain}]}}
    with (
        control_of(lambda _: (500, json.dumps(body).encode()), tmp_path) as (control, _),
        pytest.raises(ProtectorUnavailableError) as caught,
    ):
        control.batches.decrypt("k", items(2))
    assert plain not in f"{caught.value!r} {vars(caught.value)} {caught.value.__context__!r}"


def test_a_disabled_and_a_missing_key_are_each_item_s_fault(tmp_path: Path) -> None:
    for sentence, fault in (
        ("refusing to use soft-deleted key", ItemFault.KEY_DISABLED),
        ("encryption key not found", ItemFault.NO_SUCH_KEY),
    ):
        body = json.dumps({"errors": [sentence]}).encode()
        with control_of(lambda _, body=body: (400, body), tmp_path) as (control, _):  # type: ignore[misc]
            assert control.batches.decrypt("k", items(2)) == [fault, fault]
