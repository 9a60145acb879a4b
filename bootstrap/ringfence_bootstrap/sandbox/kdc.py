"""A private MIT Kerberos realm in one directory: its own configuration, database, keytabs and loopback port.

    DIR/
      krb5.conf            what every client and server of the realm reads: KRB5_CONFIG
      kdc.conf             what the KDC and kadmin.local read: KRB5_KDC_PROFILE
      principal* stash     the database and its master key
      keytabs/             one file for each `keytab` that is asked for by name

Rules: nothing of the machine's own Kerberos is read or changed, no name is looked up in DNS, and the KDC listens on
127.0.0.1 alone. Works as root and as any other user, because the database, not an account, is the authority. The
master password is random, reaches `kdb5_util` through a pipe and is kept by nobody: the stash file opens the database.
Keys are random; there are no passwords. Names of hosts are written as they are (`localhost`, never 127.0.0.1).

Not for production: a realm is as safe as its directory, which must be private to its user.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ringfence_zones.errors import SandboxError

DEFAULT_REALM = "RINGFENCE.TEST"
# Debian keeps the KDC's programs out of an ordinary user's PATH.
_SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_TIMEOUT_S = 30.0
# Everything runs on one machine, so clocks agree; the usual 300 s would let expired tickets live on. Not a few seconds
# either: a busy machine's JVM may take those to look at a first token.
DEFAULT_CLOCK_SKEW_S = 30

_KRB5_CONF = """\
[libdefaults]
  default_realm = {name}
  dns_lookup_realm = false
  dns_lookup_kdc = false
  dns_canonicalize_hostname = false
  rdns = false
  udp_preference_limit = 1
  clockskew = {clock_skew_s}
  permitted_enctypes = aes256-cts-hmac-sha1-96 aes128-cts-hmac-sha1-96
[realms]
  {name} = {{
    kdc = 127.0.0.1:{port}
  }}
[domain_realm]
  localhost = {name}
"""

_KDC_CONF = """\
[kdcdefaults]
  kdc_listen = ""
  kdc_tcp_listen = 127.0.0.1:{port}
[realms]
  {name} = {{
    database_name = {directory}/principal
    key_stash_file = {directory}/stash
    acl_file = {directory}/kadm5.acl
    max_life = {max_life_s}s
    max_renewable_life = 7d
    supported_enctypes = aes256-cts-hmac-sha1-96:normal aes128-cts-hmac-sha1-96:normal
  }}
[logging]
  kdc = STDERR
