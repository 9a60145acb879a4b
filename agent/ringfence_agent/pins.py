"""Pins zone roots: keeps them in `fs.protected.directories`, so that nobody renames or deletes them.

HDFS refuses to rename or delete a *non-empty* listed directory and every ancestor of one, for superusers too
(rename in full since 3.3.1). So only the roots are listed. Rules:

1. The list belongs to the administrator. Entries that the agent did not add are kept, spelled and ordered as they
   are; an entry that the administrator listed stays his when it is a zone root as well.
2. What the agent added it remembers in its state directory, before it touches the file. Only such an entry is ever
   taken out again, once its root is no zone of the policy any more. A memory that cannot be read means "nothing is
   ours": the agent then adds, and removes nothing.
3. `merge_pins` is pure. `PinFile` reads and edits `core-site.xml` and says why it cannot; it never guesses which
   value a NameNode would take.
4. An edit is not a pin: only what the running NameNodes say counts (`fs.protected.directories` is reloadable).

Source of the list's format: `FSDirectory.parseProtectedDirectories` and `StringUtils.getTrimmedStrings`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ringfence_zones.durable_file import replace_file
from ringfence_zones.errors import ConfigError
from ringfence_zones.hadoop_xml import SiteProperty, read_document, read_property, replace_document, set_property

PROPERTY = "fs.protected.directories"

_SEPARATOR = re.compile(r"\s*[,\n]\s*")
_MAX_STATE_BYTES = 4 * 1024 * 1024
_STATE_SCHEMA = 1


def split_entries(value: str) -> tuple[str, ...]:
    """The entries of the property's value, as Hadoop splits it."""
    return tuple(entry for entry in _SEPARATOR.split(value.strip()) if entry)


def canonical_entry(entry: str) -> str:
    """How the NameNode compares an entry: no repeated and no trailing slashes."""
    return re.sub("/+", "/", entry.strip()).rstrip("/") or "/"


def is_pinnable(root: str) -> bool:
    """Whether the list can name this path: its commas, line breaks and outer blanks would be read as separators,
    and `${` as a variable."""
    return split_entries(root) == (root,) and "${" not in root and canonical_entry(root) == root


@dataclass(frozen=True, slots=True)
class PinPlan:
    """What to do about the list. Paths are canonical and sorted in `added` and `removed`."""

    entries: tuple[str, ...]
    """The whole value to write: the administrator's entries first, as they were."""
    added: tuple[str, ...]
    removed: tuple[str, ...]
    owned: frozenset[str]
    """What is the agent's once this is done."""
    reload: bool
    """A running NameNode does not hold yet what the list says about the agent's roots."""
    forget: bool
    """The agent remembers entries that are not its own any more: an administrator may list them again."""

    @property
    def edits_file(self) -> bool:
        """Whether the value itself changes."""
        return bool(self.added or self.removed)

    @property
    def changes_cluster(self) -> bool:
        """Whether a file or a NameNode has to follow."""
        return self.edits_file or self.reload

    @property
    def is_nothing(self) -> bool:
        """Everything is as it should be."""
        return not self.changes_cluster and not self.forget

    def describe(self) -> str:
        """The clause for the cycle's sentence: `pin /data/a, unpin /data/b`."""
        clauses = []
        if self.added:
            clauses.append(f"pin {', '.join(self.added)}")
        if self.removed:
            clauses.append(f"unpin {', '.join(self.removed)}")
        if self.reload and not clauses:
            clauses.append(f"reload {PROPERTY}")
        return ", ".join(clauses) or "forget pins that are gone"


