"""Sandboxes with Kerberos and TLS, and what a test does on them: as a user, as a job, over HTTP.

Every user has a ticket cache of their own, filled from the sandbox's keytabs; nobody is anybody by claiming it.
"""

from __future__ import annotations

import base64
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from cluster_commands import Cluster, Finished
from sandboxes import new_sandbox, run_ringfence

from ringfence_bootstrap.sandbox.kdc import Realm
from ringfence_zones.client_config import ClientConfig
from ringfence_zones.http_session import DaemonSession, HttpAccess, HttpAnswer
from ringfence_zones.kerberos import KerberosLogin
from ringfence_zones.kms_admin import AdminClient, open_admin_client
from ringfence_zones.kms_uri import parse_kms_uri
from ringfence_zones.tls_trust import TlsTrust

_JOB = Path(__file__).with_name("java_job.py")
_JOB_TIMEOUT_S = 120


class SecureCluster(Cluster):
    """A sandbox of `--kerberos --tls`. `run` acts by a ticket of the user named."""

    def __init__(self, described: Mapping[str, Any]) -> None:
        super().__init__(described)
        self.realm = Realm(self.directory / "kdc", self.ports["kdc"])
        self.keytabs = {user: Path(path) for user, path in described["keytabs"].items()}
        self.authority = Path(described["ca"])
        self._caches = itertools.count()
        self._tickets: dict[str, dict[str, str]] = {}

    @property
    def kms_url(self) -> str:
        return f"https://localhost:{self.ports['kms']}/kms"

    def environ(self, user: str) -> dict[str, str]:
        """As `user` by a ticket in a cache of the test's own, got once."""
        if user not in self._tickets:
            self._tickets[user] = self.kinit(user)
        return {**super().environ(user), **self._tickets[user]}

    def environ_without_ticket(self) -> dict[str, str]:
        """As somebody who never ran kinit."""
        return {**super().environ("hdfs"), "KRB5CCNAME": f"FILE:{self.directory}/tickets/nobody"}

    def environ_of_keytab(self, user: str) -> dict[str, str]:
        """As a service: no ticket, but a keytab that our own commands are told of."""
        named = {"RINGFENCE_PRINCIPAL": user, "RINGFENCE_KEYTAB": str(self.keytabs[user])}
        return {**self.environ_without_ticket(), **named}

    def kinit(self, user: str, *, lifetime_s: int | None = None) -> dict[str, str]:
        """KRB5_CONFIG and KRB5CCNAME of a new cache with a ticket of `user`."""
        cache = self.directory / "tickets" / f"test-{next(self._caches)}"
        return self.realm.kinit(user, self.keytabs[user], cache, lifetime_s=lifetime_s)

    def ringfence(self, *arguments: str | Path, environ: Mapping[str, str], expect: int = 0) -> str:
        """One of our own commands; both outputs. Fails the test when it ends with another code than `expect`."""
        finished = run_ringfence(arguments, environ)
        output = finished.stdout + finished.stderr
        if finished.returncode != expect:
            pytest.fail(f"ringfence {arguments} ended with {finished.returncode}, not {expect}:\n{output}")
        return output

    def run_as(self, environ: Mapping[str, str], program: str, *arguments: str, expect: int = 0) -> Finished:
        """As `run`, with an environment of the test's own."""
        finished = subprocess.run(
            [str(self.directory / "hadoop" / "bin" / program), *arguments],
            env=dict(environ),
            capture_output=True,
            timeout=_JOB_TIMEOUT_S,
            check=False,
        )
        output = (finished.stdout + finished.stderr).decode(errors="replace")
        if finished.returncode != expect:
            pytest.fail(f"{program} {arguments} ended with {finished.returncode}, not {expect}:\n{output}")
        return Finished(finished.stdout, output)

    def job(self, *arguments: str | Path, token_file: Path | None = None) -> dict[str, Any]:
        """What `java_job` printed, in a process without any ticket, with the tokens of `token_file`."""
        environ = self.environ_without_ticket()
        if token_file is not None:
            environ["HADOOP_TOKEN_FILE_LOCATION"] = str(token_file)
        finished = subprocess.run(
            [sys.executable, _JOB, *arguments],
            env=environ,
            capture_output=True,
            text=True,
            timeout=_JOB_TIMEOUT_S,
            check=False,
        )
        try:
            return dict(json.loads(finished.stdout))
        except ValueError:
            return pytest.fail(f"the job {arguments} printed no answer:\n{finished.stdout}{finished.stderr}")

    def get(self, url: str, user: str | None, **parameters: str) -> HttpAnswer:
        """One GET over TLS by a token of `user`, or as nobody."""
        login = None if user is None else KerberosLogin(user, self.keytabs[user])
        with self._realm_in_process(), closing(DaemonSession(HttpAccess(login, TlsTrust(self.authority)))) as session:
            return session.exchange(
                "GET",
                url,
                params=list(parameters.items()),
                headers={"Accept": "application/json"},
                timeout=(30, 30),
                max_bytes=8 * 1024 * 1024,
            )

    def token(self, user: str) -> str:
        """`Authorization` for one request to a web service of this machine, as `user`."""
        with self._realm_in_process(), KerberosLogin(user, self.keytabs[user]).initiate("localhost") as initiator:
            return f"Negotiate {base64.b64encode(initiator.first_token()).decode()}"

    @contextmanager
    def admin(self, user: str) -> Iterator[AdminClient]:
        """The KMS's admin endpoint over the network, as `user` by Kerberos and nothing else."""
        access = HttpAccess(KerberosLogin(user, self.keytabs[user]), TlsTrust(self.authority))
        with self._realm_in_process():
            yield open_admin_client(ClientConfig(), parse_kms_uri(self.environment["RINGFENCE_KMS_URI"]), access=access)

    @contextmanager
    def _realm_in_process(self) -> Iterator[None]:
        """Kerberos's library knows its realm from the process's environment alone."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KRB5_CONFIG", str(self.realm.krb5_conf))
            yield

    def live_value(self, port: str, name: str) -> str:
        """A property as the daemon behind that port's web page holds it now."""
        answer = self.get(f"https://localhost:{self.ports[port]}/conf", "hdfs", name=name, format="json")
        assert answer.status == 200, answer.body
        return str(json.loads(answer.body)["property"]["value"])


@pytest.fixture(scope="session")
def secure_cluster() -> Iterator[SecureCluster]:
    """The session's secure sandbox with our KMS."""
    with new_sandbox("--kerberos", "--tls") as described:
        yield SecureCluster(described)


@pytest.fixture(scope="session")
def brief_cluster() -> Iterator[SecureCluster]:
    """A secure sandbox in which every ticket ends after two minutes, with an agent."""
    with new_sandbox("--kerberos", "--tls", "--ticket-lifetime", "2m", "--agent") as described:
        yield SecureCluster(described)


@pytest.fixture(scope="session")
def secure_stock_cluster() -> Iterator[SecureCluster]:
    """A secure sandbox with Hadoop's own KMS."""
    with new_sandbox("--kms", "stock", "--kerberos", "--tls") as described:
        yield SecureCluster(described)
