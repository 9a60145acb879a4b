"""The key server's own copy of the stock KMS's keytab.

EMR gives the keytab of HTTP/<host> to the user kms alone (/etc/kms.keytab, mode 0400), and our key server is another
user. It gets a copy that it alone reads, named by `keytab_file` of its kms.yaml; all else about Kerberos stays as
kms-site.xml has it. Neither the journal nor the copies beside it ever hold the keys.

A keytab that EMR makes anew leaves the copy stale: `find_stale_copy` says so, with the command that copies it again. A
running server takes a replaced keytab up by itself.
"""

from __future__ import annotations

import hashlib
import pwd
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from ringfence_bootstrap.journal import Step, Undo
from ringfence_bootstrap.node import places
from ringfence_bootstrap.node.changes import write_owned
from ringfence_bootstrap.node.configuration import RINGFENCE_KMS, NodeConfig
from ringfence_zones.durable_file import prepared_name
from ringfence_zones.errors import ConfigError, InstallError
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.hadoop_conf import read_hadoop_conf

_PREFIX = "hadoop.kms.authentication."
_MODE = 0o400
_MAX_BYTES = 1024 * 1024
# Who names a keytab of our key server's in bootstrap.yaml has brought one.
_OWN = ("authentication", "keytab_file")


def find_stock_keytab(config: NodeConfig, kms_conf: Path | None) -> Path | None:
    """The stock KMS's keytab where our key server needs a copy of it: in its place, with Kerberos.

    Raises ConfigError when kms-site.xml asks for Kerberos and names no keytab.
    """
    if config.mode != RINGFENCE_KMS or kms_conf is None or any(name in config.kms.settings for name in _OWN):
        return None
    conf = read_hadoop_conf(kms_conf, "core-site.xml", "kms-site.xml")
    if conf.get(_PREFIX + "type", "simple") != "kerberos":
        return None
    named = conf.get(_PREFIX + "kerberos.keytab", "")
    if not Path(named).is_absolute():
        raise ConfigError(
            f"{_PREFIX}kerberos.keytab in {kms_conf}/kms-site.xml names no file",
            hint="it has to be the absolute path of the keytab of HTTP/<this host>",
        )
    return Path(named)


def keytab_step(source: Path, copy: Path = places.KMS_KEYTAB, owner: str = places.KMS_USER) -> Step:
    """The copy, which its owner alone reads. A file that was there is nobody's but an administrator's: it is refused.

    Undone whatever it holds by then: it is ours, and a key that is left behind helps nobody.
    """

    def prepare() -> Undo:
        if copy.exists():
            raise InstallError(
                f"{copy} is there already, and the set-up would write the key server's keytab there",
                hint="move it away; or name it in kms.settings of bootstrap.yaml: keytab_file",
            )
        return {"source": str(source)}

    def undo(_found: Undo) -> None:
        try:
            for path in (prepared_name(copy), copy):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise InstallError(f"cannot remove {copy}: {error.strerror}") from error

    return Step(
        "kms-keytab",
        f"copying {source} for the key server",
        lambda: write_owned(copy, _read(source), _MODE, owner),
        undo,
        prepare,
    )


def find_stale_copy(source: Path, copy: Path = places.KMS_KEYTAB, owner: str = places.KMS_USER) -> Iterator[Finding]:
    """What is wrong with the copy now; one finding at most. Raises InstallError when the source cannot be read."""
    problem = _problem(source, copy, owner)
    if problem is not None:
        yield Finding(
            severity=Severity.ERROR,
            rule=Rule.NODE_KEYTAB,
            path=str(copy),
            message=problem,
            hint="copy it again; the running key server takes it up by itself",
            command=f"install -o {owner} -m 0{_MODE:o} {shlex.quote(str(source))} {shlex.quote(str(copy))}",
        )


def _problem(source: Path, copy: Path, owner: str) -> str | None:
    wanted = _read(source)
    try:
        found = copy.stat()
        holds_the_same = _digest(_read(copy)) == _digest(wanted)
    except FileNotFoundError:
        return "the key server's keytab is gone: it cannot prove itself when it starts again"
    if not holds_the_same:
        return f"{source} was made anew: the key server has keys that tickets are not made with any more"
    if stat.S_IMODE(found.st_mode) != _MODE or found.st_uid != pwd.getpwnam(owner).pw_uid:
        return f"the key server's keytab is not {owner}'s alone any more"
    return None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise InstallError(f"there is no keytab {path}", hint="kms-site.xml names it") from None
    except OSError as error:
        raise InstallError(f"cannot read the keytab {path}: {error.strerror}") from error
    if not content or len(content) > _MAX_BYTES:
        raise InstallError(f"the keytab {path} is {'empty' if not content else 'larger than a megabyte'}")
    return content


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
