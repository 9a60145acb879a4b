"""Hadoop's own Java client in a process of its own, doing as it is told: one operation, or a load until told to stop.

`java_client()` starts it on a `kms://` URI of one or several hosts, with Hadoop's own defaults for time-outs and
failover. Run as a program, this is the process: a job and then orders as JSON lines come on standard input, answers go
to standard output.

The load is done by threads that share the client but no key. So each knows exactly what it was promised, and complains
of an answer that shows less: a failure is an exception that the client's own retries did not cover, a stale answer is
one that does not show what was acknowledged to this thread before.
"""

from __future__ import annotations

import base64
import json
import os
import random
import select
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import java_client
import jpype
import jpype.config
from java_client import java
from key_servers import JAVA_MODULES

from ringfence_bootstrap.sandbox.artifacts import ensure_jars, sandbox_jars
from ringfence_bootstrap.sandbox.requirements import find_java_home

_TIMEOUT_S = 90.0
_USER = "alice"
_EEKS_KEPT = 200
_CONF = {"hadoop.security.kms.client.encrypted.key.cache.size": "10"}

Json = dict[str, Any]


@dataclass
class JavaClient:
    """The process, from the test's side."""

    process: subprocess.Popen[str]
    _answers: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, order: str, **more: Any) -> None:
        """Gives an order; `result` is its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": order, **more}) + "\n")
        self.process.stdin.flush()

    def is_done(self) -> bool:
        """Whether `result` is there."""
        assert self.process.stdout is not None
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def result(self) -> Json:
        """The answer to the order before."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the Java client ended"
        answer: Json = json.loads(line)
        return answer

    def do(self, order: str, **more: Any) -> Json:
        """One operation: `{"result": ...}` or `{"error": ...}`."""
        self.begin(order, **more)
        return self.result()


@contextmanager
def running_java_client(uri: str, conf: Mapping[str, str] | None = None) -> Iterator[JavaClient]:
    """The client, ready; `conf` is what its configuration has besides."""
    jars = ensure_jars(sandbox_jars(), os.environ, print, lambda _done, _total: None)
    with tempfile.TemporaryDirectory(prefix="rf-load-") as scratch:
        (Path(scratch) / "log4j.properties").write_text("log4j.rootLogger=OFF\n")
        job = {
            "jvm": str(find_java_home(os.environ) / "lib/server/libjvm.so"),
            "options": [*JAVA_MODULES, "-Xmx256m", "-XX:TieredStopAtLevel=1"],
            "classpath": [scratch, *map(str, sorted(jars.glob("*.jar")))],
            "uri": uri,
            "conf": dict(conf or {}),
        }
        process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "HADOOP_USER_NAME": _USER, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        try:
            client = JavaClient(process)
            client.do("open", **job)
            yield client
        finally:
            process.kill()
            process.wait()
            assert process.stdin is not None and process.stdout is not None
            process.stdout.close()
            process.stdin.close()


# -- the process


class _Client:
    """What all threads share: Hadoop's configuration and one provider, as in a NameNode."""

    def __init__(self, job: Json) -> None:
        jpype.config.destroy_jvm = False
        jpype.startJVM(job["jvm"], *job["options"], classpath=job["classpath"], convertStrings=True)
        conf = {**_CONF, **job["conf"], "hadoop.security.key.provider.path": job["uri"]}
        java_client.initialise(conf)
        self.conf = java_client.configuration(conf)
        self.uri = java("java.net.URI")(job["uri"])
        self.provider = self.open_provider()
        self.crypto = self._crypto(self.provider)

    def open_provider(self) -> Any:
        return java("crypto.key.KeyProviderFactory").get(self.uri, self.conf)

    def _crypto(self, provider: Any) -> Any:
        return java("crypto.key.KeyProviderCryptoExtension").createKeyProviderCryptoExtension(provider)

    def create(self, key: str) -> str:
        options = java("crypto.key.KeyProvider$Options")(self.conf)
        return str(self.provider.createKey(key, options).getVersionName())

    def roll(self, key: str) -> str:
        return str(self.provider.rollNewVersion(key).getVersionName())

    def versions(self, key: str) -> int:
        metadata = self.provider.getMetadata(key)
        return 0 if metadata is None else int(metadata.getVersions())

    def current(self, key: str) -> str:
        return str(self.provider.getCurrentKey(key).getVersionName())

    def generate(self, key: str) -> Any:
        return self.crypto.generateEncryptedKey(key)

    def decrypt(self, eek: Any) -> bytes:
        return bytes(self.crypto.decryptEncryptedKey(eek).getMaterial())

    def use_token(self, key: str) -> int:
        """A job's token: fetched, used by its holder through each host, renewed, and cancelled. Versions of `key`."""
        credentials = java("security.Credentials")()
        extension = java("crypto.key.KeyProviderDelegationTokenExtension")
        fetcher = extension.createKeyProviderDelegationTokenExtension(self.provider)
        (token,) = fetcher.addDelegationTokens(_USER, credentials)
        holder = java("security.UserGroupInformation").createRemoteUser("container")
        holder.addCredentials(credentials)
        found: list[int] = []

        def use() -> None:
            provider = self.open_provider()
            found.extend(int(provider.getMetadata(key).getVersions()) for _ in range(2))
            provider.close()

        holder.doAs(jpype.JProxy("java.security.PrivilegedExceptionAction", dict={"run": use}))
        token.renew(self.conf)
        token.cancel(self.conf)
        return min(found)


class _StaleError(Exception):
    pass


