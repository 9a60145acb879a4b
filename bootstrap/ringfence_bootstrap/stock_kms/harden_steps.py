"""The steps that harden Hadoop's own KMS on this machine, and those that undo it.

Both are runs of `journal`: stopped at any point, by an error or a dead machine, the KMS serves again as before. Rules:

1. The keys are sealed anew under a strong password while the KMS is stopped, and proven by EDEKs of every version that
   the running KMS opened before. The file under the old password is kept until the run is over, and then removed: left
   there, it would be as easy to open as before.
2. Hadoop looks for the password file on the KMS's class path only, which its configuration directory is on: a link
   there leads to the file on another volume.
3. The KMS gets an ssl-server.xml of its own name, for the usual one is shared with every daemon of the node.
4. Clients change last: NameNode, core-site.xml and trust store, when the KMS has answered over TLS.
5. Undoing seals the keys under the old password again, with those that were made since.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ringfence_bootstrap.journal import Step, Undo
from ringfence_bootstrap.stock_kms.daemons import start_kms, start_kms_again, start_namenode, stop_kms, stop_namenode
from ringfence_bootstrap.stock_kms.file_changes import FileChange, Owner, kept_copy, restore
from ringfence_bootstrap.stock_kms.hardening import KMS_SITE, PASSWORD_LINK, SSL_SERVER, TRUST_STORE, Hardening
from ringfence_bootstrap.stock_kms.key_store import write_under
from ringfence_bootstrap.stock_kms.stores import ServerCertificate, new_password
from ringfence_bootstrap.takeover.exchange import Connect
from ringfence_bootstrap.takeover.key_file import beside, put_back, put_in_place
from ringfence_bootstrap.takeover.proof import Collected, find_differences
from ringfence_zones.errors import InstallError
from ringfence_zones.hadoop_conf import read_hadoop_conf
from ringfence_zones.hadoop_xml import set_properties
from ringfence_zones.kms_material import KmsMaterialClient
from ringfence_zones.kms_uri import KEY_PROVIDER, OLD_KEY_PROVIDER

_EMPTY = b'<?xml version="1.0"?>\n<configuration>\n</configuration>\n'


def harden_steps(
    hardening: Hardening, certificate: ServerCertificate | None, collected: Collected, before: Connect, after: Connect
) -> list[Step]:
    """From the KMS as it is to a hardened one.

    `collected` was proven by the KMS as it is. `before` and `after` call it in plain HTTP and over TLS. `certificate`
    is None only to undo what a run that died left.
    """
    password, store_password, trust_password = new_password(), new_password(), new_password()
    owner = Owner.of(hardening.key_store.parent)
    conf_owner = Owner.of(hardening.kms_conf)

    def change(
        name: str, title: str, path: Path, make: Callable[[bytes | None], bytes], mode: int, *, own: bool
    ) -> Step:
        made = FileChange(path, make, mode, owner if own else conf_owner, forced=own)
        return made.step(name, title, hardening.state)

    steps = [
        change(
            "password", f"making {hardening.password}", hardening.password, lambda _: password.encode(), 0o400, own=True
        ),
        change(
            "tls-store",
            f"making {hardening.tls_store}",
            hardening.tls_store,
            _once(lambda: _certificate(certificate).key_store(store_password)),
            0o400,
            own=True,
        ),
        Step(
            "stop",
            f"stopping the KMS ({hardening.kms.describe()})",
            lambda: stop_kms(hardening),
            lambda _undo: start_kms_again(hardening, before),
        ),
        Step(
            "keys",
            f"sealing the keys of {hardening.key_store} under the new password",
            lambda: _seal(hardening, hardening.old_password, hardening.password),
            lambda _undo: put_back(hardening.key_store, hardening.old_key_store),
        ),
        Step(
            "password-link",
            f"linking {hardening.kms_conf / PASSWORD_LINK} to the password file",
            lambda: _link(hardening),
            lambda _undo: (hardening.kms_conf / PASSWORD_LINK).unlink(missing_ok=True),
        ),
        change(
            "ssl-server",
            f"writing {hardening.kms_conf / SSL_SERVER}",
            hardening.kms_conf / SSL_SERVER,
            lambda _: _ssl_server(hardening.tls_store, store_password),
            0o400,
            own=True,
        ),
        change(
            "kms-site",
            f"setting {len(KMS_SITE)} properties in {hardening.kms_conf}/kms-site.xml",
            hardening.kms_conf / "kms-site.xml",
            lambda old: set_properties(old or _EMPTY, KMS_SITE),
            0o644,
            own=False,
        ),
        change(
            "kms-acls",
            f"setting {len(hardening.acls)} access lists in {hardening.kms_conf}/kms-acls.xml",
            hardening.kms_conf / "kms-acls.xml",
            lambda old: set_properties(old or _EMPTY, hardening.acls),
            0o644,
            own=False,
        ),
        Step(
            "start",
            f"starting the KMS ({hardening.kms.describe()}) with TLS on {hardening.secure_uri}",
            lambda: start_kms(hardening, after, hardening.secure_uri),
            lambda _undo: stop_kms(hardening),
        ),
        Step(
            "verify",
            "proving the keys over TLS",
            lambda: _verify(after(hardening.secure_uri), collected),
        ),
    ]
    steps += _namenode_stopped(hardening)
    core_site = hardening.hadoop_conf / "core-site.xml"
    steps.append(
        change(
            "core-site",
            f"setting {KEY_PROVIDER} in {core_site}",
            core_site,
            lambda old: set_properties(old or _EMPTY, {KEY_PROVIDER: hardening.secure_uri}),
            0o644,
            own=False,
        )
    )
    if read_hadoop_conf(hardening.hadoop_conf, "hdfs-site.xml").get(OLD_KEY_PROVIDER):
        hdfs_site = hardening.hadoop_conf / "hdfs-site.xml"
        steps.append(
            change(
                "hdfs-site",
                f"setting {OLD_KEY_PROVIDER} in {hdfs_site}",
                hdfs_site,
                lambda old: set_properties(old or _EMPTY, {OLD_KEY_PROVIDER: hardening.secure_uri}),
                0o644,
                own=False,
            )
        )
    if not hardening.trusts_already:
        trust = hardening.hadoop_conf / TRUST_STORE
        ssl_client = hardening.hadoop_conf / "ssl-client.xml"
        steps += [
            change(
                "trust-store",
                f"making {trust}",
                trust,
                _once(lambda: _certificate(certificate).trust_store(trust_password)),
                0o644,
                own=False,
            ),
            change(
                "ssl-client",
                f"naming it in {ssl_client}",
                ssl_client,
                lambda old: set_properties(old or _EMPTY, _ssl_client(trust, trust_password)),
                0o644,
                own=False,
            ),
        ]
    return steps + _namenode_started(hardening)


def undo_steps(
    hardening: Hardening, notes: Mapping[str, Undo], collected: Collected, before: Connect, after: Connect
) -> list[Step]:
    """From the hardened KMS to one as it was. `notes` are what the hardening's steps noted, by step."""
    names = ("ssl-client", "trust-store", "hdfs-site", "core-site")
    steps = _namenode_stopped(hardening)
    steps += [_back(hardening, name, notes[name]) for name in names if name in notes]
    steps += [
        Step(
            "stop",
            f"stopping the KMS ({hardening.kms.describe()})",
            lambda: stop_kms(hardening),
            lambda _undo: start_kms_again(hardening, after, hardening.secure_uri),
        ),
        Step(
            "keys",
            f"sealing the keys of {hardening.key_store} under the password they had",
            lambda: _seal(hardening, hardening.password, hardening.old_password),
            lambda _undo: put_back(hardening.key_store, hardening.old_key_store),
        ),
    ]
    steps += [_back(hardening, name, notes[name]) for name in ("kms-acls", "kms-site", "ssl-server")]
    steps += [
        Step(
            "start",
            f"starting the KMS ({hardening.kms.describe()}) on {hardening.uri}",
            lambda: start_kms(hardening, before, hardening.uri),
            lambda _undo: stop_kms(hardening),
        ),
        Step("verify", "proving the keys", lambda: _verify(before(hardening.uri), collected)),
    ]
    return steps + _namenode_started(hardening)