"""


@dataclass(frozen=True, slots=True)
class Realm:
    """A realm by its directory and the loopback TCP port of its KDC. `name` is the realm's, in upper case.

    A ticket is taken for `clock_skew_s` after its end by those who check it, and not sent any more by who holds it.

    `create` makes it; `server_command` in `server_environment` is the KDC as a process in the foreground, which
    whoever started it must stop. Everything else works whether the KDC runs or not, except `kinit`.
    """

    directory: Path
    port: int
    name: str = DEFAULT_REALM
    clock_skew_s: int = DEFAULT_CLOCK_SKEW_S

    @property
    def krb5_conf(self) -> Path:
        """The file for KRB5_CONFIG and for Java's `java.security.krb5.conf`."""
        return self.directory / "krb5.conf"

    @property
    def environment(self) -> dict[str, str]:
        """What a client or server of this realm needs in its environment, apart from its ticket cache."""
        return {"KRB5_CONFIG": str(self.krb5_conf)}

    @property
    def server_environment(self) -> dict[str, str]:
        """What the KDC and kadmin.local need in theirs."""
        return {**self.environment, "KRB5_KDC_PROFILE": str(self.directory / "kdc.conf")}

    @property
    def server_command(self) -> tuple[str, ...]:
        """The KDC in the foreground; it says on standard error what it issues. Raises SandboxError without one."""
        return (_program("krb5kdc"), "-n")

    def create(self, max_life_s: int = 36000) -> None:
        """Makes the realm in its directory, which must be empty or absent. `max_life_s` bounds every ticket.

        Raises SandboxError when MIT Kerberos is not installed or its programs refuse.
        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.directory / "keytabs").mkdir(mode=0o700)
        values = {
            "name": self.name,
            "port": self.port,
            "directory": self.directory,
            "max_life_s": max_life_s,
            "clock_skew_s": self.clock_skew_s,
        }
        self.krb5_conf.write_text(_KRB5_CONF.format(**values))
        (self.directory / "kdc.conf").write_text(_KDC_CONF.format(**values))
        (self.directory / "kadm5.acl").write_text("")  # Nobody administers over the network: no kadmind runs.
        master = secrets.token_urlsafe(32)
        self._run(("kdb5_util", "create", "-s", "-r", self.name), typed=f"{master}\n{master}\n")

    def add_principal(self, principal: str, *, max_life_s: int | None = None) -> None:
        """A principal with random keys, `etl` or `HTTP/localhost`; its tickets live at most `max_life_s`.

        Raises SandboxError when it is there already.
        """
        life = () if max_life_s is None else ("-maxlife", f"{max_life_s} seconds")
        self._kadmin("addprinc", "-randkey", *life, principal)

    def change_key(self, principal: str) -> None:
        """New random keys: every keytab and service ticket of this principal made before is stale."""
        self._kadmin("cpw", "-randkey", principal)

    def keytab(self, name: str, principals: Sequence[str]) -> Path:
        """The file `keytabs/NAME.keytab` with the present keys of `principals`, made anew; other keytabs stay good."""
        path = self.directory / "keytabs" / f"{name}.keytab"
        path.unlink(missing_ok=True)
        self._kadmin("ktadd", "-norandkey", "-k", str(path), *principals)
        return path

    def kinit(
        self, principal: str, keytab: Path, cache: Path, *, lifetime_s: int | None = None, renewable_s: int = 0
    ) -> dict[str, str]:
        """Gets a ticket into the file `cache` and returns the environment of a program that uses it.

        `lifetime_s` None asks for as much as the principal may have. Raises SandboxError when the KDC does not run
        or refuses.
        """
        lifetime = () if lifetime_s is None else ("-l", f"{lifetime_s}s")
        renewable = ("-r", f"{renewable_s}s") if renewable_s else ()
        self._run(("kinit", "-c", f"FILE:{cache}", "-k", "-t", str(keytab), *lifetime, *renewable, principal))
        return {**self.environment, "KRB5CCNAME": f"FILE:{cache}"}

    def _kadmin(self, *query: str) -> None:
        self._run(("kadmin.local", "-r", self.name, *query))

    def _run(self, command: Sequence[str], typed: str = "") -> None:
        program, *arguments = command
        environ = {**_without_kerberos(os.environ), **self.server_environment, "LC_ALL": "C"}
        try:
            finished = subprocess.run(
                [_program(program), *arguments],
                env=environ,
                input=typed,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise SandboxError(f"{program} did not end within {_TIMEOUT_S:.0f} s") from error
        if finished.returncode:
            said = finished.stderr.strip().splitlines()
            raise SandboxError(
                f"{' '.join(command)} failed: {said[-1] if said else f'exit code {finished.returncode}'}",
                hint=f"the realm's configuration is {self.krb5_conf}",
            )


def _without_kerberos(environ: Mapping[str, str]) -> dict[str, str]:
    """The caller's own realm, cache and keytab must not leak into a private realm."""
    return {name: value for name, value in environ.items() if not name.startswith("KRB5")}


def _program(name: str) -> str:
    """The full path of one of MIT Kerberos's programs. Raises SandboxError with the line that installs them."""
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), _SYSTEM_PATH)))
    if found is None:
        raise SandboxError(
            f"{name} is not installed; a private Kerberos realm needs MIT Kerberos's KDC and its clients",
            hint="install them; the packaged KDC itself need not run",
            command=_install_command(),
        )
    return found


def _install_command() -> str | None:
    if shutil.which("apt-get"):
        return "apt-get install --yes --no-install-recommends krb5-kdc krb5-admin-server krb5-user"
    return "dnf install --assumeyes krb5-server krb5-workstation" if shutil.which("dnf") else None
