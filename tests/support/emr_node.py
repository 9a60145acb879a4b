"""A machine that looks like a node of an EMR cluster: a clean root in namespaces of its own, with a real HDFS in it.

The root holds the system's programs (an overlay, so that nothing reaches the real ones), a small /etc, EMR's own files
and the sandbox with its stock KMS, whose files lie where EMR's packages put them. Its network has nothing but loopback,
so no package index can be reached. There is no systemd in it: `systemctl` is a stand-in (emr_node_systemctl.py) that
runs our units by `packaging/launch/ringfence-run` and the stock ones by their init scripts, and refuses what the real
one refuses. `aws s3 cp` copies from and to /srv/s3.

Processes are killed from outside. Where namespaces are not allowed, the test that asks fails with the reason.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[2]
SANDBOX = Path("/var/lib/hadoop-sandbox")
STATUS = Path("/var/lib/ringfence-node/status.json")
_CLUSTER = "j-2AXXXXXXGAPLF"
_INSTANCE = "i-0123456789abcdef0"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_COPIED = (
    *("passwd", "group", "shadow", "gshadow", "nsswitch.conf", "login.defs", "default", "ld.so.cache", "ld.so.conf"),
    *("ld.so.conf.d", "alternatives", "localtime", "host.conf", "protocols", "services", "ssl", "java-17-openjdk"),
    *("java-21-openjdk", "python3.11", "python3", "pki", "security", "pam.d", "os-release"),
)
_USERS = (("hadoop", 900), ("hdfs", 901), ("kms", 902))
# HDFS's own data and what its keys are in, and EMR's word on its progress: they are meant to change. Hadoop's
# configuration lies in /etc.
_DATA = (
    "mnt/var/lib/info/job-flow-state.txt",
    "var/lib/hadoop-sandbox",
    "var/log/hadoop",
    "var/tmp",
    "srv/s3",
    "root/.cache",
)
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_TREES = ("etc", "opt", "var", "mnt", "emr", "home", "root", "srv")

# Where EMR's packages have it, with the link that its alternatives make.
_MOVE_CONFIGURATION = """
mkdir -p /etc/hadoop /etc/hadoop-kms /run/hadoop /etc/init.d
for pair in conf:/etc/hadoop/conf.empty kms-conf:/etc/hadoop-kms/conf; do
  cp -a "$0/${pair%%:*}" "${pair#*:}"
  rm -r "$0/${pair%%:*}"
  ln -s "${pair#*:}" "$0/${pair%%:*}"
done
# The sandbox's own way to its KMS, which a cluster does not have.
rm /etc/hadoop/conf.empty/ringfence-client.yaml
ln -s /etc/hadoop/conf.empty /etc/alternatives/hadoop-conf
ln -s /etc/alternatives/hadoop-conf /etc/hadoop/conf
"""
# A cluster with Kerberos, as EMR has it: HDFS encrypts on the wire, the KMS answers plain HTTP, and each daemon's user
# alone reads its keytab.
_AS_EMR_WITH_KERBEROS = """
cp "$0/kdc/krb5.conf" /etc/krb5.conf
install -o kms -m 0400 "$0/kdc/keytabs/kms.keytab" /etc/kms.keytab
install -o hdfs -m 0400 "$0/kdc/keytabs/services.keytab" /etc/hdfs.keytab
sed -i 's|kms://https@|kms://http@|' /etc/hadoop/conf.empty/core-site.xml /etc/hadoop-kms/conf/core-site.xml
site=/etc/hadoop-kms/conf/kms-site.xml
sed -i "s|$0/kdc/keytabs/kms.keytab|/etc/kms.keytab|; /hadoop.kms.ssl.enabled/s|true|false|" $site
grep -q /etc/kms.keytab $site
systemctl restart hadoop-kms
systemctl restart hadoop-hdfs-namenode
"""

_ENTER = r"""
root=$1 upper=$2
shift 2
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t overlay overlay -o "lowerdir=/usr,upperdir=$upper/up,workdir=$upper/work" "$root/usr"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir -m 1777 "$root/dev/shm"; mount -t tmpfs tmpfs "$root/dev/shm"
ln -s /proc/self/fd "$root/dev/fd"
for shared in "$@"; do
  mount --bind "$shared" "$root$shared"
  mount -o remount,bind,ro "$root$shared"
