"""HDFS paths, made canonical once at the edge; everything inside passes `HdfsPath`, never a string.

Rules (the reference is `org.apache.hadoop.hdfs.DFSUtilClient.isValidName` with what `org.apache.hadoop.fs.Path`
rewrites before it):

1. What Hadoop would rewrite is refused rather than rewritten: `.`, `..`, empty components, `//` at the start,
   `hdfs:/x`. Only a single trailing slash means nothing.
2. Names are bytes to HDFS: no Unicode normalisation, no percent-decoding, no case folding. `é` composed and
   decomposed are two names.
3. Membership is decided by components, never by `startswith`: `/zoneA2` is not inside `/zoneA`.
4. Control and bidirectional-override characters are refused: they make a log line or a prompt lie.

This module refuses to guess what only the NameNode knows: `/.reserved/.inodes/N` and unknown `/.reserved` names
are bad input, and an authority other than the caller's own file system is foreign.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from ringfence_zones.errors import PathError

MAX_PATH_BYTES = 8000  # HdfsConstants.MAX_PATH_LENGTH
MAX_COMPONENTS = 1000  # HdfsConstants.MAX_PATH_DEPTH

_RAW_PREFIX = (".reserved", "raw")
_SNAPSHOT = ".snapshot"
# C0 controls with DEL, C1 controls, bidirectional marks, embeddings, overrides and isolates, line separators.
_DECEIVING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_URI = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?P<rest>.*)", re.DOTALL)


class PathKind(enum.Enum):
    """What the name space means by a path."""

    NORMAL = "normal"
    RAW = "raw"  # below /.reserved/raw: ciphertext
    SNAPSHOT = "snapshot"  # has a .snapshot component: read-only, as it was


@dataclass(frozen=True, slots=True)
class HdfsPath:
    """An absolute, canonical HDFS path: its components, none for `/`. Make one with `parse`."""

    components: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, *, default_fs: str | None = None) -> HdfsPath:
        """The path that `text` names.

        `default_fs` is the caller's own file system (`fs.defaultFS`); a URI of that authority is accepted, as is
        `hdfs:///x`. Raises PathError for everything else that is not an absolute path in canonical form.
        """
        path = _strip_authority(text, default_fs)
        if not path.startswith("/"):
            raise PathError(text, "is not an absolute path", hint="start it with /")
        _check_text(text, path)
        if path == "/":
            return cls(())
        components = tuple(path.removesuffix("/")[1:].split("/"))
        _check_components(text, components)
        return cls(components)

    @classmethod
    def from_namenode(cls, text: str) -> HdfsPath:
        """A path as the NameNode lists it: absolute and canonical already, and allowed names this parser refuses."""
        return cls(tuple(part for part in text.split("/") if part))

    @property
    def kind(self) -> PathKind:
        """RAW wins over SNAPSHOT: a raw path into a snapshot is a raw path."""
        if self.components[:2] == _RAW_PREFIX:
            return PathKind.RAW
        return PathKind.SNAPSHOT if _SNAPSHOT in self.components else PathKind.NORMAL

    @property
    def is_root(self) -> bool:
        """True for `/`."""
        return not self.components

    @property
    def name(self) -> str:
        """The last component, empty for `/`."""
        return self.components[-1] if self.components else ""

    @property
    def parent(self) -> HdfsPath | None:
        """The directory that holds this path; None for `/`."""
        return HdfsPath(self.components[:-1]) if self.components else None

    @property
    def live(self) -> HdfsPath:
        """The path in the live name space that a raw or snapshot path shows: `/d/.snapshot/s1/f` is `/d/f`.

        For a snapshot this is the best that can be said without the NameNode: the zones of today, not of then.
        """
        rest = self.components[2:] if self.kind is PathKind.RAW else self.components
        if _SNAPSHOT in rest:
            at = rest.index(_SNAPSHOT)
            rest = rest[:at] + rest[at + 2 :]
        return HdfsPath(rest)

    def child(self, name: str) -> HdfsPath:
        """This path with one component more."""
        return HdfsPath((*self.components, name))

    def is_inside(self, other: HdfsPath) -> bool:
        """True when this is `other` or anything below it."""
        return self.components[: len(other.components)] == other.components

    def __str__(self) -> str:
        return "/" + "/".join(self.components)

    def __repr__(self) -> str:
        return f"HdfsPath({str(self)!r})"

    def __lt__(self, other: HdfsPath) -> bool:
        """By component, so that a directory sorts directly before what is below it."""
        return self.components < other.components


def _strip_authority(text: str, default_fs: str | None) -> str:
    if text.startswith("//"):
        raise PathError(text, "starts with //, which Hadoop reads as a host name", hint="use a single /")
    # A colon after the first slash is not a scheme; _check_components refuses it as a name.
    match = _URI.fullmatch(text) if "/" not in text.partition(":")[0] else None
    if match is None:
        return text
    scheme, rest = match["scheme"].lower(), match["rest"]
    if not rest.startswith("//"):
        raise PathError(text, "is an ambiguous URI", hint="give the absolute path alone, such as /data/a")
    authority, slash, path = rest[2:].partition("/")
    own = (default_fs or "").rstrip("/").lower()
    if scheme == "hdfs" and not authority:
        return slash + path
    if not own or f"{scheme}://{authority}".lower() != own:
        whose = f"not {default_fs}" if own else "and this command was not told which one is its own"
        raise PathError(text, f"names the file system {scheme}://{authority}, {whose}", hint="give the path alone")
    return slash + path


def _check_text(text: str, path: str) -> None:
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise PathError(text, "is not valid UTF-8") from None
    if size > MAX_PATH_BYTES:
        raise PathError(text[:80] + "...", f"is longer than HDFS allows ({MAX_PATH_BYTES} bytes)")
    found = _DECEIVING.search(path)
    if found is not None:
        raise PathError(text, f"holds the control character U+{ord(found[0]):04X}")


def _check_components(text: str, components: tuple[str, ...]) -> None:
    if len(components) > MAX_COMPONENTS:
        raise PathError(text[:80] + "...", f"is deeper than HDFS allows ({MAX_COMPONENTS} components)")
    for component in components:
        if component == "":
            raise PathError(text, "has an empty component (//)", hint="write each / once")
        if component in (".", ".."):
            raise PathError(text, f"has the component {component!r}", hint="write the path it leads to")
        if ":" in component:
            raise PathError(text, f"has ':' in {component!r}, which HDFS does not allow in a name")
    if components[0] != ".reserved" or components[:2] == _RAW_PREFIX:
        return
    if components[1:2] == (".inodes",):
        raise PathError(text, "names a file by its number", hint="give its path: hdfs dfs -ls shows it")
    raise PathError(text, "is a reserved name of HDFS")
