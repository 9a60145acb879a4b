"""Lists of items to Transit: divided where they are too large, one result for each, and what a 403 means."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from scripted_node import Asked, Script, ScriptedNode, reply, results, scripted_node

from ringfence_agent.vault import transit as transit_module
from ringfence_agent.vault.connection import Endpoint
from ringfence_agent.vault.servers import Patience, VaultServers
from ringfence_agent.vault.transit import Transit
from ringfence_agent.vault.transit_wire import EncryptItem, ItemFault, OpenItem, RewrapItem, TransitCiphertext
from ringfence_zones.errors import ConfigError, InputError, ProtectorRefusedError, ProtectorUnavailableError
from ringfence_zones.secret import Secret

QUICK = Patience(answer_s=2, batch_s=2, first_pause_s=0.001, longest_pause_s=0.001, probe_every_s=60)
CONTEXT = b"c" * 32
LOOKUP = "/v1/auth/token/lookup-self"
FORBIDDEN = reply(403, {"errors": ["permission denied"], "canary": "canary"})


class Handover:
    """Tokens as a file would give them: `next` is what it has now."""

    def __init__(self, *tokens: bytes) -> None:
        self.held = Secret(tokens[0])
        self.next = Secret(tokens[-1])
        self.read = 0
        self.age_s = 60.0

    def current(self) -> Secret:
        return self.held

    def read_again(self) -> Secret:
        self.read += 1
        self.held = self.next
        return self.held

    def written_s_ago(self) -> float:
        return self.age_s


def sealed(number: int) -> OpenItem:
    """What `transit` opens to the DEK of this number."""
    return OpenItem(TransitCiphertext(1, bytes(12) + number.to_bytes(16, "big") + bytes(16)), CONTEXT)


def dek(number: int) -> Secret:
    return Secret(number.to_bytes(16, "big"))


def opened(row: dict[str, Any]) -> dict[str, str]:
    """A server's result for a row: the DEK is not encrypted at all."""
    if "plaintext" in row:
        raw = bytes(12) + base64.b64decode(row["plaintext"]) + bytes(16)
        return {"ciphertext": f"vault:v{row['key_version']}:{base64.b64encode(raw).decode()}"}
    raw = base64.b64decode(row["ciphertext"].rpartition(":")[2])
    return {"plaintext": base64.b64encode(raw[12:-16]).decode()}


async def working(asked: Asked) -> bytes:
    return reply(200, results(*[opened(row) for row in asked.rows]))


@asynccontextmanager
async def transit(
    script: Script, tokens: Handover | None = None, patience: Patience = QUICK
) -> AsyncIterator[tuple[Transit, ScriptedNode]]:
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(scripted_node(script))
        servers = VaultServers([node.endpoint], tokens, patience=patience)
        stack.push_async_callback(servers.close)
        yield Transit(servers, "transit-c1"), node


def soon() -> float:
    return asyncio.get_running_loop().time() + 20


async def decrypt(client: Transit, numbers: Sequence[int]) -> list[Secret | ItemFault]:
    return await client.decrypt("z-1", [sealed(number) for number in numbers], soon())


def sizes(node: ScriptedNode) -> list[int]:
    return [len(asked.rows) for asked in node.seen if asked.method == "POST"]


def test_items_come_back_in_their_order_in_calls_of_128() -> None:
    async def test() -> None:
        async with transit(working) as (client, node):
            assert await decrypt(client, range(300)) == [dek(number) for number in range(300)]
            assert sizes(node) == [128, 128, 44]
            assert {asked.path for asked in node.seen} == {"/v1/transit-c1/decrypt/z-1"}
            assert await decrypt(client, []) == []
            assert len(node.seen) == 3

    asyncio.run(test())


def test_encrypt_says_the_version_and_rewrap_gives_ciphertexts() -> None:
    async def rewraps(asked: Asked) -> bytes:
        if asked.path.endswith("/rewrap/z-1"):
            return reply(200, results(*[{"ciphertext": "vault:v9:" + row["ciphertext"][9:]} for row in asked.rows]))
        return await working(asked)

    async def test() -> None:
        async with transit(rewraps) as (client, node):
            items = [EncryptItem(dek(number), CONTEXT, 7) for number in range(3)]
            made = await client.encrypt("z-1", items, soon())
            assert made == [TransitCiphertext(7, sealed(number).ciphertext.raw) for number in range(3)]
            again = await client.rewrap("z-1", [RewrapItem(*sealed(5), 9)], soon())
            assert again == [TransitCiphertext(9, sealed(5).ciphertext.raw)]
            assert [asked.path for asked in node.seen] == ["/v1/transit-c1/encrypt/z-1", "/v1/transit-c1/rewrap/z-1"]

    asyncio.run(test())


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "a\r\nb", "a.", ".a", "ä", "a?x", "a%2fb", "x" * 300])
def test_a_name_that_would_be_another_path_is_refused(name: str) -> None:
    async def test() -> None:
        async with transit(working) as (client, node):
            with pytest.raises(InputError, match="not a name"):
                await client.decrypt(name, [sealed(1)], soon())
            assert not node.seen

    asyncio.run(test())


