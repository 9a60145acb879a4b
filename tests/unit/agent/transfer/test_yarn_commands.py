"""What Hadoop's commands are told, and as whom; with programs in their places that note it. The real ones are in
`tests/cluster/test_transfer_job.py`."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ringfence_agent.transfer.yarn_commands import JobOrder, Yarn
from ringfence_zones.errors import ConfigError, TransferError, YarnUnavailableError
from ringfence_zones.http_session import PLAIN_ACCESS
from ringfence_zones.kerberos import KerberosKeytab

_NOTE = """#!{python}
import json, os, pathlib, sys
here = pathlib.Path({directory!r})
cache = os.environ.get("KRB5CCNAME", "")
if sys.argv[0].endswith("kinit"):
    pathlib.Path(cache[5:]).write_text("ticket")
with open(here / "noted", "a") as noted:
    noted.write(json.dumps({{"words": [os.path.basename(sys.argv[0]), *sys.argv[1:]], "environ": dict(os.environ),
        "has_ticket": os.path.exists(cache[5:])}}) + "\\n")
exec((here / "then").read_text() if (here / "then").exists() else "")
"""
_ORDER = JobOrder(
    name="ringfence-transfer-0f-1",
    tag="ringfence-transfer-0f",
    source="/t/pii/a 'b' ${x} ü",
    directory="/t/masked/_ringfence_job_0f/1",
    queue="root.etl",
)


class Machine:
    """The agent's machine: Hadoop's commands, its configuration, and what was called of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.conf = directory / "conf"
        self.conf.mkdir()
        self.bin = directory / "hadoop" / "bin"
        self.bin.mkdir(parents=True)
        for name in ("hadoop", "mapred", "yarn", "kinit"):
            (self.bin / name).write_text(_NOTE.format(python=sys.executable, directory=str(directory)))
            (self.bin / name).chmod(0o755)
        self.stop = threading.Event()

    def yarn(self, keytab: KerberosKeytab | None = None) -> Yarn:
        environ = {**os.environ, "HADOOP_HOME": str(self.bin.parent), "HADOOP_USER_NAME": "hdfs"}
        environ["PATH"] = f"{self.bin}:{environ['PATH']}"
        access = lambda: PLAIN_ACCESS  # noqa: E731
        return Yarn(self.conf, "masker", keytab=keytab, access=access, stop=self.stop, environ=environ)

    def then(self, code: str) -> None:
        """What the commands do after they noted their call."""
        (self.directory / "then").write_text(code)

    def noted(self) -> list[dict[str, Any]]:
        path = self.directory / "noted"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def configure(self, **properties: str) -> None:
        inner = "".join(f"<property><name>{n}</name><value>{v}</value></property>" for n, v in properties.items())
        (self.conf / "yarn-site.xml").write_text(f"<configuration>{inner}</configuration>")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_job_is_submitted_as_the_copying_user_without_speculation(machine: Machine) -> None:
    machine.yarn().submit(_ORDER)
    [call] = machine.noted()
    words, environ = call["words"], call["environ"]
    assert words[:2] == ["mapred", "streaming"]
    assert {
        "-Dmapreduce.job.tags=ringfence-transfer-0f",
        "-Dmapreduce.job.name=ringfence-transfer-0f-1",
        "-Dmapreduce.job.queuename=root.etl",
        "-Dmapreduce.map.speculative=false",
        "-Dmapreduce.job.reduces=0",
        "-background",
    } <= set(words)
    told = dict(itertools.pairwise(words))
    assert told["-input"] == "/t/masked/_ringfence_job_0f/1/listing"
    assert told["-output"] == "/t/masked/_ringfence_job_0f/1/out"
    # Streaming splits this at blanks and quotes, and Hadoop's configuration takes ${x} for a reference.
    assert told["-mapper"] == (
        "python3 copy_task.py /t/pii/a%20%27b%27%20%24%7Bx%7D%20%C3%BC /t/masked/_ringfence_job_0f/1/copies"
    )
    assert told["-cmdenv"] == "HADOOP_USER_NAME=masker"
    assert Path(told["-files"].removeprefix("file://")).name == "copy_task.py"
    assert (environ["HADOOP_USER_NAME"], environ["HADOOP_CONF_DIR"]) == ("masker", str(machine.conf))


