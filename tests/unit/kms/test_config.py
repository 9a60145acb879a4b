from __future__ import annotations

from pathlib import Path

import pytest
from kms_serving import KmsPlace, write_xml

from ringfence_agent.http.listening import parse_listen
from ringfence_agent.kms.config import Options, Settings, is_loopback, load_settings
from ringfence_zones.errors import ConfigError, InputError


@pytest.fixture
def place(tmp_path: Path) -> KmsPlace:
    return KmsPlace.make(tmp_path)


def settings(place: KmsPlace, **options: object) -> Settings:
    given: dict[str, object] = {
        "hadoop_conf": place.conf,
        "listen": "localhost:0",
        "keystore": f"sqlite:///{place.store}",
        **options,
    }
    return load_settings(Options(**{name: value for name, value in given.items() if value is not None}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost:9600", ("localhost", 9600)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:1", ("::1", 1)),
        ("kms.example:65535", ("kms.example", 65535)),
    ],
)
def test_listen_is_host_and_port(text: str, expected: tuple[str, int]) -> None:
    assert parse_listen(text) == expected


@pytest.mark.parametrize(
    "text", ["", "localhost", ":9600", "localhost:", "localhost:x", "::1:1", "h:65536", "h:-1", "h:²"]
)
def test_a_malformed_listen_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="cannot listen on"):
        parse_listen(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("0.0.0.0", False), ("kms", False)],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_hadoops_three_files_are_enough(place: KmsPlace) -> None:
    found = settings(place)
    assert (found.host, found.port, found.authentication.session_s) == ("localhost", 0, 36_000)
    assert (found.defaults.cipher, found.defaults.length_bits) == ("AES/CTR/NoPadding", 128)
    assert found.key_authorization
    assert found.audit.directory == place.audit_directory
    assert (found.admin_socket, found.admin_socket_named) == (place.admin_socket, False)


def test_hadoops_properties_keep_their_meaning(place: KmsPlace) -> None:
    write_xml(
        place.conf / "kms-site.xml",
        {
            "hadoop.kms.http.host": "127.0.0.1",
            "hadoop.kms.http.port": "1234",
            "hadoop.kms.key.provider.uri": f"sqlite:///{place.store}",
            "hadoop.kms.key.authorization.enable": "false",
            "hadoop.kms.authentication.token.validity": "60",
            "hadoop.kms.authentication.cookie.path": "/",
        },
    )
    write_xml(
        place.conf / "core-site.xml",
        {
            "hadoop.security.key.default.bitlength": "256",
            "hadoop.user.group.static.mapping.overrides": "etl=pii",
        },
    )
    found = settings(place, listen=None, keystore=None)
    assert (found.host, found.port, found.keystore) == ("127.0.0.1", 1234, f"sqlite:///{place.store}")
    assert not found.key_authorization
    assert (found.authentication.session_s, found.authentication.cookie_path) == (60, "/")
    assert found.defaults.length_bits == 256
    assert found.groups.static == {"etl": frozenset({"pii"})}


def test_hadoops_default_address_is_refused_until_plain_http_is_written_out(place: KmsPlace) -> None:
    with pytest.raises(ConfigError, match=r"listening on 0\.0\.0\.0 in plain HTTP"):
        settings(place, listen=None)
    write_xml(place.conf / "kms-site.xml", {"hadoop.kms.ssl.enabled": "false"})
    assert settings(place, listen=None).host == "0.0.0.0"


def test_plain_http_in_kms_yaml(tmp_path: Path) -> None:
    file = tmp_path / "kms.yaml"
    text = f"listen: 0.0.0.0:1\nkeystore: sqlite:///{tmp_path}/k.db\n"
    file.write_text(text)
    with pytest.raises(ConfigError):
        load_settings(Options(config=file))
    file.write_text(text + "allow_plain_http: true\n")
    assert load_settings(Options(config=file)).host == "0.0.0.0"


