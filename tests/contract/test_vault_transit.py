"""The data path to Vault Transit against a server with real cryptography: the double, and the real one that
RINGFENCE_TEST_VAULT_ADDR and RINGFENCE_TEST_VAULT_TOKEN name.

What only a double can be made to do (seal itself, lag, hang) is in the second half.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import vault_contract
from vault_contract import ContractServer, real_server
from vault_doubles import VaultDouble, running_vault

from ringfence_agent.vault.batching import MicroBatcher
from ringfence_agent.vault.connection import Endpoint, make_tls_context
from ringfence_agent.vault.servers import Patience, VaultServers
from ringfence_agent.vault.token_file import TokenFile
from ringfence_agent.vault.transit import Transit
from ringfence_agent.vault.transit_wire import (
    EncryptItem,
    ItemFault,
    OpenItem,
    RewrapItem,
    TransitCiphertext,
    ciphertext_in,
    edek_context,
    edek_from,
)
from ringfence_zones.durable_file import replace_file
from ringfence_zones.errors import ProtectorRefusedError, ProtectorUnavailableError
from ringfence_zones.secret import Secret

_KINDS = [
    "double",
    *(["real"] if os.environ.get(vault_contract.ADDRESS) and os.environ.get(vault_contract.TOKEN) else []),
]
SERVICE = """
path "{transit}/encrypt/+" { capabilities = ["update"] }
path "{transit}/decrypt/+" { capabilities = ["update"] }
path "{transit}/rewrap/+"  { capabilities = ["update"] }
path "{transit}/keys/+"    { capabilities = ["read"] }
path "auth/token/lookup-self" { capabilities = ["read"] }
"""
WITHOUT_KEYS = SERVICE.replace('path "{transit}/keys/+"    { capabilities = ["read"] }\n', "")
NOTHING = 'path "auth/token/lookup-self" { capabilities = ["read"] }'


@pytest.fixture(scope="module", params=_KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[ContractServer]:
    if request.param == "real":
        found = real_server()
        assert found is not None
        try:
            yield found
        finally:
            found.clean_up()
        return
    with running_vault() as double:
        yield ContractServer(double.address, double.root_token, double=double)


class Vault:
    """The product's client of one contract server, with a token file of its own."""

    def __init__(self, server: ContractServer, servers: VaultServers, token_file: Path) -> None:
        self.servers = servers
        self.transit = Transit(servers, server.transit)
        self.token_file = token_file

    def hand_over(self, token: str) -> None:
        """As a login does."""
        replace_file(self.token_file, token.encode())


@asynccontextmanager
async def client(
    server: ContractServer,
    directory: Path,
    policy: str = SERVICE,
    addresses: Sequence[str] = (),
    patience: Patience | None = None,
) -> AsyncIterator[Vault]:
    """A client whose token has `policy` alone."""
    token = await asyncio.to_thread(server.token_for, policy)
    path = directory / "vault-token"
    replace_file(path, token.encode())
    tls = make_tls_context(server.ca_file) if server.address.startswith("https:") else None
    endpoints = [Endpoint.at_url(address, tls) for address in addresses or [server.address]]
    servers = VaultServers(endpoints, TokenFile(path), server.namespace or None, patience)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(servers.close)
        yield Vault(server, servers, path)


def soon(seconds: float = 20.0) -> float:
    return asyncio.get_running_loop().time() + seconds


def context_of(number: int) -> bytes:
    return edek_context("z-id", "zone", number.to_bytes(16, "big"))


def dek(number: int) -> Secret:
    return Secret(number.to_bytes(32, "big"))


async def make(transit: Transit, key: str, count: int, version: int = 1) -> list[OpenItem]:
    """DEKs 0 to `count`, each in its own context."""
    items = [EncryptItem(dek(number), context_of(number), version) for number in range(count)]
    made = await transit.encrypt(key, items, soon())
    assert all(isinstance(each, TransitCiphertext) for each in made)
    return [
        OpenItem(each, context_of(number)) for number, each in enumerate(made) if isinstance(each, TransitCiphertext)
    ]


def to_version(version: int, items: Sequence[OpenItem]) -> list[RewrapItem]:
    return [RewrapItem(*item, version) for item in items]


def flipped(item: OpenItem) -> OpenItem:
    raw = bytearray(item.ciphertext.raw)
    raw[20] ^= 1
    return OpenItem(TransitCiphertext(item.ciphertext.version, bytes(raw)), item.context)


def as_version(item: OpenItem, version: int) -> OpenItem:
    return OpenItem(TransitCiphertext(version, item.ciphertext.raw), item.context)


