"""Where a job puts what is not finished yet, so that its last rename works: one pure decision, used everywhere.

A job writes beside its target and renames when all is done. HDFS refuses that rename between zones, so what is staged
for a path belongs into the zone that the path is in; and so does scratch data, which is the same data in other
files. Rules:

1. Places are beside the target, in its parent, where whoever may rename onto the target may write anyway. A target that
   is itself a zone's root, or holds one, is never renamed onto: what is for it is staged inside it.
2. Their names begin with a dot: Hive, Spark and MapReduce pass over such files when they read the directory
   (`FileInputFormat.hiddenFileFilter`). They name the user, and the job when one is given, so that two do not meet.
3. A rename from the staging directory to the target is one that `decide_move` allows; a test holds both together.

Refused: raw and snapshot paths, in which nothing is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ringfence_zones.errors import InputError, PathError
from ringfence_zones.moves import ZoneMap
from ringfence_zones.paths import HdfsPath, PathKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where to put what for `path`. `zone` is the root of the zone that all three are in, None outside every zone.

    staging   what will be renamed to the target
    scratch   what will be thrown away
    why       one sentence
    """

    path: HdfsPath
    zone: HdfsPath | None
    staging: HdfsPath
    scratch: HdfsPath
    why: str

    def to_json(self) -> dict[str, Any]:
        """The JSON object of the agent's API and of `ringfence agent places`."""
        return {
            "path": str(self.path),
            "zone": str(self.zone) if self.zone is not None else None,
            "staging": str(self.staging),
            "scratch": str(self.scratch),
            "why": self.why,
        }


def find_places(at: ZoneMap, path: HdfsPath, *, user: str, job: str | None = None) -> Places:
    """The places for `path`, which need not exist. Raises PathError, and InputError for a name no path can hold."""
    if path.kind is not PathKind.NORMAL:
        what = "shows encrypted bytes" if path.kind is PathKind.RAW else "is in a snapshot"
        raise PathError(str(path), f"{what}: nothing is written there", hint="name the path without it")
    is_container = path.is_root or at.is_root(path) or bool(at.roots_below(path))
    base = path if is_container else path.parent
    assert base is not None, "only / has no parent, and it is a container"
    zone = at.find_zone_of(base)
    suffix = user if job is None else f"{user}-{job}"
    staging, scratch = (_child(base, f".{what}-{suffix}") for what in ("staging", "scratch"))
    return Places(path=path, zone=zone, staging=staging, scratch=scratch, why=_why(path, zone, is_container))


def _child(base: HdfsPath, name: str) -> HdfsPath:
    if "/" in name:
        raise InputError(f"{name!r} cannot be the name of a directory")
    # Parsed anew: a user's or a job's name has not been looked at yet.
    return HdfsPath.parse(str(base.child(name)))


def _why(path: HdfsPath, zone: HdfsPath | None, is_container: bool) -> str:
    if zone is None:
        where = f"{path} is in no encryption zone: HDFS refuses a rename out of one, so what is staged must be in none"
    else:
        where = f"{path} is in the encryption zone {zone}: HDFS refuses a rename into it from anywhere else"
    if is_container:
        return f"{where}; and {path} itself is never renamed onto, so what is for it is staged inside it"
    return where
