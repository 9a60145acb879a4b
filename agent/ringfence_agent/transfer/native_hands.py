"""The acts of a transfer through `hdfs-native`: HDFS and KMS by a client in Rust, as the user of this process.

Why this engine: it reads and writes encryption zones, runs streams side by side without a JVM, creates without
replacing and sets owner, mode and times; `pyarrow.fs.HadoopFileSystem` can do none of the last three (decision 0033).

Who the user is, `HADOOP_USER_NAME` says under simple authentication and the ticket of the environment under Kerberos;
one process acts for one user. Errors of the client are told apart by the Java class that it names, not by sentences.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hdfs_native

from ringfence_agent.transfer.hands import Attributes, Copied, Entry, Progress
from ringfence_zones.errors import (
    HdfsError,
    HdfsNotFoundError,
    KmsRemoteError,
    KmsUnavailableError,
    NameNodeUnavailableError,
    RingfenceError,
    TransferError,
)
from ringfence_zones.hdfs_failure import JavaFailure, Where, translate
from ringfence_zones.kerberos import KerberosKeytab

_CLOSED_FILE = 0o600
# `RPCError("CLASS", "MESSAGE\\n\\tat STACK...")`: what the NameNode or a DataNode threw, as Rust quotes it.
_REMOTE = re.compile(r'\w+\("((?:[a-z]\w*\.)+[A-Z][\w$]*)", "((?:[^"\\]|\\[^n])*)')
# `OperationFailed("KMS request failed (403 Forbidden): MESSAGE")`
_KMS_REFUSED = re.compile(r'KMS request failed \((\d{3}) [^)]*\): ((?:[^"\\]|\\.)*)')
# Under Kerberos the client shows the KMS a delegation token, and in the query alone.
_UNPROVEN_HINT = "set delegation_tokens: {in_query: true} in the KMS's kms.yaml: hdfs-native sends its token so"
_KMS_AWAY = "KMS HTTP error"
_QUOTA = re.compile(r"\.(?:DS|NS)QuotaExceededException$|\.QuotaByStorageTypeExceededException$")
_NO_SPACE = "could only be written to 0 of the"
_FIRST_LINE = re.compile(r"[^\n]*")


class NativeHands:
    """`hands.Hands`; see the module. Thread-safe: the client keeps its own runtime."""

    def __init__(self, url: str, user: str, keytab: KerberosKeytab | None = None) -> None:
        """`url` is fs.defaultFS; nothing is asked yet. Raises HdfsError when the client takes no configuration."""
        self.user = user
        principal = keytab.principal if keytab is not None else None
        path = str(keytab.keytab) if keytab is not None else None
        with _translated(user):
            self._client = hdfs_native.Client(url, kerberos_principal=principal, kerberos_keytab=path)

    def list_tree(self, path: str, limit: int) -> list[Entry] | None:
        """See `Hands`."""
        with _translated(self.user):
            try:
                root = self._client.get_file_info(path)
            except FileNotFoundError:
                return None
            entries = [_entry(root, path)]
            if root.isdir:
                for status in self._client.list_status(path, recursive=True):
                    if len(entries) > limit:
                        raise TransferError(f"{path} holds more than {limit} files and directories")
                    entries.append(_entry(status, path))
        return sorted(entries, key=lambda entry: entry.path)

    def make_directory(self, path: str, mode: int) -> None:
        """See `Hands`."""
        with _translated(self.user):
            self._client.mkdirs(path, permission=mode, create_parent=False)

    def copy(self, source: str, target: str, progress: Progress) -> Copied:
        """See `Hands`."""
        with _translated(self.user):
            options = hdfs_native.WriteOptions(overwrite=True, permission=_CLOSED_FILE, create_parent=False)
            digest, size = hashlib.sha256(), 0
            reader = self._client.read(source)
            writer = self._client.create(target, write_options=options)
            for chunk in _chunks(reader):
                digest.update(chunk)
                size += len(chunk)
                writer.write(chunk)
                progress(len(chunk))
            writer.close()
            back, back_size = hashlib.sha256(), 0
            for chunk in _chunks(self._client.read(target)):
                back.update(chunk)
                back_size += len(chunk)
                progress(len(chunk))
        return Copied(size, digest.hexdigest(), back_size, back.hexdigest())

    def read_whole(self, path: str, limit: int) -> bytes:
        """See `Hands`."""
        with _translated(self.user):
            reader = self._client.read(path)
            if len(reader) > limit:
                raise TransferError(f"{path} has {len(reader)} bytes, more than the {limit} that are read of it")
            return b"".join(_chunks(reader))

    def write_new(self, path: str, content: bytes) -> None:
        """See `Hands`."""
        with _translated(self.user):
            options = hdfs_native.WriteOptions(overwrite=False, permission=_CLOSED_FILE, create_parent=False)
            writer = self._client.create(path, write_options=options)
            writer.write(content)
            writer.close()

    def set_attributes(self, path: str, attributes: Attributes) -> None:
        """See `Hands`. Times last: HDFS changes none of them for a change of rights."""
        with _translated(self.user):
            if attributes.owner is not None or attributes.group is not None:
                self._client.set_owner(path, attributes.owner, attributes.group)
            if attributes.mode is not None:
                self._client.set_permission(path, attributes.mode)
            if attributes.modified_ms is not None and attributes.accessed_ms is not None:
                self._client.set_times(path, attributes.modified_ms, attributes.accessed_ms)

    def rename(self, source: str, target: str) -> None:
        """See `Hands`."""
        with _translated(self.user):
            self._client.rename(source, target, overwrite=False)

    def delete(self, path: str) -> None:
        """See `Hands`."""
        with _translated(self.user):
            try:
                self._client.delete(path, recursive=True)
            except FileNotFoundError:
                return

    def close(self) -> None:
        """Nothing to close: the client's connections end with the process."""


