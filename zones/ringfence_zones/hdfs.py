"""The one gateway to HDFS: Hadoop's own client in a JVM inside this process.

It speaks the NameNode's RPC through `DistributedFileSystem`, because WebHDFS has no call for encryption zones, and
because Kerberos, high availability and the site's configuration come along. `hdfs_interface.Hdfs` says what it does;
`hdfs_child.HdfsChild` offers the same from a supervised process.

Rules:

1. One JVM and one user per process: under simple authentication every user of a JVM arrives as its first.
2. Thread-safe: Hadoop's client multiplexes calls of many threads over one connection.
3. Calls that change something are idempotent: what is already as asked for is success, anything else an error.
4. Only errors of `errors.py` leave; no Java exception, class or stack trace does.
5. It reads and writes no file data and holds no key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ringfence_zones.client_config import read_http_access
from ringfence_zones.errors import (
    ConfigError,
    HdfsError,
    NoKeyProviderError,
    RingfenceError,
)
from ringfence_zones.hadoop_conf import HadoopConf, read_hadoop_conf
from ringfence_zones.hadoop_home import find_hadoop_home
from ringfence_zones.hdfs_failure import JavaFailure, Where, translate, translate_create_zone
from ringfence_zones.hdfs_interface import PropertyChange, ReconfigurationStatus
from ringfence_zones.hdfs_jvm import Jvm, read_failure, start_jvm
from ringfence_zones.hdfs_login import JavaLogin
from ringfence_zones.hdfs_namespace import NamespaceCalls
from ringfence_zones.hdfs_tree import read_tree
from ringfence_zones.http_session import HttpAccess
from ringfence_zones.kerberos import KerberosKeytab, refuse_claimed_user
from ringfence_zones.model import DirectoryState, EncryptionZone, TreeNode
from ringfence_zones.namenodes import NameNodeAddress, default_filesystem, find_listed_by_all, namenode_addresses

TRASH_MODE = 0o1777
PROTECTED_DIRECTORIES = "fs.protected.directories"
_STICKY = 0o1000
_FAILOVERS = 3  # that may fall between two calls
_CLOSED_MODE = 0o700
_ANCESTOR_MODE = 0o755

# Hadoop's defaults wait 45 x 20 s for a host that drops packets and 10 s for a closed port; a command answers sooner.
_CLIENT_CONF = {
    "ipc.client.connect.timeout": "5000",
    "ipc.client.connect.max.retries.on.timeouts": "1",
    "ipc.client.connect.max.retries": "2",
    "ipc.client.connect.retry.interval": "500",
    "dfs.client.failover.max.attempts": "6",
    "dfs.client.failover.sleep.base.millis": "200",
    "dfs.client.failover.sleep.max.millis": "2000",
    # A process that lives longer than a ticket logs in again when it is time, however short tickets are.
    "hadoop.kerberos.min.seconds.before.relogin": "1",
    # Modes given here are meant exactly.
    "fs.permissions.umask-mode": "000",
}
_ACL_ENTRY = "org.apache.hadoop.fs.permission.AclEntry"
_PERMISSION = "org.apache.hadoop.fs.permission.FsPermission"
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")


class HdfsGateway(NamespaceCalls):
    """See the module's rules. Made by `open_gateway`."""

    def __init__(
        self, jvm: Jvm, file_system: Any, java_conf: Any, conf: HadoopConf, login: JavaLogin, access: HttpAccess
    ) -> None:
        self._jvm = jvm
        self._fs = file_system
        self._java_conf = java_conf
        self._login = login
        # Who this process is to the cluster's HTTP daemons, the KMS among them.
        self.access = access
        self.namenodes: tuple[NameNodeAddress, ...] = namenode_addresses(conf)
        ticket_command = access.kerberos.command if access.kerberos is not None else None
        self._where = Where(urlsplit(default_filesystem(conf)).netloc, login.user, ticket_command)

    @property
    def user(self) -> str:
        """The short name HDFS knows this process by."""
        return self._login.user

    def hadoop_version(self) -> tuple[int, int, int]:
        """The version of the Hadoop jars in use, which on a cluster's node are the cluster's own."""
        text = str(self._jvm.java_class("org.apache.hadoop.util.VersionInfo").getVersion())
        match = _VERSION.match(text)
        if match is None:
            raise HdfsError(f"this Hadoop calls its version {text!r}, which is no version number")
        return int(match[1]), int(match[2]), int(match[3])

    def key_provider_uri(self) -> str | None:
        """The key provider that the NameNode hands to its clients (`kms://...`); None when it has none."""
        with self._translated():
            uri = self._fs.getServerDefaults().getKeyProviderUri()
        return None if uri is None or not str(uri) else str(uri)

    def is_in_safe_mode(self) -> bool:
        """Whether the active NameNode takes no changes yet, or no more."""
        with self._translated():
            return bool(self._fs.isInSafeMode())

    def last_transaction_id(self) -> int:
        """The id of the last edit of the namespace: equal before and after, nothing was changed. Superuser only.

        The call for it waits for nobody: a NameNode that is just becoming active tells what it wrote itself, when it
        was active last. Of a pair something is asked in between that waits until it is done.
        """
        with self._translated():
            namenode = self._fs.getClient().getNamenode()
            last = int(namenode.getCurrentEditLogTxid())
            for _ in range(_FAILOVERS if len(self.namenodes) > 1 else 0):
                before = last
                namenode.getFileInfo("/")
                last = int(namenode.getCurrentEditLogTxid())
                if last >= before:
                    break
            return last

    # Zones

    def list_zones(self) -> tuple[EncryptionZone, ...]:
        """Every encryption zone, by path. Superuser only; zones that live on only in snapshots are not listed."""
        zones = []
        with self._translated():
            listing = self._fs.listEncryptionZones()
            while listing.hasNext():
                zones.append(_zone(listing.next()))
        return tuple(sorted(zones))

    def find_zone_of(self, path: str) -> EncryptionZone | None:
        """The zone that `path` lies in (its own when it is a root), None outside. Raises HdfsNotFoundError."""
        with self._translated():
            zone = self._fs.getEZForPath(self._jvm.path(path))
        return None if zone is None else _zone(zone)

    def create_zone(self, path: str, key_name: str) -> None:
        """Makes the empty directory an encryption zone and confirms its key.

        A zone that is there already with this key is success. Raises HdfsError naming the other key, the directory's
        content or what the NameNode said; NoKeyProviderError; Kms errors when the NameNode's own KMS is the cause.
        """
        zone = None
        self._login.refresh()
        try:
            self._fs.createEncryptionZone(self._jvm.path(path), key_name)
        except self._jvm.exception as error:
            failure = read_failure(error)
            with suppress(HdfsError):  # what failed first is what is worth telling
                zone = self._find_root(path)
            if zone is None:
                raise self._create_zone_error(failure, path) from None
        else:
            zone = self._find_root(path)
        if zone is None or zone.key_name != key_name:
            other = "no key" if zone is None else f"the key {zone.key_name}"
            raise HdfsError(
                f"{path} is a zone with {other}, not {key_name}",
                hint="a zone's key cannot be changed: name that key in the policy, or copy the data into a new zone",
            )

    def provision_trash(self, path: str) -> None:
        """Gives the zone at `path` its `.Trash`, mode 1777 without an ACL, so that deletes stay inside the zone."""
        trash = f"{path.rstrip('/')}/.Trash"
        with self._translated():
            # mkdir drops the sticky bit, and takes the parent's default ACL along.
            self._fs.mkdirs(self._jvm.path(trash), self._permission(TRASH_MODE))
            status = self._fs.getClient().getFileInfo(trash)
            if status is None or not status.isDirectory():
                raise HdfsError(f"{trash} is not a directory", hint=f"move the file {trash} out of the way")
            if status.hasAcl():
                self._fs.removeAcl(self._jvm.path(trash))
            self._fs.setPermission(self._jvm.path(trash), self._permission(TRASH_MODE))

    # Directories

    def make_directory(self, path: str) -> None:
        """Makes `path` with mode 0700, missing ancestors with 0755. A directory already there is left as it is."""
        directory = self._jvm.path(path)
        with self._translated():
            try:
                # mkdirs would give missing ancestors the same closed mode.
                self._fs.mkdir(directory, self._permission(_CLOSED_MODE))
            except self._jvm.exception as error:
                if "java.io.FileNotFoundException" not in read_failure(error).classes:
                    raise
                self._fs.mkdirs(directory.getParent(), self._permission(_ANCESTOR_MODE))
                self._fs.mkdir(directory, self._permission(_CLOSED_MODE))

    def find_directory(self, path: str) -> DirectoryState | None:
        """What is at `path`; None when nothing is."""
        with self._translated():
            client = self._fs.getClient()
            status = client.getFileInfo(path)
            if status is None:
                return None
            permission = int(status.getPermission().toShort())
            acl, group_bits = self._read_acl(path, permission) if status.hasAcl() else ((), permission >> 3 & 7)
            trash = client.getFileInfo(f"{path.rstrip('/')}/.Trash") if status.isDirectory() else None
            return DirectoryState(
                path=path,
                is_directory=bool(status.isDirectory()),
                is_empty=bool(status.isDirectory()) and int(status.getChildrenNum()) == 0,
                owner=str(status.getOwner()),
                group=str(status.getGroup()),
                mode=permission,
                group_bits=group_bits,
                acl=acl,
                trash_mode=None if trash is None else int(trash.getPermission().toShort()),
            )

    def set_rights(self, path: str, owner: str | None, group: str | None, mode: int, acl: Sequence[str]) -> None:
        """Sets owner, group, the entries of owner, group and others from `mode`, and exactly the ACL `acl`.

        `acl` is in the form of `DirectoryState.acl`; a mask it does not name is the union that HDFS computes. What
        was there before and is not named is gone. An owner or group of None stays as it is.
        """
        directory = self._jvm.path(path)
        with self._translated():
            if owner is not None or group is not None:
                self._fs.setOwner(directory, owner, group)
            status = self._fs.getFileStatus(directory)
            if not acl:
                if status.hasAcl():
                    self._fs.removeAcl(directory)
                self._fs.setPermission(directory, self._permission(mode))
                return
            if status.hasAcl() and not any(entry.startswith("default:") for entry in acl):
                self._fs.removeDefaultAcl(directory)  # setAcl leaves a scope alone that it has no entry of
            if (mode ^ int(status.getPermission().toShort())) & _STICKY:
                self._fs.setPermission(directory, self._permission(mode))  # before setAcl: it would change the mask
            base = [f"user::{_rwx(mode >> 6)}", f"group::{_rwx(mode >> 3)}", f"other::{_rwx(mode)}"]
            spec = self._jvm.java_class(_ACL_ENTRY).parseAclSpec(",".join([*base, *acl]), True)
            self._fs.setAcl(directory, spec)

    def rename(self, source: str, destination: str) -> None:
        """Renames; nothing is overwritten. Raises HdfsNotFoundError, HdfsPermissionError, HdfsError."""
        options = self._jvm.java_class("org.apache.hadoop.fs.Options$Rename")
        with self._translated():
            self._fs.rename(self._jvm.path(source), self._jvm.path(destination), options.NONE)

    # Files

    def iterate_files(self, path: str) -> Iterator[str]:
        """The paths of all files below a directory, fetched as they are asked for."""
        with self._translated():
            listing = self._fs.listFiles(self._jvm.path(path), True)
        while True:
            with self._translated():
                if not listing.hasNext():
                    return
                found = str(listing.next().getPath().toUri().getPath())
            yield found

    def get_xattr(self, path: str, name: str) -> bytes:
        """An extended attribute, its namespace in the name. Those of `raw` are for superusers, below /.reserved/raw."""
        with self._translated():
            return bytes(self._fs.getXAttr(self._jvm.path(path), name))

    def read_tree(self, path: str, limit: int) -> tuple[TreeNode, ...]:
        """See `hdfs_tree.read_tree`."""
        with self._translated():
            return read_tree(self._jvm, self._fs, path, limit)

    # Protected directories

    def protected_directories(self) -> tuple[str, ...] | None:
        """`fs.protected.directories` as the running NameNodes hold it: what *all* of them protect, sorted.

        None when one of them would not tell; one that is down is left out.
        """
        return find_listed_by_all(self.namenodes, PROTECTED_DIRECTORIES, self.access)

    def start_reconfiguration(self, namenode: NameNodeAddress) -> None:
        """Tells one NameNode to read its configuration files again. Superuser only; see `reconfiguration_status`."""
        with self._translated():
            self._reconfiguration_proxy(namenode).startReconfiguration()

    def reconfiguration_status(self, namenode: NameNodeAddress) -> ReconfigurationStatus:
        """How the last reconfiguration of one NameNode goes or went."""
        with self._translated():
            status = self._reconfiguration_proxy(namenode).getReconfigurationStatus()
            changes = []
            for change, error in dict(status.getStatus() or {}).items():
                failure = error.orElse(None)
                changes.append(
                    PropertyChange(
                        name=str(change.prop),
                        old=None if change.oldVal is None else str(change.oldVal),
                        new=None if change.newVal is None else str(change.newVal),
                        error=None if failure is None else str(failure).partition("\n")[0],
                    )
                )
            running = bool(status.hasTask()) and not bool(status.stopped())
            return ReconfigurationStatus(running, tuple(sorted(changes, key=lambda change: change.name)))

    def close(self) -> None:
        """Closes the connection; the JVM stays until the process ends."""
        with self._translated():
            self._fs.close()

    # Inside

    def _find_root(self, path: str) -> EncryptionZone | None:
        zone = self.find_zone_of(path)
        return zone if zone is not None and zone.path == path else None

    def _create_zone_error(self, failure: JavaFailure, path: str) -> RingfenceError:
        if not failure.remote:
            return translate(failure, self._where)
        uri = self.key_provider_uri()
        # NameNodes say this as a plain IOException, so the fact is asked for instead of read from a sentence.
        if uri is None:
            return NoKeyProviderError(
                f"the NameNode at {self._where.namenode} has no key provider, so it can make no encryption zone",
                hint="set hadoop.security.key.provider.path to the KMS in the NameNode's core-site.xml and restart it",
            )
        error = translate_create_zone(failure, self._where, uri)
        return HdfsError(f"{path} cannot become a zone: {error.message}") if type(error) is HdfsError else error

    def _read_acl(self, path: str, permission: int) -> tuple[tuple[str, ...], int]:
        group_bits = permission >> 3 & 7
        entries = []
        for entry in self._fs.getAclStatus(self._jvm.path(path)).getEntries():
            text = str(entry.toStringStable())
            if text.startswith("group::"):
                # The owning group's entry: the mode's group digit is the mask once there is an ACL.
                group_bits = int(entry.getPermission().ordinal())
            else:
                entries.append(text)
        return tuple(sorted(entries)), group_bits

    def _reconfiguration_proxy(self, namenode: NameNodeAddress) -> Any:
        java_class = self._jvm.java_class
        net = java_class("org.apache.hadoop.net.NetUtils")
        # Which service principal to expect at that address, as DFSAdmin sets it for NameNodes.
        conf = java_class("org.apache.hadoop.conf.Configuration")(self._java_conf)
        principal = conf.get("dfs.namenode.kerberos.principal", "")
        conf.set("hadoop.security.service.user.name.key", principal)
        return java_class("org.apache.hadoop.hdfs.DFSUtilClient").createReconfigurationProtocolProxy(
            net.createSocketAddr(namenode.rpc),
            java_class("org.apache.hadoop.security.UserGroupInformation").getCurrentUser(),
            conf,
            net.getDefaultSocketFactory(conf),
        )

    def _permission(self, mode: int) -> Any:
        return self._jvm.java_class(_PERMISSION)(self._jvm.short(mode))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        self._login.refresh()
        try:
            yield
        except self._jvm.exception as error:
            # `from None`: Java's stack trace would follow the sentence otherwise.
            raise translate(read_failure(error), self._where) from None


