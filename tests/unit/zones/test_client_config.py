"""Who our commands are on a cluster, from its core-site.xml, client.yaml and the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence_agent.config import load_config
from ringfence_zones.client_config import read_client_config, read_http_access
from ringfence_zones.errors import ConfigError, InputError
from ringfence_zones.kerberos import KerberosKeytab, KerberosLogin, refuse_claimed_user

BLOCK = "kerberos: {principal: hdfs@R.TEST, keytab: /etc/hdfs.keytab}\n"


def conf(directory: Path, authentication: str, client: str = "") -> Path:
    (directory / "core-site.xml").write_text(
        "<configuration><property><name>hadoop.security.authentication</name>"
        f"<value>{authentication}</value></property></configuration>"
    )
    (directory / "ringfence-client.yaml").write_text(client)
    return directory


def test_without_kerberos_a_keytab_is_not_used(tmp_path: Path) -> None:
    assert read_http_access(conf(tmp_path, "simple", BLOCK), {}).kerberos is None


def test_with_kerberos_it_is_the_ticket_cache_unless_a_keytab_is_named(tmp_path: Path) -> None:
    assert read_http_access(conf(tmp_path, "kerberos"), {}).kerberos == KerberosLogin()
    assert read_http_access(conf(tmp_path, "Kerberos", BLOCK), {}).kerberos == KerberosLogin(
        "hdfs@R.TEST", Path("/etc/hdfs.keytab")
    )


def test_the_environment_wins_over_the_file_and_the_program_over_both(tmp_path: Path) -> None:
    directory = conf(tmp_path, "kerberos", BLOCK)
    environ = {"RINGFENCE_PRINCIPAL": "etl", "RINGFENCE_KEYTAB": "/k"}
    assert read_http_access(directory, environ).kerberos == KerberosLogin("etl", Path("/k"))
    own = KerberosKeytab(principal="agent", keytab=Path("/a"))
    assert read_http_access(directory, environ, own).kerberos == KerberosLogin("agent", Path("/a"))


@pytest.mark.parametrize("name", ["RINGFENCE_PRINCIPAL", "RINGFENCE_KEYTAB"])
def test_half_a_login_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="only one is set"):
        read_client_config(conf(tmp_path, "kerberos"), {name: "/x"})


def test_the_admin_socket_of_the_environment_leaves_the_rest_of_the_file_alone(tmp_path: Path) -> None:
    directory = conf(tmp_path, "kerberos", BLOCK + "kms_ca_file: /ca.pem\nkms_token_file: /token\n")
    found = read_client_config(directory, {"RINGFENCE_KMS_ADMIN_SOCKET": "/s"})
    assert (found.kms_admin_socket, found.kms_token_file, found.kms_ca_file) == (Path("/s"), None, Path("/ca.pem"))
    assert found.kerberos is not None


def test_the_agent_has_a_keytab_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(BLOCK)
    assert load_config(path).kerberos == KerberosKeytab(principal="hdfs@R.TEST", keytab=Path("/etc/hdfs.keytab"))
    path.write_text("kerberos: {principal: hdfs}\n")
    with pytest.raises(ConfigError, match=r"kerberos\.keytab"):
        load_config(path)


def test_a_claimed_user_is_refused_with_the_ticket_that_is_wanted() -> None:
    refuse_claimed_user(None)
    with pytest.raises(InputError) as caught:
        refuse_claimed_user("etl")
    assert caught.value.command == "kinit etl"