def test_options_overrule_the_file(tmp_path: Path) -> None:
    file = tmp_path / "kms.yaml"
    file.write_text(
        f"listen: localhost:1\nkeystore: sqlite:///{tmp_path}/k.db\nworkers: 3\nroot_key_file: {tmp_path}/r\n"
        "authentication: {session: 5m}\n"
        f"audit: {{directory: {tmp_path}/a, sync: 20ms, format: both}}\nadmin: {{socket: {tmp_path}/s}}\n"
    )
    found = load_settings(Options(config=file))
    assert (found.port, found.workers, found.root_key) == (1, 3, tmp_path / "r")
    assert (found.authentication.session_s, found.audit.directory, found.audit.sync_s) == (300, tmp_path / "a", 0.02)
    assert (found.admin_socket, found.admin_socket_named) == (tmp_path / "s", True)
    changed = load_settings(
        Options(
            config=file,
            listen="localhost:2",
            workers=4,
            root_key=Path("/k"),
            keystore="sqlite:////elsewhere/k.db",
            admin_socket=Path("/t"),
        )
    )
    assert (changed.port, changed.workers, changed.root_key) == (2, 4, Path("/k"))
    assert (changed.keystore, changed.admin_socket) == ("sqlite:////elsewhere/k.db", Path("/t"))


def test_every_problem_of_the_file_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "kms.yaml"
    file.write_text("workers: 0\nauthentication: {session: 5}\nkeystor: x\naudit: {directory: relative}\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(Options(config=file))
    for words in (
        "kms.yaml:1",
        "'authentication.session'",
        "did you mean 'keystore'?",
        "'audit.directory' must be an absolute path",
    ):
        assert words in caught.value.message


def test_no_keystore_and_a_jceks_one_are_refused(place: KmsPlace) -> None:
    with pytest.raises(ConfigError, match="no key store is named"):
        settings(place, keystore=None)
    write_xml(place.conf / "kms-site.xml", {"hadoop.kms.key.provider.uri": "jceks://file@/root/kms.keystore"})
    with pytest.raises(InputError, match="Java key store"):
        settings(place, keystore=None)


def test_the_signature_secret_file_is_hadoops_and_must_be_private(place: KmsPlace) -> None:
    secret = place.directory / "secret"
    secret.write_bytes(b"0123456789abcdef")
    secret.chmod(0o644)
    write_xml(place.conf / "kms-site.xml", {"hadoop.kms.authentication.signature.secret.file": str(secret)})
    with pytest.raises(ConfigError, match="can be read by others"):
        settings(place)
    secret.chmod(0o600)
    found = settings(place).authentication.signature_secret
    assert found is not None and found.reveal() == b"0123456789abcdef"
    secret.write_bytes(b"short")
    with pytest.raises(ConfigError, match="fewer than 16"):
        settings(place)


@pytest.mark.parametrize(
    ("tls", "why"),
    [
        ("", "there is no TLS"),
        ("tls: {cert: /c.pem, key: /c.key, second: {cert: /r.pem, key: /r.key}}\n", "two TLS certificates"),
        # What is refused next is the keytab, which is empty: TLS with one certificate is in order.
        ("tls: {cert: /c.pem, key: /c.key}\n", "keytab"),
    ],
)
def test_a_required_channel_binding_that_no_connection_can_have_is_refused(tmp_path: Path, tls: str, why: str) -> None:
    keytab = tmp_path / "keytab"
    keytab.write_bytes(b"\x05\x02")
    keytab.chmod(0o600)
    config = tmp_path / "kms.yaml"
    kerberos = f"authentication: {{type: kerberos, kerberos: {{keytab: {keytab}, channel_binding: required}}}}\n"
    config.write_text(f"keystore: sqlite:///{tmp_path}/k.db\n{kerberos}{tls}")
    with pytest.raises(ConfigError, match=why) as refused:
        load_settings(Options(config=config))
    assert why == "keytab" or "opportunistic" in (refused.value.hint or "")
