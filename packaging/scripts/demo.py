"""The demonstration: two zones on a real HDFS, and what holds of them. Called by packaging/scripts/demo.

Rules: every line that begins with `ok` was checked by this script, against the daemons' own words and the bytes on
the DataNode's disk; the first thing that does not hold ends it with exit code 1. Hadoop's own commands are the real
Java ones, one process for each user. Everything lives in one temporary directory, which is deleted at the end, also
after a failure; with --keep it stays and keeps running.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import requests
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from demo_vault import TOKEN_VARIABLE, GivenVault, take_token
from transcript import NotSoError, chapter, check, run_both

RINGFENCE = Path(sys.executable).with_name("ringfence")
PIN_TIMEOUT_S = 60
PII, MASKED = "/data/pii", "/data/masked"
POLICY = f"""\
version: 1
cluster: demo
zones:
  - path: {PII}
    owner: etl
    group: pii
    mode: "0750"
    readers: [analyst]
    writers: [etl]
  - path: {MASKED}
    owner: masker
    readers: ["*"]
    writers: [masker, etl]
must_encrypt: [/data]
kms: {{namenode_users: [hdfs], admins: [hdfs]}}
agent: {{mode: enforce, pin: apply}}
"""
# With --vault: the same, but for where the first zone's key is.
VAULT_POLICY = POLICY.replace(f"path: {PII}\n", f"path: {PII}\n    custody: transit\n")


class Shell:
    """Runs commands with the sandbox's environment and shows them as a transcript."""

    def __init__(self, environment: Mapping[str, str], directory: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HADOOP_", "RINGFENCE_"))}
        # Each Hadoop command is a JVM of its own that lives for a second: compile little, collect simply.
        quick = {"HADOOP_CLIENT_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
        path = os.pathsep.join((f"{environment['HADOOP_HOME']}/bin", str(RINGFENCE.parent), kept.get("PATH", "")))
        self._environment = {**kept, **quick, **environment, "PATH": path}
        self._directory = directory

    def run(self, *command: str, user: str = "hdfs", exit_code: int = 0, show: bool = True) -> bytes:
        """Standard output; both outputs are shown. Any other exit code than the expected one ends it all."""
        return self.run_both(*command, user=user, exit_code=exit_code, show=show)[0]

    def run_both(self, *command: str, user: str = "hdfs", exit_code: int = 0, show: bool = True) -> tuple[bytes, str]:
        """Standard output as bytes, standard error as text."""
        return run_both(
            *command,
            environment={**self._environment, "HADOOP_USER_NAME": user},
            directory=self._directory,
            who="" if user == "hdfs" else f"HADOOP_USER_NAME={user} ",
            exit_code=exit_code,
            show=show,
        )

    def run_json(self, *command: str, user: str = "hdfs", exit_code: int = 0) -> Any:
        """The JSON object on standard output."""
        return json.loads(self.run(*command, user=user, exit_code=exit_code, show=False))


class Demo:
    """The steps, in order. Each needs what the ones before it made."""

    def __init__(self, described: Mapping[str, Any], directory: Path, vault: GivenVault | None) -> None:
        self.vault = vault
        self.ports: Mapping[str, int] = described["ports"]
        self.sandbox = Path(described["directory"])
        self.directory = directory
        self.shell = Shell(described["environment"], directory)
        self.policy = str(directory / "zones.yaml")
        self.document = POLICY if vault is None else VAULT_POLICY
        Path(self.policy).write_text(self.document)
        # Two files of one zone, one of the other; long enough to be no accident when they match.
        self.plain = {
            f"{PII}/customers.csv": secrets.token_hex(5000).encode(),
            f"{PII}/orders.csv": secrets.token_hex(5000).encode(),
            f"{MASKED}/report.csv": secrets.token_hex(5000).encode(),
        }

    def run(self) -> None:
        self.apply_the_policy()
        self.write_and_read_back()
        self.look_at_the_disk()
        self.compare_edeks()
        if self.vault is not None:
            self.look_into_vault(self.vault)
        self.try_to_move()
        self.try_to_rename_a_root()
        self.apply_again()

    def apply_the_policy(self) -> None:
        chapter("Two zones with two keys")
        print(self.document)
        planned = self.shell.run("ringfence", "plan", "-f", self.policy).decode()
        if self.vault is not None:
            check("the plan tells what custody transit costs, before anything is made", "34 MB more" in planned)
        self.shell.run("ringfence", "apply", "-f", self.policy)
        listed = self.shell.run("hdfs", "crypto", "-listZones").decode()
        self.keys = dict(line.split() for line in listed.splitlines() if line.startswith("/"))
        check("the NameNode lists both zones and no other", set(self.keys) == {PII, MASKED})
        check("they have two different keys", self.keys[PII] != self.keys[MASKED])

    def write_and_read_back(self) -> None:
        chapter("The Java client writes and reads, as etl")
        for path, content in self.plain.items():
            local = self.directory / Path(path).name
            local.write_bytes(content)
            self.shell.run("hdfs", "dfs", "-put", str(local), path, user="etl")
            back = self.shell.run("hdfs", "dfs", "-cat", path, user="etl", show=False)
            check(f"{path} is read back equal ({len(content)} bytes)", back == content)
        _, refused = self.shell.run_both("hdfs", "dfs", "-cat", f"{PII}/orders.csv", exit_code=1)
        check("the superuser hdfs sees the file and cannot read it", "hdfs" in refused and "DECRYPT_EEK" in refused)

    def look_at_the_disk(self) -> None:
        chapter("What lies on the DataNode's disk")
        for path in (f"{PII}/customers.csv", f"{MASKED}/report.csv"):
            block = self.block_of(path).read_bytes()
            raw = self.shell.run("hdfs", "dfs", "-cat", f"/.reserved/raw{path}", show=False)
            check(f"the block file equals /.reserved/raw{path}", block == raw)
            check("it is unlike the plain text", block != self.plain[path] and len(block) == len(self.plain[path]))
            info = self.encryption_of(path)
            dek = self.ask_for_dek(info)
            opened = Cipher(algorithms.AES(dek), modes.CTR(bytes.fromhex(info["iv"]))).decryptor().update(block)
            check(f"AES-CTR with the DEK that the KMS gives to etl ({len(dek) * 8} bit) makes it the plain text",
                  opened == self.plain[path])  # fmt: skip

    def compare_edeks(self) -> None:
        chapter("Every file has a data key of its own")
        first, second = (self.encryption_of(f"{PII}/{name}") for name in ("customers.csv", "orders.csv"))
        check("both files are under the zone's key", first["keyName"] == second["keyName"] == self.keys[PII])
        check("their EDEKs differ", first["edek"] != second["edek"])

    def look_into_vault(self, vault: GivenVault) -> None:
        chapter(f"The key of {PII} is in Vault, and nowhere else")
        status = self.shell.run_json("ringfence", "--json", "status")
        custody = {zone["path"]: zone["custody"] for zone in status["zones"]}
        check("the status tells both custodies", custody == {PII: "transit", MASKED: "envelope"})
        keys = vault.zone_keys()
        check("Vault has one key of a zone", len(keys) == 1)
        name = keys[0]["name"]
        is_open = keys[0]["exportable"] or keys[0]["allow_plaintext_backup"]
        check(f"{name} cannot be exported", not is_open)
        check("not by Vault's administrator either", not vault.gives_out(name))
        edeks = {path: bytes.fromhex(self.encryption_of(path)["edek"]) for path in self.plain}
        lengths = {path: len(edek) for path, edek in edeks.items()}
        check("an EDEK of Vault's has 66 bytes, one of the key server's 32",
              lengths == {path: 66 if path.startswith(PII) else 32 for path in self.plain})  # fmt: skip
        self.shell.run("hadoop", "key", "roll", self.keys[PII])
        check("a roll of Hadoop's makes a new version of the same key in Vault",
              [(key["name"], key["latest_version"]) for key in vault.zone_keys()] == [(name, 2)])  # fmt: skip
        path = f"{PII}/customers.csv"
        check("a file from before the roll is read", self.shell.run("hdfs", "dfs", "-cat", path, user="etl", show=False)
              == self.plain[path])  # fmt: skip

    def try_to_move(self) -> None:
        chapter("Moving between zones")
        source, target = f"{PII}/orders.csv", f"{MASKED}/orders.csv"
        _, refused = self.shell.run_both("hdfs", "dfs", "-mv", source, target, user="etl", exit_code=1)
        check("the NameNode refuses the rename", "can't be moved from encryption zone" in refused)
        out, error = self.shell.run_both("ringfence", "mv", source, target, user="etl", exit_code=1)
        said = out.decode() + error
        check("ringfence mv names the rule", "zone_to_zone" in said)
        answer = self.shell.run_json("ringfence", "--json", "mv", source, target, user="etl", exit_code=1)
        check("as JSON too: no rename, and the rule", answer["rename"] is False and answer["rule"] == "zone_to_zone")
        check("the file is where it was", self.files_in(PII) == {"customers.csv", "orders.csv"})
        check("it names a command that does work", answer["command"] and answer["command"] in said)
        self.shell.run("bash", "-c", answer["command"], user="etl", show=False)
        copy = self.shell.run("hdfs", "dfs", "-cat", target, user="etl", show=False)
        check("that command ends with 0 and leaves an equal copy in the other zone", copy == self.plain[source])
        check("which is under the other zone's key", self.encryption_of(target)["keyName"] == self.keys[MASKED])
        self.shell.run("ringfence", "mv", source, f"{PII}/orders-2.csv", user="etl")
        check("inside its zone it is renamed", self.files_in(PII) == {"customers.csv", "orders-2.csv"})

    def try_to_rename_a_root(self) -> None:
        chapter("The agent holds the zone roots")
        pinned = wait_until(lambda: {PII, MASKED} <= self.protected_directories())
        check(f"the running NameNode protects {PII} and {MASKED}, as the agent told it to", pinned)
        _, refused = self.shell.run_both("hdfs", "dfs", "-mv", PII, "/data/renamed", exit_code=1)
        check("renaming a zone's root is refused, for the superuser too", "Cannot delete/rename" in refused)

    def apply_again(self) -> None:
        chapter("A second apply changes nothing")
        before = self.transaction()
        planned = self.shell.run_json("ringfence", "--json", "plan", "-f", self.policy)
        check("the plan is empty", planned["actions"] == [] and planned["problems"] == [])
        done = self.shell.run_json("ringfence", "--json", "apply", "-f", self.policy)
        check("apply had nothing to do", done["done"] == done["failed"] == done["not_attempted"] == [])
        check(f"the NameNode's last transaction is {before}, before and after", self.transaction() == before)

    def files_in(self, directory: str) -> set[str]:
        """Names in a directory, without the zone's trash."""
        listed = self.shell.run("hdfs", "dfs", "-ls", "-C", directory, user="etl", show=False).decode().split()
        return {Path(path).name for path in listed} - {".Trash"}

    def block_of(self, path: str) -> Path:
        """The file on the DataNode's disk that holds `path`, which is smaller than a block."""
        report = self.shell.run("hdfs", "fsck", path, "-files", "-blocks", show=False).decode()
        names = re.findall(r"\bblk_\d+", report)
        found = [file for name in set(names) for file in (self.sandbox / "data").rglob(name)]
        if len(found) != 1:
            raise NotSoError(f"{path} is one block on the DataNode's disk")
        print(f"  {found[0].relative_to(self.sandbox)}")
        return found[0]

    def encryption_of(self, path: str) -> dict[str, str]:
        """`edek` and `iv` in hex, `keyName`, `ezKeyVersionName`, as Hadoop's command prints them."""
        printed = self.shell.run("hdfs", "crypto", "-getFileEncryptionInfo", "-path", path).decode()
        return dict(re.findall(r"(\w+): ([^,}\s]+)", printed))

    def ask_for_dek(self, info: Mapping[str, str]) -> bytes:
        """The DEK, from the KMS, as `etl`."""
        answer = requests.post(
            f"http://localhost:{self.ports['kms']}/kms/v1/keyversion/{info['ezKeyVersionName']}/_eek",
            params={"eek_op": "decrypt", "user.name": "etl"},
            json={
                "name": info["keyName"],
                "iv": base64.urlsafe_b64encode(bytes.fromhex(info["iv"])).decode(),
                "material": base64.urlsafe_b64encode(bytes.fromhex(info["edek"])).decode(),
            },
            timeout=30,
        )
        answer.raise_for_status()
        return base64.urlsafe_b64decode(answer.json()["material"] + "==")

    def protected_directories(self) -> set[str]:
        """What the running NameNode protects."""
        answer = requests.get(
            f"http://localhost:{self.ports['namenode_http']}/conf",
            params={"name": "fs.protected.directories"},
            headers={"Accept": "application/json"},
            timeout=30,
        )
        answer.raise_for_status()
        return set((answer.json()["property"]["value"] or "").split(","))

    def transaction(self) -> int:
        """Number of the last change that the NameNode wrote down."""
        answer = requests.get(
            f"http://localhost:{self.ports['namenode_http']}/jmx",
            params={"get": "Hadoop:service=NameNode,name=FSNamesystem::LastWrittenTransactionId"},
            timeout=30,
        )
        answer.raise_for_status()
        return int(answer.json()["beans"][0]["LastWrittenTransactionId"])


def wait_until(holds: Callable[[], bool]) -> bool:
    """Whether it holds before the time is up."""
    deadline = time.monotonic() + PIN_TIMEOUT_S
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def sandbox(*arguments: str, capture: bool = False) -> str:
    """Runs `ringfence sandbox`; what it tells people goes to the screen."""
    print(f"$ ringfence sandbox {shlex.join(arguments)}", flush=True)
    finished = subprocess.run(
        [RINGFENCE, "sandbox", *arguments], stdout=subprocess.PIPE if capture else None, text=True, check=False
    )
    if finished.returncode:
        raise NotSoError(f"ringfence sandbox {arguments[0]} ends with 0, not {finished.returncode}")
    return finished.stdout or ""


def clean_up(state: str, directory: Path, vault: GivenVault | None) -> None:
    """Takes the sandbox down and deletes everything, and looks whether that is so."""
    chapter("Cleaning up")
    sandbox("down", "--delete", "--dir", state)
    if vault is not None:
        vault.take_away()
    for leftover in directory.iterdir():
        leftover.unlink()
    directory.rmdir()
    check("no process of the sandbox is left", processes_of(state) == [])


def processes_of(state: str) -> list[int]:
    """Pids of processes with the sandbox's directory in their command line: daemons and what they forked."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # It ended while we looked.
            if state.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def demonstrate(directory: Path, *, keep: bool, vault: GivenVault | None) -> None:
    """Everything, and the end of it."""
    state = str(directory / "sandbox")
    try:
        settings = []
        if vault is not None:
            vault.prepare()
            settings = ["--kms-settings", str(vault.settings)]
        chapter("A real HDFS, our KMS and the agent")
        described = json.loads(sandbox("up", "--agent", "--json", "--dir", state, *settings, capture=True))
        Demo(described, directory, vault).run()
    finally:
        if keep:
            print(f'\nkept: eval "$(ringfence sandbox env --dir {state})"')
            print(f"then: ringfence sandbox down --delete --dir {state}")
            if vault is not None:
                vault.forget()
        else:
            clean_up(state, directory, vault)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="packaging/scripts/demo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keep", action="store_true", help="leave the sandbox running")
    parser.add_argument("--vault", metavar="ADDR", help="keep one zone's key in this Vault or OpenBao")
    token_help = f"an administrator's token there; else it is in {TOKEN_VARIABLE}"
    parser.add_argument("--vault-token-file", metavar="FILE", type=Path, help=token_help)
    parser.add_argument("--vault-ca", metavar="PEM", type=Path, help="who signed its certificate; else the system's")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # Clean up then, too.
    began = time.monotonic()
    try:
        token = take_token(given.vault_token_file) if given.vault else ""
        directory = Path(tempfile.mkdtemp(prefix="ringfence-demo-"))
        vault = GivenVault(given.vault, token, given.vault_ca, directory, RINGFENCE) if given.vault else None
        demonstrate(directory, keep=given.keep, vault=vault)
    except NotSoError as problem:
        print(f"\nNOT SO: {problem}", file=sys.stderr)
        return 1
    print(f"\nEvery line holds ({time.monotonic() - began:.0f} s).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