def test_deks_are_made_opened_and_rewrapped_in_their_order(server: ContractServer, tmp_path: Path) -> None:
    key = server.key()

    async def test() -> None:
        async with client(server, tmp_path) as vault:
            items = await make(vault.transit, key, 300)
            assert await vault.transit.decrypt(key, items, soon()) == [dek(number) for number in range(300)]
            await asyncio.to_thread(server.rotate, key)
            again = await vault.transit.rewrap(key, to_version(2, items), soon())
            renewed = [
                OpenItem(each, context_of(n)) for n, each in enumerate(again) if isinstance(each, TransitCiphertext)
            ]
            assert {item.ciphertext.version for item in renewed} == {2}
            assert await vault.transit.decrypt(key, renewed, soon()) == [dek(number) for number in range(300)]

    asyncio.run(test())


def test_an_edek_goes_through_hdfs_and_back(server: ContractServer, tmp_path: Path) -> None:
    key = server.key()

    async def test() -> None:
        async with client(server, tmp_path) as vault:
            (item,) = await make(vault.transit, key, 1)
            edek = edek_from(item.ciphertext)
            assert len(edek) == 66
            read = OpenItem(ciphertext_in(edek, "zone@0", 1), item.context)
            assert await vault.transit.decrypt(key, [read], soon()) == [dek(0)]

    asyncio.run(test())


def test_an_item_that_does_not_open_fails_alone(server: ContractServer, tmp_path: Path) -> None:
    key, other = server.key(), server.key()

    async def test() -> None:
        async with client(server, tmp_path) as vault:
            one, two = await make(vault.transit, key, 2)
            (foreign,) = await make(vault.transit, other, 1)
            bad = [flipped(one), OpenItem(one.ciphertext, two.context), foreign]
            found = await vault.transit.decrypt(key, [one, *bad, two], soon())
            assert found == [dek(0), *[ItemFault.CORRUPT] * 3, dek(1)]
            again = await vault.transit.rewrap(key, to_version(1, [*bad, two]), soon())
            assert again[:3] == [ItemFault.CORRUPT] * 3
            assert isinstance(again[3], TransitCiphertext)
            assert await vault.transit.decrypt(key, bad, soon()) == [ItemFault.CORRUPT] * 3

    asyncio.run(test())


def test_versions_ahead_and_retired_are_told_apart(server: ContractServer, tmp_path: Path) -> None:
    key = server.key()

    async def test() -> None:
        async with client(server, tmp_path) as vault:
            (old,) = await make(vault.transit, key, 1)
            ahead = [EncryptItem(dek(1), context_of(1), 2)]
            assert await vault.transit.encrypt(key, ahead, soon()) == [ItemFault.VERSION_AHEAD]
            await asyncio.to_thread(server.rotate, key, 2)
            (new,) = await make(vault.transit, key, 1, version=3)
            answer = await asyncio.to_thread(server.configure, key, min_decryption_version=3, min_encryption_version=3)
            assert answer.status < 300
            items = [old, new, as_version(new, 9)]
            expected = [ItemFault.VERSION_RETIRED, dek(0), ItemFault.VERSION_AHEAD]
            assert await vault.transit.decrypt(key, items, soon()) == expected
            retired = [EncryptItem(dek(1), context_of(1), 1)]
            assert await vault.transit.encrypt(key, retired, soon()) == [ItemFault.VERSION_RETIRED]

    asyncio.run(test())


def test_a_key_that_is_not_there_is_told_for_every_operation(server: ContractServer, tmp_path: Path) -> None:
    key, missing = server.key(), server.fresh("missing")

    async def test() -> None:
        async with client(server, tmp_path) as vault:
            items = await make(vault.transit, key, 2)
            expected = [ItemFault.NO_SUCH_KEY] * 2
            assert await vault.transit.decrypt(missing, items, soon()) == expected
            assert await vault.transit.rewrap(missing, to_version(1, items), soon()) == expected
            new = [EncryptItem(dek(1), context_of(1), 1)] * 2
            assert await vault.transit.encrypt(missing, new, soon()) == expected
            assert server.call("GET", f"{server.transit}/keys/{missing}").status == 404

    asyncio.run(test())


def test_without_the_right_to_look_at_keys_a_missing_one_looks_like_a_wrong_policy(
    server: ContractServer, tmp_path: Path
) -> None:
    async def test() -> None:
        async with client(server, tmp_path, WITHOUT_KEYS) as vault:
            with pytest.raises(ProtectorRefusedError, match="does not allow") as caught:
                await vault.transit.encrypt(server.fresh("missing"), [EncryptItem(dek(1), context_of(1), 1)], soon())
            assert caught.value.reason == "policy"

    asyncio.run(test())