def _namenode_stopped(hardening: Hardening) -> list[Step]:
    if hardening.namenode is None:
        return []
    title = f"stopping the NameNode ({hardening.namenode.describe()})"
    return [Step("stop-namenode", title, lambda: stop_namenode(hardening), lambda _undo: start_namenode(hardening))]


def _namenode_started(hardening: Hardening) -> list[Step]:
    if hardening.namenode is None:
        return []
    title = f"starting the NameNode ({hardening.namenode.describe()})"
    return [Step("start-namenode", title, lambda: start_namenode(hardening), lambda _undo: stop_namenode(hardening))]


def remove_what_is_left(hardening: Hardening, *, undone: bool) -> None:
    """After a run that came to its end: the key store under the other password, and the secrets of an undone one."""
    hardening.old_key_store.unlink(missing_ok=True)
    hardening.old_key_store.with_name(f".{hardening.old_key_store.name}.crc").unlink(missing_ok=True)
    if undone:
        kept = hardening.state.glob(f"{kept_copy('', hardening.state).name}*")
        for path in (hardening.kms_conf / PASSWORD_LINK, hardening.password, hardening.tls_store, *kept):
            path.unlink(missing_ok=True)


def _back(hardening: Hardening, name: str, note: Undo) -> Step:
    """A file as it was before the hardening; undone, it is as the hardening made it."""
    path = Path(note["path"])
    owner = Owner.of(path) if path.exists() else Owner.of(path.parent)
    current = FileChange(path, lambda old: old or b"", 0o600, owner)
    keep = current.step(f"undo-{name}", "", hardening.state)
    return Step(name, f"putting {path} back", lambda: restore(note), keep.undo, keep.prepare)