def test_under_kerberos_a_ticket_of_its_own_is_made_and_gone_afterwards(machine: Machine) -> None:
    keytab = KerberosKeytab.model_validate({"principal": "mask@X", "keytab": "/etc/mask.keytab"})
    machine.yarn(keytab).submit(_ORDER)
    login, submission = machine.noted()
    assert login["words"] == ["kinit", "-k", "-t", "/etc/mask.keytab", "mask@X"]
    cache = submission["environ"]["KRB5CCNAME"]
    assert cache == login["environ"]["KRB5CCNAME"]
    assert submission["has_ticket"]
    assert "HADOOP_USER_NAME" not in submission["environ"]
    assert "-cmdenv" not in submission["words"]
    assert not Path(cache.removeprefix("FILE:")).parent.exists()


def test_a_keytab_without_a_ticket_is_told(machine: Machine) -> None:
    machine.then("sys.exit('kinit: Keytab contains no suitable keys' if 'kinit' in sys.argv[0] else 0)")
    keytab = KerberosKeytab.model_validate({"principal": "mask@X", "keytab": "/etc/mask.keytab"})
    with pytest.raises(ConfigError, match=r"no ticket for mask@X: kinit: Keytab contains no suitable keys"):
        machine.yarn(keytab).submit(_ORDER)


def test_a_refusal_is_told_by_the_line_that_names_it(machine: Machine) -> None:
    machine.then(
        "print('packageJobJar: []')\n"
        "print('\\x1b[31mAccessControlException: masker may not submit to root.etl', file=sys.stderr)\n"
        "print('\\tat org.apache.hadoop.X(X.java:1)', file=sys.stderr)\n"
        "print('Streaming Command Failed!', file=sys.stderr)\n"
        "sys.exit(1)"
    )
    with pytest.raises(TransferError) as raised:
        machine.yarn().submit(_ORDER)
    assert raised.value.message == (
        "'mapred streaming' failed for masker: [31mAccessControlException: masker may not submit to root.etl"
    )


def test_an_application_is_killed_as_the_copying_user(machine: Machine) -> None:
    machine.yarn().kill("application_1_0001")
    [call] = machine.noted()
    assert call["words"] == ["yarn", "application", "-kill", "application_1_0001"]
    assert call["environ"]["HADOOP_USER_NAME"] == "masker"


def test_an_agent_that_stops_does_not_wait_for_a_command(machine: Machine) -> None:
    machine.then("import time; time.sleep(60)")
    machine.stop.set()
    began = time.monotonic()
    with pytest.raises(YarnUnavailableError):
        machine.yarn().submit(_ORDER)
    assert time.monotonic() - began < 30


def test_a_command_dies_with_the_agent(machine: Machine, tmp_path: Path) -> None:
    machine.then("open(here / 'pid', 'w').write(str(os.getpid())); import time; time.sleep(120)")
    agent = (
        "import os, sys; from ringfence_agent.transfer.leashed import main; import subprocess\n"
        "child = subprocess.Popen([sys.executable, '-m', 'ringfence_agent.transfer.leashed', str(os.getpid()),"
        f" {str(machine.bin / 'mapred')!r}])\n"
        "child.wait()"
    )
    process = subprocess.Popen([sys.executable, "-c", agent])
    pid_file = tmp_path / "pid"
    deadline = time.monotonic() + 60
    while not (pid_file.exists() and pid_file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    pid = int(pid_file.read_text())
    process.kill()
    process.wait()
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_text():
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.02)


def test_without_a_resourcemanager_the_refusal_names_the_file_and_the_setting(machine: Machine) -> None:
    with pytest.raises(ConfigError) as raised:
        machine.yarn().check()
    assert f"no yarn-site.xml in {machine.conf} names a ResourceManager" in raised.value.message
    assert "raise transfers.job.above in agent.yaml" in (raised.value.hint or "")


def test_a_resourcemanager_that_does_not_answer_is_named(machine: Machine) -> None:
    machine.configure(**{"yarn.resourcemanager.webapp.address": "localhost:1"})
    with pytest.raises(ConfigError, match=r"no ResourceManager answers at http://localhost:1"):
        machine.yarn().check()
    with pytest.raises(YarnUnavailableError):
        machine.yarn().find("ringfence-transfer-0f")
