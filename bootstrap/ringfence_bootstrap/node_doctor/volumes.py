"""Which device a file rests on, and what encrypts that: mountinfo and sysfs, both read and neither changed (Linux).

What EBS does cannot be seen from the instance: such a volume is `UNSEEN`, and only EC2's API tells. NVMe instance store
is encrypted by its hardware. A stack (LVM, RAID) is encrypted when everything below it is.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_EBS = "Amazon Elastic Block Store"
_INSTANCE_STORE = "Amazon EC2 NVMe Instance Storage"
_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_OCTAL = re.compile(r"\\([0-7]{3})")
_MAX_BYTES = 1024 * 1024
_DEEPEST = 8


class Protection(enum.Enum):
    """What encrypts a volume, as far as the node can tell."""

    DM_CRYPT = "encrypted by dm-crypt"
    HARDWARE = "NVMe instance store, which its hardware encrypts"
    MEMORY = "in memory"
    UNSEEN = "an EBS volume"
    NONE = "encrypted by nothing on this machine"
    UNKNOWN = "of a kind that is not known here"


@dataclass(frozen=True, slots=True)
class Volume:
    """A mount. `device` is as mountinfo has it; `suspended` when device-mapper holds back all reads and writes."""

    mount: Path
    device: str
    protection: Protection
    suspended: bool = False


def find_volume(path: Path, root: Path = Path("/")) -> Volume | None:
    """The volume that holds `path`, an absolute path of the node, there or not. None when the kernel does not say."""
    mounts = list(_mounts(root))
    wanted = _resolved(path, root)
    holding = [mount for mount in mounts if wanted == mount.mount or mount.mount in wanted.parents]
    # The last of those on one place lies on top.
    best = max(enumerate(holding), key=lambda each: (len(each[1].mount.parts), each[0]), default=None)
    return None if best is None else _volume(best[1], root)


@dataclass(frozen=True, slots=True)
class _Mount:
    number: str
    mount: Path
    kind: str
    device: str


def _mounts(root: Path) -> Iterator[_Mount]:
    """Source of the format: proc_pid_mountinfo(5)."""
    for line in _read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if len(fields) >= 6 and len(rest) >= 2:
            yield _Mount(fields[2], Path(_unescaped(fields[4])), rest[0], _unescaped(rest[1]))


def _volume(mount: _Mount, root: Path) -> Volume:
    if mount.kind in _MEMORY:
        return Volume(mount.mount, mount.device, Protection.MEMORY)
    device = root / "sys/dev/block" / mount.number
    if not device.exists():
        return Volume(mount.mount, mount.device, Protection.UNKNOWN)
    return Volume(mount.mount, mount.device, _protection(device, _DEEPEST), _is_suspended(device, _DEEPEST))


def _protection(device: Path, depth: int) -> Protection:
    if _read(device / "dm/uuid").startswith("CRYPT-"):
        return Protection.DM_CRYPT
    below = _below(device)
    if below and depth:
        found = {_protection(each, depth - 1) for each in below}
        order = (Protection.NONE, Protection.UNKNOWN, Protection.UNSEEN, Protection.HARDWARE, Protection.DM_CRYPT)
        return next(each for each in order if each in found)
    if (device / "partition").exists():
        device = device.resolve().parent
        if _read(device / "dm/uuid").startswith("CRYPT-"):
            return Protection.DM_CRYPT
    model = _read(device / "device/model").strip()
    # Before Nitro an instance's disks were Xen's, which say nothing of what they are.
    if model == _EBS or device.resolve().name.startswith("xvd"):
        return Protection.UNSEEN
    return Protection.HARDWARE if model == _INSTANCE_STORE else Protection.NONE


def _is_suspended(device: Path, depth: int) -> bool:
    own = _read(device / "dm/suspended").strip() == "1"
    return own or (depth > 0 and any(_is_suspended(each, depth - 1) for each in _below(device)))


def _below(device: Path) -> list[Path]:
    try:
        return sorted((device / "slaves").iterdir())
    except OSError:
        return []


def _resolved(path: Path, root: Path) -> Path:
    if root != Path("/"):
        return path
    return Path(os.path.realpath(path))


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(_MAX_BYTES).decode(errors="replace")
    except OSError:
        return ""
