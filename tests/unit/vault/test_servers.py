"""Several nodes of one Vault: which is asked, what counts against it, and when it is asked again."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from certificates import Certificates
from scripted_node import Asked, Script, ScriptedNode, always, reply, scripted_node

from ringfence_agent.vault.connection import Answer, Endpoint, NoAnswerError
from ringfence_agent.vault.servers import Patience, PureRequest, VaultServers
from ringfence_agent.vault.settings import VaultAuthBlock, VaultBlock, vault_settings
from ringfence_zones.durable_file import replace_file
from ringfence_zones.errors import ConfigError, ProtectorUnavailableError
from ringfence_zones.secret import Secret

DEADLINE_S = 10.0
REQUEST = PureRequest("POST", "transit/decrypt/k", b'{"batch_input":[]}')
TOKEN = Secret(b"hvs.canary-token")
# Nothing is probed unless a test wants it; pauses are over at once.
QUICK = Patience(connect_s=0.5, answer_s=0.1, batch_s=0.1, first_pause_s=0.001, longest_pause_s=0.001, probe_every_s=60)
PROBING = Patience(connect_s=0.5, answer_s=0.1, batch_s=0.1, first_pause_s=0.001, probe_every_s=0.01)
OPENING_FAILURES = 5


class HeldToken:
    """Tokens without a file."""

    def current(self) -> Secret:
        return TOKEN

    def read_again(self) -> Secret:
        return TOKEN

    def written_s_ago(self) -> float:
        return 60.0


@asynccontextmanager
async def vault(
    *scripts: Script, patience: Patience = QUICK, namespace: str | None = None
) -> AsyncIterator[tuple[VaultServers, list[ScriptedNode]]]:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(scripted_node(script)) for script in scripts]
        servers = VaultServers([node.endpoint for node in nodes], HeldToken(), namespace, patience)
        stack.push_async_callback(servers.close)
        yield servers, nodes


def body_of(answer: Answer) -> bytes:
    return answer.body


async def ask(servers: VaultServers, deadline_s: float = DEADLINE_S) -> bytes:
    return await servers.ask(REQUEST, TOKEN, asyncio.get_running_loop().time() + deadline_s, body_of)


async def refusal(servers: VaultServers, deadline_s: float = DEADLINE_S) -> str:
    with pytest.raises(ProtectorUnavailableError) as caught:
        await ask(servers, deadline_s)
    return caught.value.message


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.005)


async def hang(_asked: Asked) -> bytes | None:
    await asyncio.sleep(60)
    return None


def test_a_request_says_who_asks_and_that_it_is_meant() -> None:
    async def test() -> None:
        async with vault(always(reply(200)), namespace="team/one") as (servers, nodes):
            await ask(servers)
            await servers.ask(REQUEST, None, asyncio.get_running_loop().time() + 5, body_of)
            asked, without_token = nodes[0].seen
            assert (asked.method, asked.path, asked.body) == ("POST", "/v1/transit/decrypt/k", REQUEST.body)
            assert asked.headers == {
                "host": nodes[0].endpoint.host_header.decode(),
                "x-vault-request": "true",
                "x-vault-namespace": "team/one",
                "x-vault-token": "hvs.canary-token",
                "content-type": "application/json",
                "content-length": str(len(REQUEST.body)),
            }
            assert "x-vault-token" not in without_token.headers

    asyncio.run(test())


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308, 412, 472, 474, 501, 502, 503, 504, 530])
def test_a_node_that_cannot_serve_is_passed_over(status: int) -> None:
    async def test() -> None:
        bad = reply(status, {"errors": ["canary"]})
        async with vault(always(bad), always(reply(200, b"good"))) as (servers, nodes):
            assert await ask(servers) == b"good"
            assert [len(node.seen) for node in nodes] == [1, 1]
            assert await ask(servers) == b"good"
            assert [len(node.seen) for node in nodes] == [1, 2]  # while another is well it is left alone

    asyncio.run(test())


@pytest.mark.parametrize("bad", [always(None), always(b"garbage"), hang], ids=["closes", "garbage", "hangs"])
def test_a_node_that_does_not_answer_is_passed_over(bad: Script) -> None:
    async def test() -> None:
        async with vault(bad, always(reply(200, b"good"))) as (servers, _):
            assert [await ask(servers) for _ in range(3)] == [b"good"] * 3

    asyncio.run(test())


def test_a_node_that_is_not_there_is_passed_over() -> None:
    async def test() -> None:
        async with scripted_node(always(reply(200))) as gone:
            pass
        async with scripted_node(always(reply(200, b"good"))) as node:
            servers = VaultServers([gone.endpoint, node.endpoint], None, patience=QUICK)
            assert await ask(servers) == b"good"
            await servers.close()

    asyncio.run(test())


def test_an_answer_that_its_reader_cannot_use_is_no_answer() -> None:
    def read(answer: Answer) -> bytes:
        if answer.body == b"nonsense":
            raise NoAnswerError("answers nonsense")
        return answer.body

    async def test() -> None:
        async with vault(always(reply(200, b"nonsense")), always(reply(200, b"good"))) as (servers, _):
            assert await servers.ask(REQUEST, TOKEN, asyncio.get_running_loop().time() + 5, read) == b"good"

    asyncio.run(test())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed_with_the_token(status: int) -> None:
    async def test() -> None:
        async with scripted_node(always(reply(200, b"stolen"))) as thief:
            location = {"Location": f"{thief.endpoint.label}/v1/transit/decrypt/k"}
            async with vault(always(reply(status, b"", location))) as (servers, _):
                assert "redirect, which is never followed" in await refusal(servers)
                assert not thief.seen
                assert not thief.connections

    asyncio.run(test())


def test_the_environments_proxies_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async def test() -> None:
        async with vault(always(reply(200, b"direct"))) as (servers, _):
            assert await ask(servers) == b"direct"

    asyncio.run(test())


def test_when_none_serves_each_is_named_with_its_reason_and_no_body_is_quoted() -> None:
    async def test() -> None:
        sealed = reply(503, {"errors": ["canary"], "data": {"plaintext": "canary"}})
        async with vault(always(sealed), hang) as (servers, nodes):
            told = await refusal(servers)
            assert f"Vault at {nodes[0].endpoint.label} is sealed, or not ready" in told
            assert f"Vault at {nodes[1].endpoint.label} did not answer in time" in told
            assert "canary" not in told

    asyncio.run(test())


@pytest.mark.parametrize(
    ("status", "word", "remedy"),
    [
        (503, "sealed", "unseal it"),
        (429, "throttled", "rate limit quota"),
        (307, None, "the address of each node"),
        (501, None, "initialise"),
        (530, None, None),
    ],
)
def test_an_outage_says_what_to_do(status: int, word: str | None, remedy: str | None) -> None:
    async def test() -> None:
        async with vault(always(reply(status)), always(reply(status))) as (servers, _):
            with pytest.raises(ProtectorUnavailableError) as caught:
                await ask(servers)
            assert caught.value.reason == word
            assert caught.value.hint == remedy if remedy is None else remedy in str(caught.value.hint)
        async with vault(always(reply(status)), always(reply(474))) as (servers, _):
            with pytest.raises(ProtectorUnavailableError) as caught:
                await ask(servers)
            assert caught.value.reason is None  # it is not the same for all

    asyncio.run(test())


def test_there_are_three_attempts() -> None:
    async def test() -> None:
        async with vault(always(reply(503))) as (servers, nodes):
            await refusal(servers)
            assert len(nodes[0].seen) == 3

    asyncio.run(test())


def test_a_node_that_recovers_between_attempts_is_good_enough() -> None:
    async def test() -> None:
        async def second_time(asked: Asked) -> bytes:
            return reply(503 if len(nodes[0].seen) < 2 else 200, b"good")

        async with vault(second_time) as (servers, nodes):
            assert await ask(servers) == b"good"

    asyncio.run(test())


def test_nobody_waits_longer_than_they_said() -> None:
    async def test() -> None:
        slow = Patience(answer_s=60, batch_s=60)
        async with vault(hang, hang, patience=slow) as (servers, _):
            began = time.monotonic()
            await refusal(servers, 0.1)
            assert time.monotonic() - began < 3

    asyncio.run(test())


def test_one_that_hangs_leaves_time_for_the_others() -> None:
    async def test() -> None:
        slow = Patience(connect_s=0.1, answer_s=60, batch_s=60)
        async with vault(hang, hang, always(reply(200, b"good")), patience=slow) as (servers, nodes):
            assert await ask(servers, 0.9) == b"good"
            assert [len(node.seen) for node in nodes] == [1, 1, 1]
            assert await ask(servers, 0.9) == b"good"  # they were given time enough to count as failed
            assert [len(node.seen) for node in nodes] == [1, 1, 2]

    asyncio.run(test())


# -- too many requests


def test_who_is_asked_to_wait_waits_and_asks_again() -> None:
    async def test() -> None:
        times: list[float] = []

        async def script(asked: Asked) -> bytes:
            times.append(time.monotonic())
            return reply(429, b"", {"Retry-After": "1"}) if len(times) == 1 else reply(200, b"good")

        async with vault(script) as (servers, _):
            assert await ask(servers) == b"good"
            assert times[1] - times[0] >= 0.99

    asyncio.run(test())


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "0"}])
def test_retry_after_0_is_rounded_down_so_our_own_pause_counts(headers: dict[str, str]) -> None:
    async def test() -> None:
        pauses: list[float] = []
        sleep = asyncio.sleep

        async def recorded(seconds: float) -> None:
            pauses.append(seconds)
            await sleep(0)

        patience = Patience(first_pause_s=0.25, longest_pause_s=0.3)
        async with vault(always(reply(429, b"", headers)), patience=patience) as (servers, nodes):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(asyncio, "sleep", recorded)
                assert "asks for fewer requests" in await refusal(servers)
            assert len(nodes[0].seen) == 3
            assert len(pauses) == 2
            assert 0 < pauses[0] <= 0.25
            assert 0 < pauses[1] <= 0.3

    asyncio.run(test())


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    async def test() -> None:
        async with vault(always(reply(429, b"", {"Retry-After": "30"}))) as (servers, nodes):
            began = time.monotonic()
            assert "asks for fewer requests" in await refusal(servers)
            assert time.monotonic() - began < 3
            assert len(nodes[0].seen) == 1

    asyncio.run(test())


def test_a_limit_on_requests_says_nothing_against_the_node() -> None:
    async def test() -> None:
        async def script(asked: Asked) -> bytes:
            return reply(429) if len(nodes[0].seen) <= 6 else reply(200, b"good")

        async with vault(script) as (servers, nodes):
            for _ in range(2):
                await refusal(servers)
            assert await ask(servers) == b"good"

    asyncio.run(test())


# -- the circuit breaker


def test_after_five_failures_a_node_is_not_asked_any_more(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with vault(always(reply(503))) as (servers, nodes):
            with caplog.at_level(logging.WARNING):
                for _ in range(2):
                    await refusal(servers)
                assert len(nodes[0].seen) == OPENING_FAILURES
                assert "is sealed" in await refusal(servers)  # at once, and it still says why
                assert len(nodes[0].seen) == OPENING_FAILURES
        assert caplog.text.count("is not asked any more") == 1
        assert "canary" not in caplog.text

    asyncio.run(test())


def test_it_is_probed_with_the_token_and_comes_back_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    sealed = True

    async def script(asked: Asked) -> bytes:
        return reply(503 if sealed else 200, b"good")

    async def test() -> None:
        nonlocal sealed
        async with vault(script, patience=PROBING) as (servers, nodes):
            for _ in range(2):
                await refusal(servers)
            await until(lambda: len(nodes[0].seen) > OPENING_FAILURES + 1)
            probe = nodes[0].seen[-1]
            assert (probe.method, probe.path) == ("GET", "/v1/auth/token/lookup-self")
            assert probe.headers["x-vault-token"] == "hvs.canary-token"
            assert "is sealed" in await refusal(servers)
            sealed = False
            await until(lambda: "answers again" in caplog.text)
            assert await ask(servers) == b"good"

    asyncio.run(test())


@pytest.mark.parametrize("bad", [always(reply(500, {"errors": ["internal error"]})), hang], ids=["500", "hangs"])
def test_a_probe_that_is_not_authenticated_and_audited_proves_nothing(bad: Script) -> None:
    """With a full or blocked audit device health is 200 and every other call fails."""

    async def script(asked: Asked) -> bytes | None:
        return reply(200) if asked.path == "/v1/sys/health" else await bad(asked)

    async def test() -> None:
        async with vault(script, patience=PROBING) as (servers, nodes):
            with pytest.raises(ProtectorUnavailableError):
                await servers.ask(REQUEST, TOKEN, asyncio.get_running_loop().time() + 5, _no_500)
            await until(lambda: len(nodes[0].seen) > OPENING_FAILURES + 2)
            seen = [asked.path for asked in nodes[0].seen].count("/v1/transit/decrypt/k")
            await refusal(servers)
            assert [asked.path for asked in nodes[0].seen].count("/v1/transit/decrypt/k") == seen

    asyncio.run(test())


def _no_500(answer: Answer) -> bytes:
    if answer.status == 500:
        raise NoAnswerError("answers 500")
    return answer.body


def test_a_token_that_is_refused_shows_that_the_node_works(caplog: pytest.LogCaptureFixture) -> None:
    is_sealed = True

    async def script(asked: Asked) -> bytes:
        if is_sealed:
            return reply(503)
        return reply(403) if asked.path.endswith("lookup-self") else reply(200, b"good")

    async def test() -> None:
        nonlocal is_sealed
        async with vault(script, patience=PROBING) as (servers, _):
            for _ in range(2):
                await refusal(servers)
            is_sealed = False
            await until(lambda: "answers again" in caplog.text)
            assert await ask(servers) == b"good"

    asyncio.run(test())


def test_a_node_that_failed_is_used_again_once_a_probe_shows_it_well() -> None:
    async def test() -> None:
        async def once_bad(asked: Asked) -> bytes:
            return reply(503 if len(nodes[0].seen) == 1 else 200, b"first")

        async with vault(once_bad, always(reply(200, b"second")), patience=PROBING) as (servers, nodes):
            assert await ask(servers) == b"second"
            await until(lambda: len(nodes[0].seen) > 1)
            assert nodes[0].seen[1].path.endswith("lookup-self")
            deadline = time.monotonic() + DEADLINE_S
            while await ask(servers) != b"first":
                assert time.monotonic() < deadline

    asyncio.run(test())


def test_a_caller_in_a_hurry_says_nothing_against_a_node() -> None:
    async def test() -> None:
        answers = asyncio.Event()

        async def script(asked: Asked) -> bytes:
            await answers.wait()
            return reply(200, b"good")

        patient = Patience(connect_s=5, answer_s=30, batch_s=30)
        async with vault(script, patience=patient) as (servers, _):
            for _ in range(OPENING_FAILURES + 1):
                assert "in time" in await refusal(servers, 0.01)
            answers.set()
            assert await ask(servers) == b"good"

    asyncio.run(test())


def test_requests_go_to_whoever_has_the_fewest() -> None:
    async def test() -> None:
        everybody = asyncio.Event()

        async def script(asked: Asked) -> bytes:
            if sum(len(node.seen) for node in nodes) == 6:
                everybody.set()
            await everybody.wait()
            return reply(200)

        patient = Patience(answer_s=30)
        async with vault(script, script, script, patience=patient) as (servers, nodes):
            await asyncio.gather(*[ask(servers) for _ in range(6)])
            assert [len(node.seen) for node in nodes] == [2, 2, 2]

    asyncio.run(test())


def test_what_cannot_be_asked_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="no address"):
        VaultServers([], None)
    with pytest.raises(ConfigError, match="namespace"):
        VaultServers([Endpoint("x", "h", 1)], None, "a\r\nX-Vault-Token: b")


def test_the_configuration_says_who_is_asked_and_with_what(certificates: Certificates, tmp_path: Path) -> None:
    replace_file(tmp_path / "token", TOKEN.reveal())

    async def test() -> None:
        server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_tls.load_cert_chain(certificates.server.certificate, certificates.server.key)
        async with (
            scripted_node(always(reply(200, b"node")), server_tls, host="localhost") as node,
            scripted_node(always(reply(200, b"agent")), socket=tmp_path / "agent") as agent,
        ):
            by_address = VaultBlock(
                addresses=[node.endpoint.label],
                cluster="c1",
                namespace="team",
                ca_file=certificates.trusted,
                token_file=tmp_path / "token",
                auth=VaultAuthBlock(method="token_file"),
            )
            by_socket = VaultBlock(cluster="c1", auth=VaultAuthBlock(method="agent", socket=tmp_path / "agent"))
            for block, answer, asked in ((by_address, b"node", node), (by_socket, b"agent", agent)):
                servers = VaultServers.of(vault_settings(block))
                token = servers.tokens.current() if servers.tokens is not None else None
                assert await servers.ask(REQUEST, token, asyncio.get_running_loop().time() + 5, body_of) == answer
                assert asked.seen[0].headers.get("x-vault-token") == (None if asked is agent else "hvs.canary-token")
                assert asked.seen[0].headers.get("x-vault-namespace") == (None if asked is agent else "team")
                await servers.close()

    asyncio.run(test())


def test_a_request_does_not_print_its_body() -> None:
    assert "batch_input" not in repr(REQUEST)
