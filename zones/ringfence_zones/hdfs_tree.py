"""A tree of HDFS as the NameNode keeps it: what no listing of a data client shows.

That is each inode's number, the key version that a file is encrypted with, whether somebody is writing to it, and
whether it has an ACL. It is read in listings of a thousand, with the place of each file's blocks, for only those say
that a file is open.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ringfence_zones.errors import HdfsError
from ringfence_zones.hdfs_jvm import Jvm
from ringfence_zones.model import TreeNode


def read_tree(jvm: Jvm, file_system: Any, path: str, limit: int) -> tuple[TreeNode, ...]:
    """What is at `path` and below, by path relative to it (empty for itself); empty when nothing is there.

    Raises what Java throws, and HdfsError for a tree of more than `limit` nodes.
    """
    client = file_system.getClient()
    root = client.getLocatedFileInfo(path, False)
    if root is None:
        return ()
    nodes = [_node(root, "")]
    waiting = [""] if nodes[0].is_directory else []
    while waiting:
        below = waiting.pop()
        for status in _listed(jvm, client, f"{path.rstrip('/')}/{below}" if below else path):
            name = str(status.getLocalName())
            node = _node(status, f"{below}/{name}" if below else name)
            nodes.append(node)
            if len(nodes) > limit:
                raise HdfsError(f"{path} holds more than {limit} files and directories")
            if node.is_directory:
                waiting.append(node.path)
    return tuple(sorted(nodes, key=lambda node: node.path))


def _listed(jvm: Jvm, client: Any, directory: str) -> Iterator[Any]:
    start = jvm.java_class("org.apache.hadoop.hdfs.protocol.HdfsFileStatus").EMPTY_NAME
    while True:
        listing = client.listPaths(directory, start, True)
        if listing is None:  # removed meanwhile
            return
        yield from listing.getPartialListing()
        if not listing.hasMore():
            return
        start = listing.getLastName()


def _node(status: Any, path: str) -> TreeNode:
    is_directory = bool(status.isDirectory())
    encryption = None if is_directory else status.getFileEncryptionInfo()
    blocks = None if is_directory else status.getLocatedBlocks()
    return TreeNode(
        path=path,
        is_directory=is_directory,
        bytes=0 if is_directory else int(status.getLen()),
        modified_ms=int(status.getModificationTime()),
        file_id=int(status.getFileId()),
        key_version=None if encryption is None else str(encryption.getEzKeyVersionName()),
        is_open=blocks is not None and bool(blocks.isUnderConstruction()),
        has_acl=bool(status.hasAcl()),
    )