class _Thread:
    """One thread of the load, with keys of its own."""

    def __init__(self, client: _Client, number: int, stop: threading.Event) -> None:
        self._client = client
        self._number = number
        self._stop = stop
        self._random = random.Random(number)
        # By key, the versions acknowledged, in order; EDEKs with the DEK that was first seen, None before.
        self.acknowledged: dict[str, list[int]] = {}
        self._eeks: list[tuple[Any, bytes | None]] = []
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []

    def run(self) -> None:
        operations: list[tuple[str, Callable[[], None], int]] = [
            ("create", self._create, 3),
            ("roll", self._roll, 4),
            ("metadata", self._metadata, 3),
            ("current", self._current, 3),
            ("generate", self._generate, 6),
            ("decrypt", self._decrypt, 6),
            ("token", self._token, 1),
        ]
        self._do("create", self._create)
        while not self._stop.is_set():
            name, operation, _ = self._random.choices(operations, [weight for _, _, weight in operations])[0]
            self._do(name, operation)

    def _do(self, name: str, operation: Callable[[], None]) -> None:
        try:
            operation()
            self.done[name] += 1
        except jpype.JException as error:
            self.failures.append(f"{_now()} {name}: {error.getClass().getName()}: {error.getMessage()}")
        except _StaleError as error:
            self.failures.append(f"{_now()} {name} was stale: {error}")

    def _key(self) -> str:
        return self._random.choice(list(self.acknowledged))

    def _create(self) -> None:
        key = f"load-{self._number}-{len(self.acknowledged)}"
        self.acknowledged[key] = [-1]
        self.acknowledged[key] = [_number_of(self._client.create(key), key)]

    def _roll(self) -> None:
        """Hadoop's client tells every host of the roll after it was made; when one is down, its caller gets an
        exception for a roll that is there, and reads the metadata before it does anything else.
        """
        key = self._key()
        expected = self.acknowledged[key][-1] + 1
        try:
            number = _number_of(self._client.roll(key), key)
        except jpype.JClass("java.io.IOException") as error:
            number = self._client.versions(key) - 1
            # One less: the answer was that to an earlier roll, given again; the test counts these.
            if number not in (expected - 1, expected):
                raise _StaleError(f"{key}: {number}, not {expected}, after a roll that failed with {error}") from None
            self.done["roll with a host down"] += 1
        self.acknowledged[key].append(number)

    def _metadata(self) -> None:
        key = self._key()
        _require(self._client.versions(key), self.acknowledged[key][-1] + 1, key)

    def _current(self) -> None:
        key = self._key()
        _require(_number_of(self._client.current(key), key), self.acknowledged[key][-1], key)

    def _generate(self) -> None:
        key = self._key()
        eek = self._client.generate(key)
        number = _number_of(str(eek.getEncryptionKeyVersionName()), key)
        # Not more: the client keeps EDEKs, and fills its queue while a roll empties it.
        if number > self.acknowledged[key][-1]:
            raise _StaleError(f"{key}@{number} was never acknowledged")
        if len(self._eeks) < _EEKS_KEPT:
            self._eeks.append((eek, None))

    def _decrypt(self) -> None:
        if not self._eeks:
            self._generate()
        place = self._random.randrange(len(self._eeks))
        eek, dek = self._eeks[place]
        found = self._client.decrypt(eek)
        if dek is not None and found != dek:
            raise _StaleError(f"an EDEK of {eek.getEncryptionKeyVersionName()} opened to another DEK than before")
        self._eeks[place] = (eek, found)

    def _token(self) -> None:
        key = self._key()
        _require(self._client.use_token(key), self.acknowledged[key][-1] + 1, key)

    def eeks(self) -> list[Json]:
        return [
            {
                "key": str(eek.getEncryptionKeyName()),
                "version": str(eek.getEncryptionKeyVersionName()),
                "iv": _base64(eek.getEncryptedKeyIv()),
                "material": _base64(eek.getEncryptedKeyVersion().getMaterial()),
                "dek": None if dek is None else base64.urlsafe_b64encode(dek).decode(),
            }
            for eek, dek in self._eeks
        ]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _number_of(version_name: str, key: str) -> int:
    name, _, number = version_name.rpartition("@")
    if name != key:
        raise _StaleError(f"{version_name} is not a version of {key}")
    return int(number)


def _require(found: int, expected: int, key: str) -> None:
    if found != expected:
        raise _StaleError(f"{key}: {found}, not {expected}")


def _base64(value: Any) -> str:
    return base64.urlsafe_b64encode(bytes(value)).decode()


class _Load:
    """Threads at work."""

    def __init__(self, client: _Client, threads: int) -> None:
        self._stop = threading.Event()
        self._workers = [_Thread(client, number, self._stop) for number in range(threads)]
        self._threads = [threading.Thread(target=worker.run) for worker in self._workers]
        for thread in self._threads:
            thread.start()

    def end(self) -> Json:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return {
            "done": dict(sum((worker.done for worker in self._workers), Counter())),
            "failures": [failure for worker in self._workers for failure in worker.failures],
            "acknowledged": {key: numbers for worker in self._workers for key, numbers in worker.acknowledged.items()},
            "eeks": [eek for worker in self._workers for eek in worker.eeks()],
        }


def _answer(client: _Client, order: Json) -> Json:
    try:
        return {"result": getattr(client, order["do"])(order["key"])}
    except jpype.JException as error:
        return {"error": f"{error.getClass().getName()}: {error.getMessage()}"}


def main() -> None:
    # Java code prints what it likes: the pipe is for answers alone.
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    client = _Client(json.loads(sys.stdin.readline()))
    load: _Load | None = None
    print("{}", file=pipe, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "load":
            load = _Load(client, order["threads"])
            answer: Json = {}
        elif order["do"] == "stop":
            assert load is not None
            answer = load.end()
        else:
            answer = _answer(client, order)
        print(json.dumps(answer), file=pipe, flush=True)


if __name__ == "__main__":
    main()
