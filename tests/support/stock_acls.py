"""Asks Hadoop's own classes what a `kms-acls.xml` means: `StockAcls.java`, compiled and run against the real jars.

One JVM answers for any number of files, so that a few hundred configurations cost seconds.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ringfence_agent.kms.authorization.acls import KeyOperation, Operation
from ringfence_bootstrap.sandbox.artifacts import ensure_jars, sandbox_jars
from ringfence_bootstrap.sandbox.requirements import find_java_home

_SOURCE = Path(__file__).with_name("StockAcls.java")
_CLASS = "org.apache.hadoop.crypto.key.kms.server.StockAcls"
_TIMEOUT_S = 240
REFUSED = "refused"


@dataclass(frozen=True)
class Person:
    """A user with groups, and who acts for that user."""

    user: str
    groups: tuple[str, ...] = ()
    real_user: str | None = None


# What is asked about each person: every operation, then each key with each of its operations and its creation.
OPERATIONS = tuple(Operation)
KEY_OPERATIONS = tuple(KeyOperation)


def questions(people: Sequence[Person], keys: Sequence[str]) -> list[tuple[Person, str, str]]:
    """Who, on what, to do what: in the order of the answers."""
    out = []
    for person in people:
        out += [(person, "", operation.value) for operation in OPERATIONS]
        for key in keys:
            out += [(person, key, operation.value) for operation in KEY_OPERATIONS]
            out.append((person, key, "create"))
    return out


def ask_hadoop(
    root: Path,
    cases: Mapping[str, str | None],
    people: Sequence[Person] = (),
    keys: Sequence[str] = (),
    mappings: Sequence[str] = (),
    users: Sequence[str] = (),
) -> tuple[dict[str, str], list[str]]:
    """The answers by case ("0" and "1", or REFUSED), and what each static group mapping gives to `users`.

    A case is the text of a kms-acls.xml, None for none; it lies in `root/NAME` afterwards.
    """
    for name, text in cases.items():
        (root / name).mkdir()
        if text is not None:
            (root / name / "kms-acls.xml").write_text(text, encoding="utf-8")
    _write(root / "subjects", [f"{p.user}\t{','.join(p.groups)}\t{p.real_user or ''}" for p in people])
    _write(root / "keys", keys)
    _write(root / "users", users)
    _write(root / "mappings", [mapping.replace("\n", "\\n") for mapping in mappings])
    lines = _run(root).splitlines()
    answers = dict(line.split("\t", 1) for line in lines if not line.startswith("mapping\t"))
    return answers, [line.removeprefix("mapping\t") for line in lines if line.startswith("mapping\t")]


def _write(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _run(root: Path) -> str:
    java = Path(find_java_home(os.environ)) / "bin"
    jars = ensure_jars(sandbox_jars(), os.environ, print, lambda *_: None)
    # `-classes` beside the cases, not among them: every directory below is a case.
    classes = root.with_name(root.name + "-classes")
    path = f"{classes}{os.pathsep}{jars}/*"
    compile_it = [java / "javac", "-nowarn", "-proc:none", "-cp", f"{jars}/*", "-d", classes, _SOURCE]
    subprocess.run(compile_it, check=True, timeout=_TIMEOUT_S)
    options = ["-Xmx512m", "-Dlog4j.defaultInitOverride=true", "--add-opens=java.base/java.lang=ALL-UNNAMED"]
    command = [java / "java", *options, "-cp", path, _CLASS, root]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