def merge_pins(
    entries: Sequence[str], roots: Iterable[str], owned: Iterable[str], live: Sequence[str] | None
) -> PinPlan:
    """The list with every root in it and nothing lost that is not the agent's.

    `entries` is the list in the file, `owned` what the agent added to it, `live` what every running NameNode holds
    (None: unknown). Roots that the list cannot name (`is_pinnable`) must not be among `roots`.
    """
    wanted = set(roots)
    mine = set(owned)
    stale = mine - wanted
    present = {canonical_entry(entry) for entry in entries}
    kept = tuple(entry for entry in entries if canonical_entry(entry) not in stale)
    added = tuple(sorted(wanted - present))
    held = {canonical_entry(entry) for entry in live} if live is not None else None
    after = frozenset((mine & wanted & present) | set(added))
    return PinPlan(
        entries=kept + added,
        added=added,
        removed=tuple(sorted(stale & present)),
        owned=after,
        reload=held is not None and (not wanted <= held or bool(stale & held)),
        forget=not mine <= after,
    )


@dataclass(frozen=True, slots=True)
class PinFile:
    """The property as a NameNode's configuration directory holds it at one moment.

    `problem` says why the agent may not edit it; the entries are then what could be read, perhaps nothing.
    """

    path: Path
    entries: tuple[str, ...]
    problem: str | None = None


def read_pin_file(conf_dir: Path) -> PinFile:
    """Looks at `core-site.xml`, and at `hdfs-site.xml`, which a NameNode reads after it."""
    path = conf_dir / "core-site.xml"
    try:
        ours = read_property(read_document(path), PROPERTY)
        entries = split_entries(ours.value) if ours else ()
        return PinFile(path, entries, _overridden(conf_dir / "hdfs-site.xml", ours))
    except ConfigError as error:
        return PinFile(path, (), f"{path}: {error.message}")


def _overridden(path: Path, ours: SiteProperty | None) -> str | None:
    """A NameNode reads hdfs-site.xml last: it wins, unless core-site.xml marks its own value final."""
    if not path.exists() or (ours is not None and ours.final):
        return None
    try:
        theirs = read_property(read_document(path), PROPERTY)
    except ConfigError as error:
        return f"{path}: {error.message}"
    if theirs is None:
        return None
    return f"{path} sets {PROPERTY} as well and wins over core-site.xml: keep it in core-site.xml alone"


def edit_pin_file(path: Path, before: Sequence[str], plan: PinPlan) -> None:
    """Writes the plan's entries to the file. Raises ConfigError when it changed since, or may not be written."""
    document = read_document(path)
    current = read_property(document, PROPERTY)
    if (split_entries(current.value) if current else ()) != tuple(before):
        raise ConfigError(f"{PROPERTY} in {path} changed since it was looked at: nothing was written")
    replace_document(path, set_property(document, PROPERTY, ",".join(plan.entries)), expected=document)


class PinMemory:
    """Which entries of one `core-site.xml` are the agent's, kept in its state directory over restarts."""

    def __init__(self, state_dir: Path, core_site: Path) -> None:
        self._path = state_dir / "pins.json"
        self._core_site = core_site

    def load(self) -> frozenset[str]:
        """The agent's entries. Empty when nothing is remembered, or for another file, or the memory is damaged."""
        try:
            with self._path.open("rb") as stream:
                content = json.loads(stream.read(_MAX_STATE_BYTES))
        except FileNotFoundError:
            return frozenset()
        except OSError as error:
            raise ConfigError(f"cannot read {self._path}: {error.strerror}") from error
        except ValueError:
            return frozenset()
        if not isinstance(content, dict) or content.get("schema") != _STATE_SCHEMA:
            return frozenset()
        pinned = content.get("pinned")
        if content.get("file") != str(self._core_site) or not isinstance(pinned, list):
            return frozenset()
        return frozenset(entry for entry in pinned if isinstance(entry, str))

    def save(self, owned: Iterable[str]) -> None:
        """Remembers durably. Raises ConfigError when the state directory cannot be written."""
        content = {"schema": _STATE_SCHEMA, "file": str(self._core_site), "pinned": sorted(owned)}
        try:
            self._path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            replace_file(self._path, json.dumps(content, indent=1).encode())
        except OSError as error:
            raise ConfigError(
                f"cannot write {self._path}: {error.strerror}",
                hint="give the agent's user its state directory, or set state_dir in agent.yaml",
            ) from error
