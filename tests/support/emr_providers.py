"""EMR's custom providers, called in a JVM of their own as EMR calls them: see `EmrProviders.java`.

with running_providers() as providers:
    providers.do("make", "p", jar, CLASS, settings)
    key = providers.do("disk-new", "p", "LOCAL_DISK")["key"]
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote_plus

from ringfence_bootstrap.sandbox.artifacts import ensure_jars, parse_jar_list, sandbox_jars
from ringfence_bootstrap.sandbox.requirements import find_java_home

TLS = "ringfence.emr.VaultTlsArtifactsProvider"
DISK = "ringfence.emr.VaultLocalDiskEncryptionMaterialsProvider"
S3 = "ringfence.emr.VaultS3EncryptionMaterialsProvider"

_HERE = Path(__file__).parent
_BUILD = Path(__file__).parents[2] / "packaging/scripts/emr_providers.py"


class ProviderRefusedError(Exception):
    """What a provider threw: its class, and every message down to the last cause."""

    def __init__(self, java_class: str, message: str) -> None:
        super().__init__(message)
        self.java_class = java_class


@dataclass
class Providers:
    """The process, from the test's side. `secrets` are texts that no message may hold."""

    process: subprocess.Popen[str]
    secrets: list[str] = field(default_factory=list)

    def do(self, *words: object) -> dict[str, str]:
        """One order. Raises ProviderRefusedError."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(" ".join(quote(str(word), safe="") for word in words) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the JVM ended"
        told, *rest = [unquote_plus(word) for word in answer.strip().split(" ")]
        if told == "ok":
            return {name: value for name, _, value in (word.partition("=") for word in rest)}
        for secret in self.secrets:
            assert secret not in rest[1], "a message holds a secret"
        raise ProviderRefusedError(rest[0], rest[1])


def sdk_jars() -> Path:
    """The directory with AWS's SDK."""
    listed = parse_jar_list("emr-sdk", (_HERE / "emr_sdk_jars.txt").read_text())
    return ensure_jars(listed, os.environ, print, lambda *_: None)


@contextmanager
def running_providers() -> Iterator[Providers]:
    """The harness, ready, until the block ends."""
    sdk = sdk_jars()
    hadoop = ensure_jars(sandbox_jars(), os.environ, print, lambda *_: None)
    # The SDK's own Jackson before Hadoop's.
    path = f"{sdk}/*{os.pathsep}{hadoop}/*"
    command = [str(find_java_home(os.environ) / "bin/java"), "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", path]
    process = subprocess.Popen(
        [*command, str(_HERE / "EmrProviders.java")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ok\n", "the harness did not start"
        yield Providers(process)
    finally:
        process.kill()
        process.communicate()


def build_jar(jar: Path) -> Path:
    """The jar as packaging/scripts/emr-providers builds it."""
    done = subprocess.run(
        [sys.executable, str(_BUILD), "--once", str(jar)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return jar


def write_settings(path: Path, settings: Mapping[str, object]) -> Path:
    """A properties file; a value of None is left out."""
    path.write_text("".join(f"{name}={value}\n" for name, value in settings.items() if value is not None))
    path.chmod(0o644)
    return path
