"""Clusters on which data is moved in every way. `moves_job` acts; the audit log and HDFS tell what became of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster_commands import Cluster
from move_cells import OLD, PLACES, Cell
from sandboxes import run_ringfence

from ringfence_agent.kms.audit.reader import find_files

WRITER, VERIFIER, SUPERUSER = "masker", "analyst", "hdfs"
_JOB = Path(__file__).with_name("moves_job.py")
_NATIVE = Path(__file__).with_name("native_copy.py")
_ROOT, _TOP = "/m/root", "/m/top"
_NATIVE_TIMEOUT_S = 120


def policy(movers: Sequence[str], mode: Mapping[str, object]) -> dict[str, Any]:
    """Three zones with one flow, and two zones that are renamed themselves."""
    users = [*movers, WRITER, VERIFIER]
    paths = [*(PLACES[name] for name in "abc"), _ROOT, f"{_TOP}/zone"]
    zones = [
        {"path": path, "key": f"m-{Path(path).name}", "mode": "0777", "readers": users, "writers": users}
        for path in paths
    ]
    return {
        "version": 1,
        "cluster": "moves",
        "zones": zones,
        "kms": {"namenode_users": ["hdfs"], "admins": ["hdfs"]},
        "flows": [{"from": PLACES["a"], "to": PLACES["b"], "who": list(movers)}],
        "flow_control": dict(mode),
    }


class Job:
    """One `moves_job`: a JVM."""

    def __init__(self, environ: Mapping[str, str], settings: Mapping[str, object]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(_JOB), json.dumps(settings)],
            env=dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, do: str, user: str, session: str, *arguments: str) -> dict[str, Any]:
        """What it printed. Fails when it ended."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"do": do, "user": user, "session": session, "arguments": arguments}) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, f"the job ended with {process.wait()} at {do}"
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """Idempotent."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


@dataclass(slots=True)
class Site:
    """A cluster with the policy's zones. `environ` is that of its JVMs, which nobody is logged in by.

    With `keytabs` in the settings one JVM is everybody; without, each user has one.
    """

    cluster: Cluster
    directory: Path
    movers: Sequence[str]
    enforcing: Mapping[str, object]
    environ: Mapping[str, str]
    settings: Mapping[str, object]
    mode: str = ""
    jobs: dict[str, Job] = field(default_factory=dict)

    def prepare(self) -> None:
        """The places, and zones by `ringfence apply`, with rules in shadow mode."""
        for path in ("/m", _TOP, PLACES["clear"]):
            self.must("make_directory", SUPERUSER, path)
        self.set_mode("shadow")
        for place in "a", "clear":
            self.must("allow_snapshots", SUPERUSER, PLACES[place])
        for path in (f"{_ROOT}/file", f"{_TOP}/zone/file"):
            self.must("write", WRITER, path, "a file of its own zone\n")

    def set_mode(self, mode: str) -> None:
        """Publishes the policy in that mode, when it is another."""
        if mode == self.mode:
            return
        file = self.directory / "zones.yaml"
        file.write_text(json.dumps(policy(self.movers, self.enforcing if mode == "enforce" else {"mode": mode})))
        done = run_ringfence(["apply", "-f", file], self.cluster.environ(SUPERUSER))
        assert done.returncode == 0, done.stderr
        self.mode = mode

    def ask(self, do: str, user: str, session: str, *arguments: str) -> dict[str, Any]:
        """What a user is answered."""
        name = "" if self.settings["keytabs"] else user
        if name not in self.jobs:
            self.jobs[name] = Job(self.environ, self.settings)
        return self.jobs[name].ask(do, user, session, *arguments)

    def must(self, do: str, user: str, *arguments: str) -> Any:
        """What somebody brings about who is no part of the cell. Their sessions only write, or only read."""
        found = self.ask(do, user, "aside", *arguments)
        assert "error" not in found, found
        return found["result"]

    def end(self, user: str) -> None:
        """Ends a user's own JVM."""
        if (job := self.jobs.pop(user, None)) is not None:
            job.close()

    def close(self) -> None:
        """Ends all JVMs."""
        for user in tuple(self.jobs):
            self.end(user)

    # -- cells

    def try_cell(self, cell: Cell, mover: str) -> str:
        """What becomes of it, in the words of the vectors; or a sentence that is none of them."""
        self.set_mode(cell.mode)
        source, target, file = self._lay_out(cell, mover)
        before = len(self._openings())
        if cell.way == "hdfs_native_copy":
            found = self._copy_natively(mover, source, target)
        elif cell.way == "trash" and cell.is_inside:
            found = self.ask("own_trash", mover, str(cell), source)
        else:
            found = self.ask(cell.way, mover, str(cell), source, target)
        asked = self._openings()[before:]
        if "error" in found:
            return self._refused(cell, found, asked, target)
        # Nobody else may read what is in somebody's trash.
        reader = mover if cell.way == "trash" else VERIFIER
        outcome = self._arrived(cell, reader, source, f"{target}{file}")
        if any("flow" in line for line in asked):
            outcome = "recorded" if outcome == "done" else f"{outcome}, and recorded: {asked}"
        if cell.is_of_a_zone:
            self.must("rename", SUPERUSER, target, source)
        return outcome

    def _lay_out(self, cell: Cell, mover: str) -> tuple[str, str, str]:
        """Source, target, and where below them the file is that tells."""
        if cell.is_of_a_zone:
            source, file = (_ROOT, "/file") if cell.way == "zone_root_rename" else (_TOP, "/zone/file")
            return source, f"{'/m' if cell.is_inside else PLACES[cell.target]}/{cell}", file
        place, name = PLACES[cell.source], str(cell)
        source, target = f"{place}/{name}", f"{PLACES[cell.target]}/{name}.to"
        self.must("write", WRITER, source, cell.text)
        if cell.is_over_a_file:
            self.must("write", WRITER, target, OLD)
        if cell.way == "trash":
            inside = f"{place}/.Trash/{mover}/Current{source}"
            target = inside if cell.is_inside else f"{PLACES[cell.target]}/.Trash/{name}"
        if cell.way == "snapshot_restore":
            self.must("snapshot", SUPERUSER, place, name)
            source = f"{place}/.snapshot/{name}/{name}"
        return source, target, ""

    def _copy_natively(self, user: str, source: str, target: str) -> dict[str, Any]:
        url = f"hdfs://localhost:{self.cluster.ports['namenode']}"
        done = subprocess.run(
            [sys.executable, str(_NATIVE), url, source, target],
            env=self.cluster.environ(user),
            capture_output=True,
            text=True,
            timeout=_NATIVE_TIMEOUT_S,
            check=False,
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def _openings(self) -> list[dict[str, Any]]:
        """What the KMS wrote about openings, but for those who prepare and look."""
        lines = [record.fields for record in find_files([self.cluster.directory / "kms.db.audit.d"]).read()]
        return [line for line in lines if line["op"] == "DECRYPT_EEK" and line["user"] not in (WRITER, VERIFIER)]

    def _refused(self, cell: Cell, found: Mapping[str, Any], asked: Sequence[Mapping[str, Any]], target: str) -> str:
        for path in (target, f"{target}._COPYING_"):
            length = self.must("length", SUPERUSER, path)
            if length and not (cell.is_over_a_file and length == len(OLD)):
                return f"{path} has {length} bytes, after {found}"
        denied = [line for line in asked if line["outcome"] == "denied"]
        if any(str(line["rule"]).endswith(":flows") and line["flow"]["mode"] == "enforce" for line in denied):
            return "refused_by_rules"
        if denied:
            return "refused_for_access"
        return "refused_by_namenode" if "can't be moved" in found["message"] else f"failed: {found}"

    def _arrived(self, cell: Cell, reader: str, source: str, target: str) -> str:
        found = self.ask("read", reader, "aside", target)
        if "error" in found:
            return "unreadable" if self.must("length", SUPERUSER, target) else f"failed: {found}"
        text = found["result"]
        if cell.is_of_a_zone:
            return "done" if text == "a file of its own zone\n" else f"there is {text!r}"
        if text == cell.text_after:
            is_clear = cell.target != "clear" and self._raw(target) == text
            return "clear" if is_clear else "done"
        return "ciphertext" if text and text == self._raw(source) else f"there is {text!r}"

    def _raw(self, path: str) -> str:
        raw: str = self.must("read", SUPERUSER, f"/.reserved/raw{path}")
        return raw


@contextmanager
def open_site(site: Site) -> Iterator[Site]:
    """The site, prepared; its JVMs end with the block."""
    with ExitStack() as stack:
        stack.callback(site.close)
        site.prepare()
        yield site
