"""kill -9 between every two steps of a create and a roll in custody `transit`, and the same request sent again.

Crash points are enumerated, not listed: a rehearsal runs the request to its end in a child and writes down each step
(before and after each call to Vault, each write of the store and its commit, the answer). Then one child per step stops
there, and this process kills it. Whatever it left: the store verifies, the client's second try is
answered, one version was made, files that were made before open, and Vault has all that the store names.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kms_serving import KmsPlace
from local_stores import in_child, kill, read_all
from vault_clusters import VaultCluster

from ringfence_agent.http.generation import GenerationTable
from ringfence_agent.http.request import Peer, Request
from ringfence_agent.http.response import Response
from ringfence_agent.http.worker import WorkerContext
from ringfence_agent.keystore.held import is_zone_key_name
from ringfence_agent.keystore.held_check import find_held_problems
from ringfence_agent.keystore.open import open_keystore
from ringfence_agent.kms.config import Options, load_settings
from ringfence_agent.kms.monitoring.config import MetricsAccess
from ringfence_agent.kms.monitoring.metrics import MetricsTable
from ringfence_agent.kms.monitoring.pages import ServerFacts
from ringfence_agent.kms.serve import open_application
from ringfence_agent.kms.store_record import StoreRecord
from ringfence_agent.vault.control import VaultControl
from ringfence_agent.vault.servers import VaultServers

WAIT_S = 30.0
KEYS = b"/kms/v1/keys"
CREATE = json.dumps({"name": "k", "length": 256, "attributes": {"ringfence.custody": "transit"}}).encode()
KEY = b"/kms/v1/key/k"
_WRITES = ("INSERT", "UPDATE", "DELETE", "COMMIT")


@dataclass
class Scene:
    """A KMS that is opened in whatever process acts, on a Vault that outlives it."""

    place: KmsPlace
    config: Path
    cluster: VaultCluster

    @classmethod
    def make(cls, directory: Path, cluster: VaultCluster) -> Scene:
        place = KmsPlace.make(directory)
        config = directory / "kms.yaml"
        vault = {
            "addresses": cluster.addresses,
            "cluster": cluster.name,
            "token_file": str(cluster.settings().token_file),
            "auth": {"method": "token_file"},
        }
        settings = {"keystore": f"sqlite:///{place.store}", "vault": vault, "hadoop_conf": str(place.conf)}
        config.write_text(json.dumps(settings))
        return cls(place, config, cluster)

    def run(self, action: Callable[[Client], Awaitable[Any]]) -> Any:
        """`action` with a worker of its own."""
        return asyncio.run(self._run(action))

    async def _run(self, action: Callable[[Client], Awaitable[Any]]) -> Any:
        settings = load_settings(Options(config=self.config))
        table = GenerationTable(1)
        context = WorkerContext(0, 1, table.view(0), GenerationTable(1).view(0), 0)
        facts = ServerFacts(
            address="localhost:9600",
            scheme="http",
            only_loopback=True,
            authentication="simple",
            revocation_bound_s=30.0,
            service_name="KMS",
            metrics_access=MetricsAccess.LOCAL,
        )
        opened = open_application(settings, MetricsTable(2), StoreRecord(), facts, context)
        async with opened as recorded:
            return await action(Client(recorded))

    def zone_keys(self) -> set[str]:
        return {name for name in self.cluster.administrator().transit.list_names() if is_zone_key_name(name)}


@dataclass
class Client:
    """Sends requests as Hadoop's client does; `answered` is the answer's leaving."""

    recorded: Any

    async def send(self, method: bytes, path: bytes, body: bytes = b"", query: bytes = b"") -> Response:
        headers = {b"content-type": b"application/json"} if body else {}
        request = Request(method, path, b"user.name=hdfs&" + query, headers, body, Peer("127.0.0.1"), keep_alive=True)
        answer = self.recorded.application(request)
        response: Response = answer if isinstance(answer, Response) else await answer
        return self.recorded.commit() or response

    async def json(self, method: bytes, path: bytes, body: bytes = b"", query: bytes = b"") -> Any:
        response = await self.send(method, path, body, query)
        assert response.head.status < 300, response.body
        return json.loads(response.body)

    async def generate(self) -> tuple[str, dict[str, str]]:
        (made,) = await self.json(b"GET", KEY + b"/_eek", query=b"eek_op=generate")
        return made["versionName"], {"name": "k", "iv": made["iv"], "material": made["encryptedKeyVersion"]["material"]}

    async def dek(self, eek: tuple[str, dict[str, str]]) -> str:
        path = b"/kms/v1/keyversion/" + eek[0].replace("@", "%40").encode() + b"/_eek"
        found = await self.json(b"POST", path, json.dumps(eek[1]).encode(), b"eek_op=decrypt")
        return str(found["material"])


# -- steps


def step_through(reached: Callable[[str], None]) -> None:
    """In a child, which dies: `reached` is called at every step from now on, in whichever thread it is."""

    def around(kind: type, name: str, label: str) -> None:
        real = getattr(kind, name)
        if asyncio.iscoroutinefunction(real):

            async def wrapped(self: Any, *arguments: Any, **options: Any) -> Any:
                reached(f"before {label_of(label, arguments)}")
                found = await real(self, *arguments, **options)
                reached(f"after {label_of(label, arguments)}")
                return found

            setattr(kind, name, wrapped)
            return

        def wrapped_plainly(self: Any, *arguments: Any, **options: Any) -> Any:
            reached(f"before {label_of(label, arguments)}")
            found = real(self, *arguments, **options)
            reached(f"after {label_of(label, arguments)}")
            return found

        setattr(kind, name, wrapped_plainly)

    around(VaultControl, "send", "control")
    around(VaultServers, "ask", "data")


def label_of(label: str, arguments: tuple[Any, ...]) -> str:
    request = arguments[0]
    place = request.path.split("/")
    return f"{label} {request.method} {'/'.join('KEY' if part.startswith('z-') else part for part in place[1:])}"


class Steps:
    """Counts the steps of one request in this process, and waits to be killed before number `number`."""

    def __init__(self, number: int, report: int) -> None:
        self.seen: list[str] = []
        self._number = number
        self._report = report
        self.is_armed = False
        real = sqlite3.connect

        def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
            connection = real(*arguments, **options)
            connection.set_trace_callback(self._statement)
            return connection

        sqlite3.connect = connect
        step_through(self.reached)

    def reached(self, label: str) -> None:
        if not self.is_armed:
            return
        if len(self.seen) == self._number:
            os.write(self._report, f"{label}\n".encode())
            signal.pause()
            time.sleep(WAIT_S)  # a signal of somebody else's wakes a pause
        self.seen.append(label)

    def _statement(self, text: str) -> None:
        word = text.lstrip().partition(" ")[0].upper()
        if word in _WRITES:
            self.reached(
                f"store {word} {text.split()[2] if word != 'COMMIT' and len(text.split()) > 2 else ''}".strip()
            )


def carry_out(scene: Scene, request: tuple[bytes, bytes, bytes], number: int, report: int) -> None:
    steps = Steps(number, report)

    async def act(client: Client) -> None:
        await client.send(b"GET", KEY + b"/_metadata")
        steps.is_armed = True
        response = await client.send(*request)
        steps.reached("before the answer")
        assert response.head.status < 300, response.body
        if response.on_written is not None:
            response.on_written()
        steps.reached("after the answer")
        steps.is_armed = False

    scene.run(act)
    os.write(report, json.dumps(steps.seen).encode() + b"\n")


def rehearse(scene: Scene, request: tuple[bytes, bytes, bytes]) -> list[str]:
    """Every step of a request, which is carried out."""
    pid, read_end = in_child(partial(carry_out, scene, request, -1))
    (line,) = read_all(read_end)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    found: list[str] = json.loads(line)
    return found


def kill_at(scene: Scene, request: tuple[bytes, bytes, bytes], number: int, label: str) -> None:
    pid, read_end = in_child(partial(carry_out, scene, request, number))
    try:
        ready, _, _ = select.select([read_end], [], [], WAIT_S)
        assert ready, f"step {number} ({label}) was not reached"
        assert os.read(read_end, 1000).decode() == f"{label}\n"
    finally:
        kill(pid)
        os.close(read_end)


# -- what is left


async def converges(scene: Scene, request: tuple[bytes, bytes, bytes], version: int, client: Client) -> None:
    """The client asks again; one version is made, and everything works."""
    old = None
    if version:
        old = await client.generate()
        secret = await client.dek(old)
    answer = await client.json(*request)
    assert answer["versionName"] == f"k@{version}", answer
    eek = await client.generate()
    assert eek[0] == f"k@{version}"
    await client.dek(eek)
    if old is not None:
        assert await client.dek(old) == secret
    metadata = await client.json(b"GET", KEY + b"/_metadata")
    assert metadata["versions"] == version + 1


def check_left(scene: Scene, keys_before: set[str]) -> None:
    """The store verifies, Vault has what it names, and at most one key that it does not."""
    store = open_keystore(f"sqlite:///{scene.place.store}", None, init=False)
    try:
        with store.snapshot() as snapshot:
            held = list(snapshot.held)
    finally:
        store.close()
    assert not list(find_held_problems(held, scene.cluster.administrator().transit.find))
    named = {version.place.key for version in held}
    assert named <= scene.zone_keys()
    assert len(scene.zone_keys() - keys_before - named) <= 1


ACTIONS = {"create": ((b"POST", KEYS, CREATE), 0), "roll": ((b"POST", KEY, b"{}"), 1)}


def new_scene(directory: Path, cluster: VaultCluster, version: int) -> Scene:
    directory.mkdir(mode=0o700)
    scene = Scene.make(directory, cluster)

    async def prepare(client: Client) -> None:
        if version:
            await client.json(b"POST", KEYS, CREATE)

    scene.run(prepare)
    return scene


def in_child_too(work: Callable[[], None]) -> None:
    """The suite's own process keeps no worker's threads: it forks again."""
    pid, read_end = in_child(lambda _report: work())
    read_all(read_end)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("action", list(ACTIONS))
def test_killed_at_any_step_the_same_request_again_makes_one_version(
    vault_cluster_on_double: VaultCluster, tmp_path: Path, action: str
) -> None:
    request, version = ACTIONS[action]
    cluster = vault_cluster_on_double
    rehearsed = new_scene_in_child(tmp_path / "rehearsal", cluster, version)
    steps = rehearse(rehearsed, request)
    assert any("control POST" in step for step in steps) and "store COMMIT" in steps, steps
    for number, step in enumerate(steps):
        scene = new_scene_in_child(tmp_path / f"at-{number}", cluster, version)
        before = scene.zone_keys()
        kill_at(scene, request, number, step)

        def again(scene: Scene = scene) -> None:
            scene.run(partial(converges, scene, request, version))

        in_child_too(again)
        check_left(scene, before)


def new_scene_in_child(directory: Path, cluster: VaultCluster, version: int) -> Scene:
    in_child_too(lambda: new_scene(directory, cluster, version) and None)
    return Scene(KmsPlace(directory), directory / "kms.yaml", cluster)