@pytest.mark.parametrize("mount", ["", "/transit", "transit/", "a//b", "a/../b", "a\r\nb", "a?b"])
def test_a_mount_that_would_be_another_path_is_refused(mount: str) -> None:
    servers = VaultServers([Endpoint("x", "h", 1)], None)
    with pytest.raises(ConfigError, match="transit_mount"):
        Transit(servers, mount)
    Transit(servers, "team/transit-c1")


# -- batches that are refused as a whole

TOO_COMPLEX = reply(400, {"errors": ["refused JSON input due to high complexity: exceeded maximum number of strings"]})


@pytest.mark.parametrize("refusal", [TOO_COMPLEX, reply(413, b"<html>too large")], ids=["complexity", "413"])
def test_a_batch_too_large_is_halved_and_the_size_remembered(refusal: bytes) -> None:
    async def at_most_64(asked: Asked) -> bytes:
        return refusal if len(asked.rows) > 64 else await working(asked)

    async def test() -> None:
        async with transit(at_most_64) as (client, node):
            assert await decrypt(client, range(128)) == [dek(number) for number in range(128)]
            assert sizes(node) == [128, 64, 64]
            assert client.batch_items == 64
            assert len(await decrypt(client, range(128))) == 128
            assert sizes(node) == [128, 64, 64, 64, 64]

    asyncio.run(test())


def test_a_server_that_takes_one_item_at_a_time_gets_them_so() -> None:
    async def one_only(asked: Asked) -> bytes:
        return TOO_COMPLEX if len(asked.rows) > 1 else await working(asked)

    async def test() -> None:
        async with transit(one_only) as (client, _):
            assert await decrypt(client, range(64)) == [dek(number) for number in range(64)]
            assert client.batch_items == 1

    asyncio.run(test())


def spoilt_by(numbers: Sequence[int], refusal: bytes) -> Callable[[Asked], Awaitable[bytes]]:
    """Refuses every batch with one of these items as a whole, and what is asked about the token after that."""
    texts = {sealed(number).ciphertext.text.decode() for number in numbers}

    async def script(asked: Asked) -> bytes:
        if asked.path == LOOKUP or texts & {row["ciphertext"] for row in asked.rows}:
            return refusal
        return await working(asked)

    return script


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize("poison", [0, 1, 77, 127])
def test_an_item_that_spoils_its_batch_fails_alone(poison: int, status: int) -> None:
    refusal = reply(status, {"errors": ["failed to parse batch input: canary"]})

    async def test() -> None:
        async with transit(spoilt_by([poison], refusal)) as (client, node):
            found = await decrypt(client, range(128))
            expected: list[Secret | ItemFault] = [dek(number) for number in range(128)]
            expected[poison] = ItemFault.OUR_BUG
            assert found == expected
            assert len(node.seen) <= 1 + 2 * 7
            assert client.batch_items == 128

    asyncio.run(test())


def test_a_server_that_understands_nothing_is_not_asked_about_every_item(caplog: pytest.LogCaptureFixture) -> None:
    refusal = reply(400, {"errors": ["canary"]})

    async def test() -> None:
        async with transit(spoilt_by(range(128), refusal)) as (client, node):
            assert await decrypt(client, range(128)) == [ItemFault.OUR_BUG] * 128
            assert len(node.seen) <= 1 + 2 * 16

    asyncio.run(test())
    assert "canary" not in caplog.text
    assert "does not understand decrypt" in caplog.text


def test_one_bad_item_is_its_own_result() -> None:
    async def script(asked: Asked) -> bytes:
        rows = [opened(row) for row in asked.rows]
        rows[1] = {"plaintext": "", "error": "cipher: message authentication failed"}
        return reply(207, results(*rows))

    async def test() -> None:
        async with transit(script) as (client, _):
            assert await decrypt(client, range(3)) == [dek(0), ItemFault.CORRUPT, dek(2)]

    asyncio.run(test())


def test_an_engine_that_is_not_mounted_is_named() -> None:
    async def test() -> None:
        async with transit(lambda _: _answered(reply(404, {"errors": ["canary"]}))) as (client, _):
            with pytest.raises(ProtectorRefusedError, match="no Transit engine at transit-c1") as caught:
                await decrypt(client, range(2))
            assert "canary" not in repr(caught.value)

    asyncio.run(test())


async def _answered(answer: bytes) -> bytes:
    return answer


# -- 403


def knows(good: bytes, allowed: bool = True) -> Script:
    """A Vault that takes one token, for the operation only if `allowed`."""

    async def script(asked: Asked) -> bytes:
        if asked.headers.get("x-vault-token") != good.decode():
            return FORBIDDEN
        if asked.path == LOOKUP:
            return reply(200, {"data": {"id": "canary-token"}})
        return await working(asked) if allowed and asked.method == "POST" else FORBIDDEN

    return script