def _certificate(certificate: ServerCertificate | None) -> ServerCertificate:
    assert certificate is not None, "a run that died is undone, never gone on with"
    return certificate


def _once(make: Callable[[], bytes]) -> Callable[[bytes | None], bytes]:
    """A store is sealed under new salt each time it is made: made once, it is the one that was noted."""
    made: list[bytes] = []

    def content(_old: bytes | None) -> bytes:
        if not made:
            made.append(make())
        return made[0]

    return content


def _ssl_server(store: Path, password: str) -> bytes:
    properties = {
        "ssl.server.keystore.location": str(store),
        "ssl.server.keystore.type": "PKCS12",
        "ssl.server.keystore.password": password,
        "ssl.server.keystore.keypassword": password,
    }
    return set_properties(_EMPTY, properties)


def _ssl_client(store: Path, password: str) -> dict[str, str]:
    return {
        "ssl.client.truststore.location": str(store),
        "ssl.client.truststore.type": "PKCS12",
        "ssl.client.truststore.password": password,
    }


def _seal(hardening: Hardening, old: Path | None, new: Path | None) -> None:
    if not hardening.key_store.exists():
        # Hadoop makes it with the first key, and then under the password that it is configured with.
        return
    target = beside(hardening.key_store, "ringfence-sealed")
    target.unlink(missing_ok=True)  # of a run that died
    hardening.old_key_store.unlink(missing_ok=True)
    write_under(hardening.key_store, old, target, new, hardening.state)
    put_in_place(target, hardening.key_store, hardening.old_key_store)
    target.unlink(missing_ok=True)


def _link(hardening: Hardening) -> None:
    link = hardening.kms_conf / PASSWORD_LINK
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(hardening.password)
    except OSError as error:
        raise InstallError(f"cannot make the link {link}: {error.strerror}") from error


def _verify(clients: Sequence[KmsMaterialClient], collected: Collected) -> None:
    try:
        differences = find_differences(collected, clients)
    finally:
        for client in clients:
            client.close()
    if differences:
        more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
        raise InstallError(
            f"{len(collected.proofs)} EDEKs were tried: {differences[0]}{more}",
            hint="who proves has to have DECRYPT_EEK on the keys by the policy too: --prove-as a reader of their zones",
        )
