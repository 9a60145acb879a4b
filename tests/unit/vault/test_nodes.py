"""Finding the active node."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from ringfence_agent.vault.exchange import Patience, VaultAnswer, VaultRequest
from ringfence_agent.vault.nodes import Nodes, Role
from ringfence_zones.errors import ProtectorUnavailableError

HEALTHY = b'{"initialized":true,"sealed":false,"standby":false,"version":"2.6.2"}'


@dataclass
class Node:
    """A way to a node that says one thing."""

    status: int | None
    body: bytes = HEALTHY
    asked: list[VaultRequest] = field(default_factory=list)

    def send(self, request: VaultRequest, patience: Patience) -> VaultAnswer:
        assert patience.whole_s <= 5
        self.asked.append(request)
        if self.status is None:
            raise ProtectorUnavailableError("Vault at x does not answer: connection refused")
        return VaultAnswer(self.status, self.body)

    def close(self) -> None:
        pass


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_first_that_says_it_is_active_is_and_is_believed_for_a_second() -> None:
    clock, standby, active = Clock(), Node(429), Node(200)
    nodes = Nodes({"a": standby, "b": active}, clock)
    assert [nodes.choose(pure=False), nodes.choose(pure=False)] == ["b", "b"]
    assert (len(standby.asked), len(active.asked)) == (1, 1)
    clock.now += 1.1
    assert nodes.choose(pure=False) == "b"
    assert (len(standby.asked), len(active.asked)) == (1, 2), "the one that was active last is asked first"


def test_another_is_found_when_the_active_one_steps_down_or_is_forgotten() -> None:
    first, second = Node(200), Node(429)
    nodes = Nodes({"a": first, "b": second}, Clock())
    assert nodes.choose(pure=False) == "a"
    first.status, second.status = 429, 200
    assert nodes.choose(pure=False) == "a", "not asked again yet"
    nodes.forget("b")
    assert nodes.choose(pure=False) == "a", "another's failure says nothing about it"
    nodes.forget("a")
    assert nodes.choose(pure=False) == "b"


def test_health_is_asked_for_without_token_namespace_or_parameters() -> None:
    node = Node(200)
    Nodes({"a": node}).choose(pure=False)
    (asked,) = node.asked
    assert (asked.method, asked.path, dict(asked.params), asked.namespace, len(asked.token)) == (
        "GET",
        "sys/health",
        {},
        None,
        0,
    )


@pytest.mark.parametrize(
    ("statuses", "message", "hint"),
    [
        ([503, 503], "a is sealed; b is sealed", "unseal"),
        ([429, 429], "a is a standby; b is a standby", "name every node"),
        ([None, 429], "a is not answering (connection refused); b is a standby", "name every node"),
        ([501], "a is not initialised", "initialise"),
        ([None], "a is not answering", "addresses"),
        ([404], "something that does not answer sys/health as Vault does", "addresses"),
    ],
)
def test_without_an_active_node_the_error_says_what_each_is(
    statuses: list[int | None], message: str, hint: str
) -> None:
    nodes = Nodes({name: Node(status) for name, status in zip("abc", statuses, strict=False)})
    with pytest.raises(ProtectorUnavailableError) as caught:
        nodes.choose(pure=False)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_some_other_server_that_says_200_is_not_taken_for_vault() -> None:
    nodes = Nodes({"a": Node(200, b"<html>it works</html>")})
    assert nodes.probe("a").role is Role.UNKNOWN


def test_a_standby_does_for_a_pure_operation_when_no_node_is_active() -> None:
    asked = {"a": Node(503), "b": Node(429), "c": Node(473)}
    assert Nodes(asked).choose(pure=True) == "b"
    assert [len(node.asked) for node in asked.values()] == [1, 1, 1], "nobody is asked twice"
    with pytest.raises(ProtectorUnavailableError):
        Nodes({"a": Node(503), "b": Node(None)}).choose(pure=True)
    assert Nodes({"a": Node(429), "b": Node(200)}).choose(pure=True) == "b"


def test_a_version_is_shown_only_when_it_looks_like_one() -> None:
    assert Nodes({"a": Node(200)}).probe("a").version == "2.6.2"
    assert Nodes({"a": Node(200, b'{"sealed":false,"version":"' + b"x" * 100 + b'"}')}).probe("a").version == ""