def open_gateway(
    hadoop_conf: Path,
    as_user: str | None = None,
    environ: Mapping[str, str] = os.environ,
    keytab: KerberosKeytab | None = None,
) -> HdfsGateway:
    """Starts the JVM when needed and connects as `as_user`, else as Hadoop itself would.

    On a cluster with Kerberos that is whoever the ticket cache or a keytab proves: `keytab`, else client.yaml's.
    Nothing is sent to the NameNode yet. Raises HadoopNotFoundError, ConfigError, MissingExtraError, InputError for a
    user named on a cluster with Kerberos, and AuthenticationError when there is no valid ticket.
    """
    conf = read_hadoop_conf(hadoop_conf, "core-site.xml", "hdfs-site.xml")
    uri = default_filesystem(conf)
    access = read_http_access(hadoop_conf, environ, keytab)
    if access.kerberos is not None:
        refuse_claimed_user(as_user)
    jvm = start_jvm(find_hadoop_home(hadoop_conf, environ), environ)
    try:
        java_conf = _java_configuration(jvm)
        login = JavaLogin(jvm, java_conf, access.kerberos, as_user, environ)
        # Not FileSystem.get: it loads every file system on the class path first, which takes a second on EMR.
        file_system = jvm.java_class("org.apache.hadoop.hdfs.DistributedFileSystem")()
        file_system.initialize(jvm.java_class("java.net.URI")(uri), java_conf)
    except jvm.exception as error:
        failure = read_failure(error)
        if "java.net.UnknownHostException" in failure.classes:
            raise translate(failure, Where(urlsplit(uri).netloc, as_user or "")) from None
        raise ConfigError(
            f"the Hadoop client does not take the configuration in {hadoop_conf}: {failure.sentence}"
        ) from None
    return HdfsGateway(jvm, file_system, java_conf, conf, login, access)


def _java_configuration(jvm: Jvm) -> Any:
    # HdfsConfiguration adds hdfs-default.xml and hdfs-site.xml to the core files on the class path.
    java_conf = jvm.java_class("org.apache.hadoop.hdfs.HdfsConfiguration")()
    for name, value in _CLIENT_CONF.items():
        java_conf.set(name, value)
    return java_conf


def _zone(zone: Any) -> EncryptionZone:
    return EncryptionZone(str(zone.getPath()), str(zone.getKeyName()), int(zone.getId()))


def _rwx(bits: int) -> str:
    return "".join(letter if bits & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))