def _chunks(reader: Any) -> Iterator[bytes]:
    size = len(reader)
    # An empty file has no block to stream.
    return iter(()) if size == 0 else reader.read_range_stream(0, size)


def _entry(status: Any, root: str) -> Entry:
    return Entry(
        path=status.path.removeprefix(root).lstrip("/"),
        is_directory=status.isdir,
        bytes=0 if status.isdir else status.length,
        mode=status.permission & 0o1777,
        owner=status.owner,
        group=status.group,
        modified_ms=status.modification_time,
        accessed_ms=status.access_time,
    )


@contextmanager
def _translated(user: str) -> Iterator[None]:
    try:
        yield
    except RingfenceError:
        raise
    except Exception as error:  # noqa: BLE001 - the client raises RuntimeError and OSError alike
        # `from None`: the client's text holds the server's stack.
        raise translate_native(error, user) from None


def translate_native(error: Exception, user: str) -> RingfenceError:
    """What the client raised, as an error of ours."""
    text = str(error)
    first = _FIRST_LINE.match(text)
    sentence = first[0] if first is not None else text
    if isinstance(error, FileNotFoundError):
        return HdfsNotFoundError(sentence if " " in sentence else f"File does not exist: {sentence}")
    if isinstance(error, FileExistsError):
        return TransferError(f"something is there already: {sentence}")
    remote = _REMOTE.search(text)
    if remote is not None:
        return _remote_error(remote[1], remote[2].replace('\\"', '"'), user)
    refused = _KMS_REFUSED.search(text)
    if refused is not None:
        return KmsRemoteError(
            f"the KMS refused {user}: {refused[2] or refused[1]}",
            status=int(refused[1]),
            java_class=None,
            hint=_UNPROVEN_HINT if refused[1] == "401" else None,
        )
    if _KMS_AWAY in text:
        return KmsUnavailableError("the KMS does not answer the transfer", hint="is it running?")
    if isinstance(error, OSError) or "DataTransferError" in text:
        return NameNodeUnavailableError(f"the connection to HDFS broke off: {sentence}")
    return HdfsError(sentence)


def _remote_error(java_class: str, message: str, user: str) -> RingfenceError:
    if _QUOTA.search(java_class):
        return TransferError(f"the target's quota is used up: {message}", hint="raise the quota, or transfer less")
    if _NO_SPACE in message:
        return TransferError(f"HDFS has no room left: {message}", hint="add DataNodes or remove files, then try again")
    return translate(JavaFailure(java_class, message, remote=True), Where("HDFS", user))
