"""The shell command that does by copy what a rename may not: copy, then compare the plain text of both sides.

Rules:

1. It hashes what `hdfs dfs -cat` shows. `-checksum` hashes ciphertext, which always differs across zones.
2. It fails closed: a side that cannot be read adds a word of its own to its hash, so two failures never look equal.
3. It needs only POSIX `sh`, GNU `xargs` and Hadoop's shell, and deletes nothing: the source stays until its owner
   removes it.
4. Names are quoted for the shell and escaped for Hadoop's globbing.
"""

from __future__ import annotations

import re
import shlex

from ringfence_zones.paths import HdfsPath

_GLOB = re.compile(r"[\\*?\[\]{}]")
_GLOB_SED = r"s/[][\\*?{}]/\\&/g"


def copy_and_compare(src: HdfsPath, dst: HdfsPath, *, is_directory: bool | None) -> str | None:
    """A command for `sh -c` that exits 0 when `dst` now holds exactly the files of `src`.

    `dst` is the final path, not a directory to put things into. `is_directory` is None when nobody has looked; the
    command then fits both. None when Hadoop's shell cannot make a file of that name: it globs the target too, and
    takes an escaped name that does not exist literally.
    """
    target = _target(src, dst)
    if target is None or dst.is_inside(src):
        return None
    copy = f"hdfs dfs -cp {_quoted(src)} {shlex.quote(str(target))}"
    if is_directory is False:
        return f"{copy} && test {_file_digest(src, 'source')} = {_file_digest(dst, 'copy')}"
    return f"{copy} && {_TREE_DIGEST} && test {_tree_digest(src, 'source')} = {_tree_digest(dst, 'copy')}"


def _target(src: HdfsPath, dst: HdfsPath) -> HdfsPath | None:
    if not _GLOB.search(str(dst)):
        return dst
    parent = dst.parent
    # `-cp a[1] DIR` makes DIR/a[1]: the name comes from the source, not from a pattern.
    usable = parent is not None and src.name == dst.name and not _GLOB.search(str(parent))
    return parent if usable else None


def _escaped(path: HdfsPath) -> str:
    return _GLOB.sub(r"\\\g<0>", str(path))


def _quoted(path: HdfsPath) -> str:
    return shlex.quote(_escaped(path))


def _file_digest(path: HdfsPath, side: str) -> str:
    return f'"$({{ hdfs dfs -cat {_quoted(path)} || echo unreadable {side}; }} | sha256sum)"'


# $1 the tree, escaped; $2 where, in bytes, the names below it begin; $3 which side it is. Hashes the sizes and the
# names of the files, then their contents, all in the order in which Hadoop lists them.
_TREE_DIGEST = (
    "digest() { { list=$(hdfs dfs -ls -R \"$1\") && printf '%s\\n' \"$list\" | awk '/^-/ {print $5}' && "
    "files=$(printf '%s\\n' \"$list\" | sed -n 's/^-\\([^ ]* *\\)\\{7\\}//p') && "
    'printf \'%s\\n\' "$files" | LC_ALL=C cut -b "$2"- && '
    f"printf '%s\\n' \"$files\" | sed '{_GLOB_SED}' | xargs -r -d '\\n' hdfs dfs -cat || echo unreadable \"$3\"; }} | "
    "sha256sum; }"
)


def _tree_digest(path: HdfsPath, side: str) -> str:
    return f'"$(digest {_quoted(path)} {len(str(path).encode()) + 1} {side})"'