def test_a_disabled_key_is_told_for_every_operation(server: ContractServer, tmp_path: Path) -> None:
    if not server.flavour.has_soft_delete:
        return  # OpenBao's alone
    key = server.key()

    async def test() -> None:
        async with client(server, tmp_path) as vault:
            items = await make(vault.transit, key, 2)
            await asyncio.to_thread(server.done, "DELETE", f"{server.transit}/keys/{key}/soft-delete")
            expected = [ItemFault.KEY_DISABLED] * 2
            assert await vault.transit.decrypt(key, items, soon()) == expected
            assert await vault.transit.rewrap(key, to_version(1, items), soon()) == expected
            new = [EncryptItem(dek(1), context_of(1), 1)] * 2
            assert await vault.transit.encrypt(key, new, soon()) == expected

    asyncio.run(test())


def test_a_policy_without_the_right_is_a_refusal(server: ContractServer, tmp_path: Path) -> None:
    key = server.key()

    async def test() -> None:
        async with client(server, tmp_path) as vault:
            items = await make(vault.transit, key, 2)
        async with client(server, tmp_path, NOTHING) as vault:
            with pytest.raises(ProtectorRefusedError, match="does not allow") as caught:
                await vault.transit.decrypt(key, items, soon())
            assert caught.value.reason == "policy"

    asyncio.run(test())


def test_a_revoked_token_means_later_and_its_successor_is_picked_up(server: ContractServer, tmp_path: Path) -> None:
    key = server.key()

    async def test() -> None:
        async with client(server, tmp_path) as vault:
            items = await make(vault.transit, key, 2)
            old = vault.token_file.read_text()
            successor = await asyncio.to_thread(server.token_for, SERVICE)
            await asyncio.to_thread(server.done, "POST", "auth/token/revoke", {"token": old})
            with pytest.raises(ProtectorUnavailableError) as caught:
                await vault.transit.decrypt(key, items, soon())
            assert caught.value.reason == "token_dead"
            vault.hand_over(successor)
            assert await vault.transit.decrypt(key, items, soon()) == [dek(0), dek(1)]

    asyncio.run(test())


def test_an_engine_that_is_not_there_is_a_refusal(server: ContractServer, tmp_path: Path) -> None:
    async def test() -> None:
        async with client(server, tmp_path) as vault:
            vault.hand_over(server.token)
            nowhere = Transit(vault.servers, server.fresh("nowhere"))
            with pytest.raises(ProtectorRefusedError, match="no Transit engine") as caught:
                await nowhere.decrypt("key", [OpenItem(TransitCiphertext(1, bytes(60)), context_of(1))], soon())
            assert caught.value.reason == "no_transit_engine"

    asyncio.run(test())


def test_a_batch_over_the_servers_limit_is_halved(server: ContractServer, tmp_path: Path) -> None:
    if server.flavour.max_json_strings is None:
        return  # OpenBao's alone
    key = server.key()

    async def test() -> None:
        async with client(server, tmp_path) as vault:
            items = await make(vault.transit, key, 300)
            vault.transit.batch_items = 300
            assert await vault.transit.decrypt(key, items, soon()) == [dek(number) for number in range(300)]
            assert vault.transit.batch_items == 150

    asyncio.run(test())


def test_waiting_decrypts_share_calls(server: ContractServer, tmp_path: Path) -> None:
    key = server.key()

    async def test() -> None:
        async with client(server, tmp_path) as vault:
            items = await make(vault.transit, key, 64)
            batcher = MicroBatcher(vault.transit, 2)

            async def one(number: int) -> None:
                for _ in range(5):
                    assert await batcher.decrypt(key, [items[number]], f"user{number % 3}", soon()) == [dek(number)]

            if server.double is not None:
                server.double.forget_requests()
            await asyncio.gather(*[one(number) for number in range(64)])
            await batcher.close()
            if server.double is not None:
                assert len(server.double.requests("/decrypt/")) <= 320 / 8

    asyncio.run(test())


# -- what only a double can be made to do

QUICK = Patience(answer_s=0.3, batch_s=0.3, first_pause_s=0.001, longest_pause_s=0.01, probe_every_s=0.05)


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[ContractServer]:
    with running_vault(nodes=3, lag_s=0.1) as double:
        yield ContractServer(double.address, double.root_token, double=double)


@pytest.fixture(scope="module")
def one_node() -> Iterator[ContractServer]:
    with running_vault(with_unix_socket=True) as double:
        yield ContractServer(double.address, double.root_token, double=double)


def double_of(server: ContractServer) -> VaultDouble:
    assert server.double is not None
    return server.double


