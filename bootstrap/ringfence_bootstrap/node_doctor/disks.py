"""What rests on this node, and whether it rests encrypted: root device, data disks, key store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from ringfence_bootstrap.node_doctor.subject import KeyServer, Node
from ringfence_bootstrap.node_doctor.volumes import Protection, Volume, find_volume
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.named_checks import NotChecked, finding

_DATA_SETTINGS = ("dfs.datanode.data.dir", "dfs.namenode.name.dir", "yarn.nodemanager.local-dirs")
_EMR_DISKS = "mnt*"
_KMS_HOME = "/var/lib/hadoop-kms"
_LOCAL_STORES = ("jceks", "localjceks", "bcfks", "localbcfks", "sqlite")
_LAUNCH_HINT = (
    "a running cluster cannot be helped: start the next one with EBS encryption in its security configuration"
    " (EnableEbsEncryption), an encrypted image, or the account's default EBS encryption"
)


def check_root_device(node: Node) -> Iterator[Finding]:
    """Whether the root device is encrypted. EMR's local disk encryption (LUKS) never covers it."""
    volume = _volume(node, Path("/"))
    yield from _clear(node, volume, "the root device")


def check_data_disks(node: Node) -> Iterator[Finding]:
    """Whether the disks with HDFS's blocks and the jobs' local files are encrypted, and whether they work."""
    volumes = {volume.mount: volume for path in _data_paths(node) if (volume := find_volume(path, node.root))}
    disks = [volume for mount, volume in sorted(volumes.items()) if mount != Path("/")]
    if not disks:
        raise NotChecked("there are no data disks here besides the root device")
    unseen = []
    for volume in disks:
        if volume.suspended:
            message = f"{volume.device} on {volume.mount} is suspended: whoever reads or writes there waits"
            hint = "see who suspended it (a resize, a backup), and resume it"
            yield finding(
                Severity.ERROR, Rule.NODE_DISK_SUSPENDED, volume.mount, message, hint, f"dmsetup resume {volume.device}"
            )
        if volume.protection is Protection.UNSEEN:
            unseen.append(volume)
        else:
            yield from _clear(node, volume, "a disk with HDFS's or jobs' data")
    if unseen:
        names = ", ".join(str(volume.mount) for volume in unseen)
        raise NotChecked(f"{names}: EBS without LUKS, and what EBS does is not seen from here. {_ask_ec2(node)}")


def _data_paths(node: Node) -> Iterator[Path]:
    """Where EMR mounts disks, and where Hadoop writes."""
    if node.is_emr:
        yield from (Path("/") / place.name for place in sorted(node.root.glob(_EMR_DISKS)) if place.is_dir())
    site = node.site("hdfs-site.xml", "yarn-site.xml")
    for setting in _DATA_SETTINGS:
        for word in site.get_list(setting):
            # A DataNode's may carry its kind: [SSD]file:///mnt/hdfs
            path = unquote(_split(word.rpartition("]")[2], setting).path)
            if path.startswith("/") and "\0" not in path:
                yield Path(path)


def check_key_store(node: Node) -> Iterator[Finding]:
    """Where the key server keeps its keys: on an encrypted device, and whether they outlive the node."""
    server = node.key_server()
    store = _store(server)
    parts = _split(store, f"the key store of {server.place}")
    kind = parts.scheme.partition("+")[0]
    if kind not in _LOCAL_STORES:
        return
    path = Path(parts.path[1:] if kind == "sqlite" and parts.path.startswith("//") else unquote(parts.path))
    path = Path(str(path).replace("${user.home}", _home(node)))
    _demand(node.root / str(path).lstrip("/"))
    if node.is_emr:
        message = f"the keys are in {path}, which goes away with this node: so do all files that they encrypt"
        hint = "back the keys up off the node after each change, or keep them in Vault or a database"
        yield finding(Severity.WARN, Rule.KEY_STORE_NOT_DURABLE, server.place, message, hint)
    volume = _volume(node, path)
    yield from _clear(node, volume, f"the disk with the key store {path}")


def _split(uri: str, what: str) -> SplitResult:
    try:
        return urlsplit(uri)
    except ValueError as error:
        # The text may hold a password.
        raise NotChecked(f"{what} is no address") from error


def _demand(path: Path) -> None:
    try:
        is_there = path.exists()
    except PermissionError:
        # There, or nobody would guard it.
        return
    except (OSError, ValueError) as error:
        raise NotChecked("the key store's path is none that a file can have") from error
    if not is_there:
        raise NotChecked(f"there is no {path}: the key server of this configuration runs elsewhere, or has no key yet")


def _store(server: KeyServer) -> str:
    own = server.own.get("keystore") if server.own is not None else None
    if isinstance(own, str):
        return own
    if server.site is None:
        raise NotChecked(f"{server.place} names no key store")
    return server.site.get("hadoop.kms.key.provider.uri", "jceks://file@/${user.home}/kms.keystore")


def _home(node: Node) -> str:
    """The home of the user `kms`, with a slash less: Hadoop writes `/${user.home}`."""
    try:
        lines = (node.root / "etc/passwd").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    homes = [fields[5] for line in lines if len(fields := line.split(":")) > 5 and fields[0] == "kms"]
    return (homes[0] if homes else _KMS_HOME).lstrip("/")


def _volume(node: Node, path: Path) -> Volume:
    volume = find_volume(path, node.root)
    if volume is None:
        raise NotChecked(f"the kernel does not say what {path} rests on (/proc/self/mountinfo)")
    return volume


def _clear(node: Node, volume: Volume, what: str) -> Iterator[Finding]:
    """Raises NotChecked when the node cannot tell."""
    if volume.protection is Protection.NONE:
        message = f"{what}, {volume.device} on {volume.mount}, is {volume.protection.value}"
        severity = Severity.ERROR if node.is_emr else Severity.WARN
        yield finding(severity, Rule.NODE_DISK_CLEAR, volume.mount, message, _hint(node))
    elif volume.protection is Protection.UNSEEN:
        message = f"{what}, {volume.device}, is an EBS volume without LUKS, and what EBS does is not seen from here."
        raise NotChecked(f"{message} {_ask_ec2(node)}")
    elif volume.protection is Protection.UNKNOWN:
        raise NotChecked(f"{what}, {volume.device} on {volume.mount}, is {volume.protection.value}")


def _hint(node: Node) -> str:
    return _LAUNCH_HINT if node.is_emr else "put it on an encrypted device (LUKS)"


def _ask_ec2(node: Node) -> str:
    if node.facts.instance_id is None:
        return "EC2 knows: aws ec2 describe-volumes, of this instance"
    region = f" --region {node.facts.region}" if node.facts.region else ""
    query = "--query 'Volumes[].[VolumeId,Encrypted]'"
    return (
        f"EC2 knows: aws ec2 describe-volumes{region} --filters Name=attachment.instance-id,"
        f"Values={node.facts.instance_id} {query}"
    )
