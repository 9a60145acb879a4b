"""What a tree holds, from two looks at once: the user's own, which decides what is seen at all, and the agent's, which
has what no listing of a data client shows. Pure functions.

Two looks are one only when they agree; when they do not, somebody writes there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from ringfence_agent.transfer.hands import Entry
from ringfence_agent.transfer.record import Item, Zone
from ringfence_zones.encryption_xattrs import key_of_version
from ringfence_zones.errors import SourceChangedError, TransferError
from ringfence_zones.model import TreeNode

_TRASH = ".Trash"


def items_of(root: str, entries: Sequence[Entry], nodes: Sequence[TreeNode], *, without_trash: bool) -> list[Item]:
    """Files and directories at and below `root`, by path.

    Raises SourceChangedError when the two looks differ, or somebody has a file open for writing.
    """
    by_path = {node.path: node for node in nodes}
    if len(entries) != len(nodes):
        raise SourceChangedError(f"{root} changed while it was listed: {len(entries)} entries, then {len(nodes)}")
    items = []
    for entry in sorted(entries, key=lambda entry: entry.path):
        if without_trash and entry.path.partition("/")[0] == _TRASH:
            continue
        node = by_path.get(entry.path)
        where = f"{root}/{entry.path}".rstrip("/")
        if node is None or (node.is_directory, node.bytes) != (entry.is_directory, entry.bytes):
            raise SourceChangedError(f"{where} changed while {root} was listed")
        if node.is_open:
            raise SourceChangedError(f"{where} is open: somebody writes to it", hint="transfer it when it is closed")
        items.append(_item(entry, node))
    return items


def check_keys(root: str, versions: Iterable[str | None], zones: Collection[Zone]) -> None:
    """Raises TransferError when a file below `root` is encrypted with a key of none of these zones: a zone was put in
    another's place, or the path shows one that is not there any more, as a snapshot does."""
    allowed = {zone.key for zone in zones}
    foreign = {key_of_version(version) for version in versions if version is not None} - allowed
    if foreign:
        among = (
            f"the zone{'s' if len(zones) > 1 else ''} {', '.join(zone.path for zone in zones)}" if zones else "clear"
        )
        raise TransferError(
            f"{root} holds files of the key {min(foreign)}, and counts as {among}",
            hint="see which zone they are of (`ringfence zone of PATH`), and transfer them as that zone's",
        )


def check_owners(root: str, entries: Iterable[Entry], owners: Mapping[str, str]) -> None:
    """Raises TransferError when something below `root` is not its owner's: who may write beside the target has put it
    in the place of what was verified. HDFS lets nobody but a superuser make files in another's name."""
    for entry in entries:
        if owners.get(entry.path) != entry.owner:
            where = f"{root}/{entry.path}".rstrip("/")
            raise TransferError(
                f"{where} is {entry.owner}'s, and not the copy that was verified",
                hint="the source is as it was; see who writes to the target's directory",
            )


def same_source(before: Iterable[Item], now: Iterable[Item]) -> str | None:
    """None when the source is what it was; else what differs, in a few words.

    A directory's time of change is left out: what is below it is compared itself.
    """
    then, later = {item.path: item for item in before}, {item.path: item for item in now}
    for path in sorted(then.keys() | later.keys()):
        was, is_now = then.get(path), later.get(path)
        name = path or "itself"
        if is_now is None:
            return f"{name} is gone"
        if was is None:
            return f"{name} is new"
        if (was.is_directory, was.file_id) != (is_now.is_directory, is_now.file_id):
            return f"{name} is another {'directory' if is_now.is_directory else 'file'} of that name"
        if not was.is_directory and (was.bytes, was.modified_ms) != (is_now.bytes, is_now.modified_ms):
            return f"{name} was written to"
    return None


def with_copies(items: Sequence[Item], copies: Sequence[TreeNode]) -> list[Item]:
    """The items with what their copies are. Raises TransferError when the staging place holds anything else."""
    by_path = {node.path: node for node in copies}
    if by_path.keys() != {item.path for item in items}:
        raise TransferError("the staging place does not hold what was copied to it: somebody writes there")
    found = []
    for item in items:
        node = by_path[item.path]
        if (node.is_directory, node.bytes, node.is_open) != (item.is_directory, item.bytes, False):
            raise TransferError(f"the copy of {item.path or 'the source'} was changed in the staging place")
        # A directory's time of change moves with the rename of what is below it; its number does not.
        modified_ms = None if node.is_directory else node.modified_ms
        found.append(
            replace(item, copy_id=node.file_id, copy_modified_ms=modified_ms, copy_key_version=node.key_version)
        )
    return found


def copies_of(nodes: Iterable[TreeNode]) -> list[tuple[str, int | None, int | None]]:
    """Path, number and time of change of each node, to be compared with what `with_copies` found."""
    return [(node.path, node.file_id, None if node.is_directory else node.modified_ms) for node in nodes]


def _item(entry: Entry, node: TreeNode) -> Item:
    return Item(
        path=entry.path,
        is_directory=entry.is_directory,
        bytes=entry.bytes,
        mode=entry.mode,
        owner=entry.owner,
        group=entry.group,
        modified_ms=node.modified_ms,
        accessed_ms=entry.accessed_ms,
        file_id=node.file_id,
        key_version=node.key_version,
    )