def test_a_dead_token_is_read_again_and_the_call_repeated_once() -> None:
    async def test() -> None:
        tokens = Handover(b"old", b"new")
        async with transit(knows(b"new"), tokens) as (client, node):
            assert await decrypt(client, range(2)) == [dek(0), dek(1)]
            assert [asked.path == LOOKUP for asked in node.seen] == [False, True, False]
            assert tokens.read == 1

    asyncio.run(test())


@pytest.mark.parametrize("tokens", [(b"old",), (b"old", b"older")], ids=["no other", "another that is dead too"])
def test_a_dead_token_without_a_successor_means_try_later(tokens: tuple[bytes, ...]) -> None:
    async def test() -> None:
        async with transit(knows(b"new"), Handover(*tokens)) as (client, node):
            with pytest.raises(ProtectorUnavailableError, match="does not take this token") as caught:
                await decrypt(client, range(2))
            assert caught.value.reason == "token_dead"
            assert len(sizes(node)) == len(tokens)

    asyncio.run(test())


def test_a_good_token_without_the_right_is_a_refusal_and_not_tried_again() -> None:
    async def test() -> None:
        tokens = Handover(b"good")
        async with transit(knows(b"good", allowed=False), tokens) as (client, node):
            with pytest.raises(ProtectorRefusedError, match=r"does not allow transit-c1/decrypt/z-1") as caught:
                await decrypt(client, range(2))
            assert caught.value.reason == "policy"
            assert "canary" not in f"{caught.value!r} {caught.value.hint}"
            assert sizes(node) == [2]
            assert tokens.read == 0

    asyncio.run(test())


@pytest.mark.parametrize(("age_s", "believed"), [(0.0, False), (0.9, False), (1.1, True), (-1.0, True)])
def test_the_first_refusal_of_a_new_token_may_be_a_standbys_that_does_not_know_it(
    monkeypatch: pytest.MonkeyPatch, age_s: float, believed: bool
) -> None:
    monkeypatch.setattr(transit_module, "LAG_S", 0.02)

    async def standby(asked: Asked) -> bytes:
        if asked.path == LOOKUP:  # the active node answers this one
            return reply(200)
        return FORBIDDEN if len(node_seen) == 1 else await working(asked)

    node_seen: list[Asked] = []

    async def test() -> None:
        nonlocal node_seen
        tokens = Handover(b"good")
        tokens.age_s = age_s
        async with transit(standby, tokens) as (client, node):
            node_seen = node.seen
            if believed:
                with pytest.raises(ProtectorRefusedError, match="does not allow"):
                    await decrypt(client, range(2))
            else:
                assert await decrypt(client, range(2)) == [dek(0), dek(1)]

    asyncio.run(test())


@pytest.mark.parametrize(("status", "missing"), [(404, True), (200, False), (403, False)])
def test_a_forbidden_encrypt_may_only_be_a_missing_key(status: int, missing: bool) -> None:
    async def script(asked: Asked) -> bytes:
        if asked.path == "/v1/transit-c1/keys/z-1":
            return reply(status, {"errors": []})
        return reply(200) if asked.path == LOOKUP else FORBIDDEN

    async def test() -> None:
        async with transit(script, Handover(b"good")) as (client, _):
            items = [EncryptItem(dek(1), CONTEXT, 1)]
            if missing:
                assert await client.encrypt("z-1", items, soon()) == [ItemFault.NO_SUCH_KEY]
            else:
                with pytest.raises(ProtectorRefusedError, match="policy"):
                    await client.encrypt("z-1", items, soon())

    asyncio.run(test())


def test_behind_an_agent_the_agents_token_is_looked_up() -> None:
    async def test() -> None:
        async def script(asked: Asked) -> bytes:
            assert "x-vault-token" not in asked.headers
            return FORBIDDEN

        async with transit(script) as (client, node):
            with pytest.raises(ProtectorUnavailableError, match="does not take this token"):
                await decrypt(client, range(2))
            assert [asked.path == LOOKUP for asked in node.seen] == [False, True]

    asyncio.run(test())


def test_a_lookup_that_fails_decides_nothing() -> None:
    async def script(asked: Asked) -> bytes:
        return reply(500, {"errors": ["internal error"]}) if asked.path == LOOKUP else FORBIDDEN

    async def test() -> None:
        async with transit(script, Handover(b"good")) as (client, _):
            with pytest.raises(ProtectorUnavailableError, match="500"):
                await decrypt(client, range(2))

    asyncio.run(test())


def test_nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    refusal = reply(400, {"errors": ["canary"], "data": {"plaintext": "canary"}})

    async def test() -> None:
        for answer in (refusal, FORBIDDEN, reply(500, b"canary"), reply(302, b"canary"), b"canary\r\n\r\n"):
            async with transit(spoilt_by(range(128), answer), Handover(b"canary-token")) as (client, _):
                try:
                    await decrypt(client, range(4))
                except (ProtectorRefusedError, ProtectorUnavailableError) as error:
                    assert "canary" not in f"{error!r} {error.hint} {error.command}"

    with caplog.at_level(logging.DEBUG):
        asyncio.run(test())
        assert "canary" not in caplog.text
        logging.getLogger("ringfence_agent.vault").debug("canary")  # the control
        assert "canary" in caplog.text
