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


def copy_and_compare(src: HdfsPath, dst: HdfsPath, *, is_directory: bool) -> str | None:
    """A command for `sh -c` that exits 0 when `src` was copied to `dst` and the copy holds exactly what it held.

    `is_directory` says what `src` is. Taken for a file, a directory is copied and then fails the comparison: it
    cannot be read as one. The same goes for a `dst` that turns out to be a directory.

    Returns None when there is no such command: for a copy into itself, and for a name that Hadoop's shell cannot
    make because it globs the target too and takes an escaped name that does not exist literally.
    """
    target = _target(src, dst)
    if target is None or dst.is_inside(src):
        return None
    copy = f"hdfs dfs -cp {_escaped(src)} {shlex.quote(str(target))}"
    if not is_directory:
        return f"{copy} && test {_file_digest(src, 'source')} = {_file_digest(dst, 'copy')}"
    source, copied = shlex.quote(str(src)), shlex.quote(str(dst))
    return f'{copy} && {_TREE_DIGEST} && test "$(digest {source} source)" = "$(digest {copied} copy)"'


def _target(src: HdfsPath, dst: HdfsPath) -> HdfsPath | None:
    if not _GLOB.search(str(dst)):
        return dst
    parent = dst.parent
    # `-cp a[1] DIR` makes DIR/a[1]: the name comes from the source, not from a pattern.
    usable = parent is not None and src.name == dst.name and not _GLOB.search(str(parent))
    return parent if usable else None


def _escaped(path: HdfsPath) -> str:
    return shlex.quote(_GLOB.sub(r"\\\g<0>", str(path)))


def _file_digest(path: HdfsPath, side: str) -> str:
    return f'"$({{ hdfs dfs -cat {_escaped(path)} || echo unreadable {side}; }} | sha256sum)"'


# $1 the tree, $2 which side it is. Hashes the sizes and names of the files, then their contents, all in the order in
# which Hadoop lists them; names are cut to what follows the tree's own path, counted in bytes.
_TREE_DIGEST = (
    f'digest() {{ {{ escape=\'{_GLOB_SED}\'; list=$(hdfs dfs -ls -R "$(printf \'%s\' "$1" | sed "$escape")") && '
    "files=$(printf '%s\\n' \"$list\" | sed -n 's/^-\\([^ ]* *\\)\\{7\\}//p') && "
    "printf '%s\\n' \"$list\" | awk '/^-/ {print $5}' && "
    'printf \'%s\\n\' "$files" | LC_ALL=C cut -b "$(($(printf \'%s\' "$1" | wc -c) + 1))"- && '
    'printf \'%s\\n\' "$files" | sed "$escape" | xargs -r -d \'\\n\' hdfs dfs -cat || echo unreadable "$2"; } | '
    "sha256sum; }"
)