done
mount -t proc proc "$root/proc"
ip -o link show lo | grep -q LOWER_UP || ip link set lo up
exec chroot "$root" /usr/bin/python3 -c '
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
print("ready", flush=True)
while True:
    try:
        os.wait()
    except ChildProcessError:
        time.sleep(0.05)
'
"""


@dataclass
class EmrNode:
    """The root directory as this side sees it, and the process inside that holds the namespaces."""

    root: Path
    upper: Path
    init: int
    environ: dict[str, str] = field(default_factory=dict)

    def command(self, *arguments: str | Path) -> list[str]:
        """Enters the node and runs a program there."""
        enter = ["nsenter", "--target", str(self.init), "--mount", "--net", "--pid", "--root"]
        given = [f"{name}={value}" for name, value in self.environ.items()]
        return [
            *enter,
            "/usr/bin/env",
            "-i",
            "--chdir=/",
            f"PATH={_PATH}",
            "HOME=/root",
            "LANG=C.UTF-8",
            *given,
            *map(str, arguments),
        ]

    def run(
        self, *arguments: str | Path, expect: int | None = 0, timeout_s: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """A program in the node, to its end."""
        done = subprocess.run(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert expect is None or done.returncode == expect, (
            f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.logs()}"
        )
        return done

    def spawn(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """A program in the node, under way; its output goes to a file that `logs` shows."""
        log = (self.root / "run/spawned.log").open("a")
        with log:
            return subprocess.Popen(
                self.command(*arguments), stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True
            )

    def path(self, path: str | Path) -> Path:
        """A file of the node as this side sees it; not through links."""
        return self.root / str(path).lstrip("/")

    def logs(self) -> str:
        """What the node's services and the waiter said last."""
        return "\n".join(
            f"--- {each.name}\n{each.read_text(errors='replace')[-3000:]}"
            for each in sorted((self.root / "run").rglob("*.log"))
        )

    def status(self) -> Mapping[str, Any]:
        """The status object; empty while there is none."""
        try:
            found: Mapping[str, Any] = json.loads(self.path(STATUS).read_text())
        except (OSError, ValueError):
            return {}
        return found

    def journal(self, name: str) -> tuple[str, list[str]]:
        """State and begun steps of one of the node's journals."""
        try:
            found = json.loads(self.path(f"/var/lib/{name}").read_text())
        except (OSError, ValueError):
            return "", []
        return str(found["state"]), [step["name"] for step in found["steps"]]

    def wait_for(
        self, what: str, condition: Callable[[], object], timeout_s: float = 180, pause_s: float = 0.1
    ) -> None:
        """Polls; fails with what the node said."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"still waiting for {what}\n{self.status()}\n{self.logs()}"
            time.sleep(pause_s)

    def kill(self, fragment: str) -> bool:
        """SIGKILL, from outside, to every process of the node whose command line has a text. Whether one had."""
        found = False
        for pid in self.pids():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if fragment in words:
                    os.kill(pid, signal.SIGKILL)
                    found = True
            except (OSError, ProcessLookupError):
                continue
        return found

    def pids(self) -> list[int]:
        """Every process in the node but the one that holds it."""
        namespace = Path(f"/proc/{self.init}/ns/pid").readlink()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.init:
                try:
                    if (entry / "ns/pid").readlink() == namespace:
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def tree(self) -> dict[str, str]:
        """Every path with its kind, mode, owner and content, without HDFS's own data."""
        found: dict[str, str] = {}
        for place in _TREES:
            found |= _tree(self.root / place, self.root)
        return found | {f"usr:{path}": text for path, text in _tree(self.upper / "up", self.upper / "up").items()}

    def become_core(self) -> None:
        """EMR says that this is a core node."""
        (self.root / "mnt/var/lib/info/instance.json").write_text('{"instanceGroupId": "ig-2", "isMaster": false}')

    def provision(self, status: str = "SUCCESSFUL", role: str = "master") -> None:
        """EMR says how far it is with this node."""
        (self.root / "mnt/var/lib/info/job-flow-state.txt").write_text(
            f'jobFlowId: "{_CLUSTER}"\nlocalInstance {{\n  instanceId: "{_INSTANCE}"\n  instanceRole: "{role}"\n'
            f'  nodeProvisionCheckinRecord {{\n    provisionId: "1"\n    status: {status}\n  }}\n}}\n'
        )