async def until_it_decrypts(vault: Vault, key: str, items: Sequence[OpenItem]) -> None:
    deadline = soon()
    while True:
        try:
            assert await vault.transit.decrypt(key, items, soon(2)) == [dek(number) for number in range(len(items))]
        except ProtectorUnavailableError:
            assert asyncio.get_running_loop().time() < deadline, "it did not recover"
            await asyncio.sleep(0.02)
        else:
            return


def test_a_sealed_vault_is_unavailable_and_comes_back_with_the_same_token(
    one_node: ContractServer, tmp_path: Path
) -> None:
    double, key = double_of(one_node), one_node.key()

    async def test() -> None:
        async with client(one_node, tmp_path, patience=QUICK) as vault:
            items = await make(vault.transit, key, 2)
            double.seal()
            for _ in range(3):
                with pytest.raises(ProtectorUnavailableError, match="sealed"):
                    await vault.transit.decrypt(key, items, soon(2))
            double.unseal()
            await until_it_decrypts(vault, key, items)

    asyncio.run(test())


@pytest.mark.parametrize("action", ["hang", "drop", "truncate"])
def test_another_node_answers_for_one_that_does_not(three_nodes: ContractServer, tmp_path: Path, action: str) -> None:
    double, key = double_of(three_nodes), three_nodes.key()

    async def test() -> None:
        async with client(three_nodes, tmp_path, addresses=double.addresses, patience=QUICK) as vault:
            items = await make(vault.transit, key, 2)
            await until_it_decrypts(vault, key, items)
            with double.fault(action, node=0) as rule:
                for _ in range(6):
                    assert await vault.transit.decrypt(key, items, soon()) == [dek(0), dek(1)]
                assert double.met(rule) >= 1

    asyncio.run(test())


def test_no_redirect_is_followed(three_nodes: ContractServer, tmp_path: Path) -> None:
    double, key = double_of(three_nodes), three_nodes.key()

    async def test() -> None:
        async with client(three_nodes, tmp_path, addresses=double.addresses[:1], patience=QUICK) as vault:
            items = await make(vault.transit, key, 2)
            double.forget_requests()
            location = {"Location": f"{double.addresses[1]}/v1/{three_nodes.transit}/decrypt/{key}"}
            with (
                double.fault("status", node=0, status=307, headers=location),
                pytest.raises(ProtectorUnavailableError, match="redirect"),
            ):
                await vault.transit.decrypt(key, items, soon(2))
            assert {seen["node"] for seen in double.requests("/decrypt/")} == {0}

    asyncio.run(test())


def test_a_version_that_a_standby_learns_late_costs_only_a_moment(three_nodes: ContractServer, tmp_path: Path) -> None:
    double, key = double_of(three_nodes), three_nodes.key()

    async def test() -> None:
        async with (
            client(three_nodes, tmp_path, addresses=double.addresses[:1]) as active,
            client(three_nodes, tmp_path, addresses=double.addresses[1:2]) as standby,
        ):
            items = await make(active.transit, key, 1)
            await until_it_decrypts(standby, key, items)
            batcher = MicroBatcher(standby.transit)
            await asyncio.to_thread(three_nodes.rotate, key)
            (new,) = await make(active.transit, key, 1, version=2)
            assert await standby.transit.decrypt(key, [new], soon()) == [ItemFault.VERSION_AHEAD]
            assert await batcher.decrypt(key, [new], "etl", soon()) == [dek(0)]
            await batcher.close()

    asyncio.run(test())


def test_a_quota_is_waited_out(one_node: ContractServer, tmp_path: Path) -> None:
    double, key = double_of(one_node), one_node.key()

    async def test() -> None:
        async with client(one_node, tmp_path) as vault:
            items = await make(vault.transit, key, 2)
            with double.fault("status", path="/decrypt/", status=429, headers={"Retry-After": "1"}, times=1):
                began = asyncio.get_running_loop().time()
                assert await vault.transit.decrypt(key, items, soon()) == [dek(0), dek(1)]
                assert asyncio.get_running_loop().time() - began >= 0.99

    asyncio.run(test())


def test_a_socket_is_as_good_as_an_address(one_node: ContractServer, tmp_path: Path) -> None:
    """The double's socket wants a token, as a Vault's own would; an Agent would add it."""
    double, key = double_of(one_node), one_node.key()
    replace_file(tmp_path / "token", double.root_token.encode())

    async def test() -> None:
        assert double.unix_socket is not None
        servers = VaultServers([Endpoint.at_socket(double.unix_socket)], TokenFile(tmp_path / "token"))
        transit = Transit(servers, one_node.transit)
        items = await make(transit, key, 2)
        assert await transit.decrypt(key, items, soon()) == [dek(0), dek(1)]
        await servers.close()

    asyncio.run(test())
