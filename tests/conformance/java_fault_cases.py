"""The Java client when requests go wrong: what it sends again, to whom, and what its caller gets.

Each step goes through a proxy that spoils the first requests; the record says what arrived there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from faulty_proxy import Fault, faulty_proxy
from java_client import JavaClient

_ONCE = (
    Fault.NO_ANSWER,
    Fault.ANSWER_LOST,
    Fault.UNAVAILABLE,
    Fault.RETRIABLE,
    Fault.IO_ERROR,
    Fault.UNAUTHORIZED,
    Fault.FORBIDDEN,
)
Operation = Callable[[JavaClient, Any, str], Any]


def _after_each_fault(client: JavaClient, keys: Callable[[str], str], operation: Operation) -> None:
    """`keys` gives the name of the key for a step."""
    for fault in _ONCE:
        step = _step(fault)
        key = keys(step)
        with faulty_proxy(client.server.port, [fault]) as proxy:
            through = client.at(proxy.server_port)
            through.step(step, lambda t=through, k=key: operation(t, t.provider(), k))
            client.note(f"{step}-asked", client.text(" | ".join(proxy.asked)))
        metadata = client.provider().getMetadata(key)
        client.note(f"{step}-after", "no key" if metadata is None else f"{metadata.getVersions()} versions")


def _step(fault: Fault) -> str:
    return fault.name.lower().replace("_", "-")


def _made(client: JavaClient, name: str) -> str:
    key = client.key(name)
    client.provider().createKey(key, client.options())
    return key


def read(client: JavaClient) -> None:
    key = _made(client, "j-read")
    _after_each_fault(client, lambda _step: key, lambda _client, provider, key: provider.getMetadata(key))


def create(client: JavaClient) -> None:
    _after_each_fault(
        client,
        lambda step: client.key(f"j-create-{step}"),
        lambda client, provider, key: provider.createKey(key, client.options()),
    )


def roll(client: JavaClient) -> None:
    key = _made(client, "j-roll")
    _after_each_fault(client, lambda _step: key, lambda _client, provider, key: provider.rollNewVersion(key))


def delete(client: JavaClient) -> None:
    _after_each_fault(
        client,
        lambda step: _made(client, f"j-delete-{step}"),
        lambda _client, provider, key: provider.deleteKey(key),
    )


def decrypt(client: JavaClient) -> None:
    key = _made(client, "j-eeks")
    edek = client.crypto(client.provider()).generateEncryptedKey(key)
    _after_each_fault(
        client, lambda _step: key, lambda client, provider, _key: client.crypto(provider).decryptEncryptedKey(edek)
    )


def answers_too_late(client: JavaClient) -> None:
    hasty = {"hadoop.security.kms.client.timeout": "1"}
    for name, operation in (
        ("read", lambda provider, key, _options: provider.getMetadata(key)),
        ("create", lambda provider, key, options: provider.createKey(f"{key}-new", options)),
        ("roll", lambda provider, key, _options: provider.rollNewVersion(key)),
    ):
        key = _made(client, f"j-late-{name}")
        with faulty_proxy(client.server.port, [Fault.SLOW]) as proxy:
            through = client.at(proxy.server_port, hasty)
            through.step(name, lambda t=through, k=key, do=operation: do(t.provider(), k, t.options()))
            client.note(f"{name}-asked", client.text(" | ".join(proxy.asked)))


def one_of_two_hosts_is_ill(client: JavaClient) -> None:
    """The second host is well: whatever the client begins with, its caller should not notice, but for refusals."""
    for fault in (Fault.NO_ANSWER, Fault.UNAVAILABLE, Fault.RETRIABLE, Fault.IO_ERROR, Fault.FORBIDDEN):
        port = client.server.port
        with (
            faulty_proxy(port, [], host="127.0.0.1") as well,
            faulty_proxy(port, [fault], host="127.0.0.2", port=well.server_port, for_ever=True),
        ):
            _use_two_hosts(client, client.at(well.server_port), _step(fault))


def _use_two_hosts(client: JavaClient, through: JavaClient, step: str) -> None:
    key, options = client.key(f"j-ill-{step}"), client.options()
    for turn in range(2):  # The list begins at another host each time.
        provider = through.provider("127.0.0.2;127.0.0.1")
        through.step(f"{step}-create-{turn}", lambda p=provider, n=turn: p.createKey(f"{key}-{n}", options))
        through.step(f"{step}-read-{turn}", lambda p=provider: p.getMetadata(f"{key}-0"))
    through.step(f"{step}-roll", lambda: provider.rollNewVersion(f"{key}-0"))
    client.note(f"{step}-after-roll", str(client.provider().getMetadata(f"{key}-0").getVersions()))