@contextmanager
def watching() -> Iterator[None]:
    """This process is never kept waiting by those that it watches: some steps take a millisecond."""
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _tree(place: Path, root: Path) -> dict[str, str]:
    found = {}
    for directory, names, files in os.walk(place):
        relative = str(Path(directory).relative_to(root))
        if any(relative == each or relative.startswith(each + "/") for each in _DATA):
            names.clear()
            continue
        for path in [Path(directory), *(Path(directory) / each for each in [*files, *names])]:
            info = path.lstat()
            content = ""
            if stat.S_ISLNK(info.st_mode):
                content = str(path.readlink())
            elif stat.S_ISREG(info.st_mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(root))] = f"{stat.filemode(info.st_mode)} {info.st_uid}:{info.st_gid} {content}"
    return {path: text for path, text in found.items() if path not in _DATA}


@contextmanager
def emr_node(
    directory: Path,
    *,
    with_hadoop: bool = True,
    kerberos: bool = False,
    of_emr: bool = True,
    hosts: Mapping[str, str] | None = None,
) -> Iterator[EmrNode]:
    """A node before its bootstrap action, HDFS and the stock KMS running; ended with all its processes.

    Without `of_emr` a machine of one's own, with nothing that EMR brings. Machines that are given `hosts`, loopback
    addresses by name, share this machine's network and reach each other.
    """
    root, upper = directory / "root", directory / "upper"
    _make_root(root)
    if of_emr:
        _write_emr_files(root)
    with (root / "etc/hosts").open("a") as stream:
        stream.writelines(f"{address} {name}\n" for name, address in (hosts or {}).items())
    for name in ("up", "work"):
        (upper / name).mkdir(parents=True)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ringfence"
    # The sandbox runs by this checkout and this Python, wherever they lie; the node itself installs its own.
    shared_places = [CHECKOUT, cache, Path(sys.base_prefix)]
    for shared in shared_places:
        (root / str(shared).lstrip("/")).mkdir(parents=True, exist_ok=True)
    namespaces = ["--mount", "--pid", "--fork", "--kill-child", *(["--net"] if hosts is None else [])]
    if os.geteuid() != 0:
        namespaces += ["--user", "--map-root-user", "--map-auto"]
    log = (directory / "enter.log").open("w")
    holder = subprocess.Popen(
        ["unshare", *namespaces, "sh", "-ec", _ENTER, "sh", root, upper, *shared_places],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        preexec_fn=_end_with_parent,  # noqa: PLW1509 - a test has one thread by now
    )
    log.close()
    try:
        assert holder.stdout is not None
        if holder.stdout.readline() != "ready\n":
            holder.wait(30)
            pytest.fail(f"this machine allows no clean root: {(directory / 'enter.log').read_text()}")
        children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
        node = EmrNode(root, upper, int(children[0]))
        _install_programs(node)
        if with_hadoop:
            _start_hadoop(node, kerberos=kerberos)
        yield node
    finally:
        holder.kill()  # the namespace's first process dies with it, and all others with that
        holder.wait()
        if holder.stdout is not None:
            holder.stdout.close()


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _make_root(root: Path) -> None:
    for name in ("bin", "sbin", "lib", "lib64"):
        root.mkdir(exist_ok=True, parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for name in ("dev", "proc", "sys", "usr", "opt", "home", "srv/s3", "etc/systemd/system/multi-user.target.wants"):
        (root / name).mkdir(parents=True)
    for name in ("run/systemd/system", "var/lib", "var/log", "var/cache", "mnt"):
        (root / name).mkdir(parents=True)
    for name in ("tmp", "var/tmp"):
        (root / name).mkdir()
        (root / name).chmod(0o1777)
    (root / "root").mkdir(mode=0o700)
    for name in _COPIED:
        source = Path("/etc") / name
        if source.is_dir():
            shutil.copytree(source, root / "etc" / name, symlinks=True)
        elif source.exists():
            shutil.copy2(source, root / "etc" / name)
    for database, line in (("passwd", "{0}:x:{1}:{1}::/var/lib/{0}:/sbin/nologin\n"), ("group", "{0}:x:{1}:\n")):
        with (root / "etc" / database).open("a") as stream:
            stream.writelines(line.format(*user) for user in _USERS)
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost {socket.gethostname()}\n")


def _write_emr_files(root: Path) -> None:
    info = root / "mnt/var/lib/info"
    info.mkdir(parents=True)
    (root / "emr/instance-controller/lib").mkdir(parents=True)
    (root / "emr/instance-controller/lib/info").symlink_to("/mnt/var/lib/info")
    (info / "instance.json").write_text('{"instanceGroupId": "ig-1", "isMaster": true, "isRunningNameNode": true}')
    (info / "job-flow.json").write_text(json.dumps({"jobFlowId": _CLUSTER, "instanceGroups": []}))
    extra = {"jobFlowId": _CLUSTER, "instanceId": _INSTANCE, "region": "eu-west-1", "haEnabled": False}
    (info / "extraInstanceData.json").write_text(json.dumps(extra | {"releaseLabel": "emr-7.12.0"}))
    (info / "job-flow-state.txt").write_text(f'jobFlowId: "{_CLUSTER}"\nlocalInstance {{\n  instanceRole: "master"\n')


def _install_programs(node: EmrNode) -> None:
    launcher = str(CHECKOUT / "packaging/launch/ringfence-run")
    _put(node, "/usr/bin/systemctl", _program("systemctl").replace("@LAUNCHER@", launcher))
    _put(node, "/usr/bin/aws", _program("aws"))
    home = SANDBOX / "hadoop"
    _put(node, "/usr/bin/hadoop", f'#!/bin/sh\nexport HADOOP_HOME={home}\nexec {home}/bin/hadoop "$@"\n')
    _put(node, "/usr/lib/hadoop-daemon", _program("daemon"))


def _program(name: str) -> str:
    return (Path(__file__).parent / f"emr_node_{name}.py").read_text()


def _put(node: EmrNode, path: str, text: str) -> None:
    done = subprocess.run(
        node.command("sh", "-c", 'cat > "$0.new" && chmod 755 "$0.new" && mv -f "$0.new" "$0"', path),
        input=text, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def _start_hadoop(node: EmrNode, *, kerberos: bool) -> None:
    ringfence = CHECKOUT / ".venv/bin/ringfence"
    secure = ("--kerberos", "--tls") if kerberos else ()
    up = node.run(ringfence, "sandbox", "up", "--json", "--kms", "stock", *secure, "--dir", SANDBOX, timeout_s=600)
    node.run("sh", "-ec", _MOVE_CONFIGURATION, SANDBOX)
    node.environ = {"JAVA_HOME": json.loads(up.stdout)["environment"]["JAVA_HOME"]}
    for unit, daemon in (("hadoop-kms", "kms"), ("hadoop-hdfs-namenode", "namenode")):
        script = node.path(f"/etc/init.d/{unit}")
        script.write_text(f'#!/bin/sh\nexec /usr/bin/python3 /usr/lib/hadoop-daemon {SANDBOX} {daemon} "$1"\n')
        script.chmod(0o755)
        node.path(f"/etc/systemd/system/{unit}.service").write_text(
            f"[Unit]\nDescription={unit}\n[Service]\nType=forking\nExecStart=/etc/init.d/{unit} start\n"
            f"ExecStop=/etc/init.d/{unit} stop\n[Install]\nWantedBy=multi-user.target\n"
        )
        node.path(f"/etc/systemd/system/multi-user.target.wants/{unit}.service").symlink_to(f"../{unit}.service")
    if kerberos:
        node.run("sh", "-ec", _AS_EMR_WITH_KERBEROS, SANDBOX)
