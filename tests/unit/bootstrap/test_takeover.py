"""The parts of a takeover that need no KMS: what is read, which services, whose file, which proof."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from databases import DatabaseServer
from kms_serving import write_xml

from ringfence_agent.keystore.held import TransitVersion
from ringfence_agent.keystore.interface import NewKey
from ringfence_agent.keystore.open import open_keystore
from ringfence_agent.kms.config import KmsFile
from ringfence_bootstrap.cli.takeover import return_command
from ringfence_bootstrap.takeover import services
from ringfence_bootstrap.takeover.exchange import Places, config_text, takeover_steps
from ringfence_bootstrap.takeover.files import parse_edek
from ringfence_bootstrap.takeover.key_commands import KeyCommands
from ringfence_bootstrap.takeover.key_file import beside, put_back, put_in_place
from ringfence_bootstrap.takeover.proof import Collected, FileEdek, collect, find_differences
from ringfence_bootstrap.takeover.services import Commands, SystemdUnit, choose_service, service_from_json
from ringfence_bootstrap.takeover.stock import read_stock_kms
from ringfence_zones.errors import ConfigError, HdfsError, InstallError, KmsRemoteError
from ringfence_zones.keys import DEFAULT_CIPHER, KeyMetadata, split_version_name
from ringfence_zones.kms_material import Edek, KmsMaterialClient
from ringfence_zones.secret import Secret

JCEKS = Path(__file__).parents[2] / "vectors/jceks/hadoop-3.4.2.jceks"
SITE = {
    "hadoop.kms.key.provider.uri": "jceks://file@/var/lib/kms/kms.keystore",
    "hadoop.kms.http.host": "kms.example.com",
    "hadoop.kms.http.port": "9700",
}
CORE = {"hadoop.security.key.provider.path": "kms://http@kms.example.com:9700/kms"}


@pytest.fixture(autouse=True)
def _no_password_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HADOOP_KEYSTORE_PASSWORD", raising=False)


def conf(tmp_path: Path, site: Mapping[str, str] = SITE, core: Mapping[str, str] = CORE) -> tuple[Path, Path]:
    for name in ("kms", "hadoop"):
        (tmp_path / name).mkdir(exist_ok=True)
    write_xml(tmp_path / "kms/kms-site.xml", site)
    write_xml(tmp_path / "hadoop/core-site.xml", core)
    return tmp_path / "kms", tmp_path / "hadoop"


# -- the stock KMS


def test_a_stock_kms_is_read_from_its_own_files_and_the_clients(tmp_path: Path) -> None:
    found = read_stock_kms(*conf(tmp_path), None)
    assert (found.host, found.port, found.has_tls) == ("kms.example.com", 9700, False)
    assert found.keystore == Path("/var/lib/kms/kms.keystore")
    assert (found.uri.text, found.password_file) == ("kms://http@kms.example.com:9700/kms", None)


def test_its_password_file_lies_on_its_class_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = SITE | {"hadoop.security.keystore.java-keystore-provider.password-file": "kms.password"}
    directories = conf(tmp_path, site)
    with pytest.raises(ConfigError, match="which is not in"):
        read_stock_kms(*directories, None)
    (tmp_path / "kms/kms.password").write_text("secret\n")
    assert read_stock_kms(*directories, None).password_file == tmp_path / "kms/kms.password"
    assert read_stock_kms(*directories, Path("/other")).password_file == Path("/other")
    monkeypatch.setenv("HADOOP_KEYSTORE_PASSWORD", "x")  # Hadoop asks the environment first
    assert read_stock_kms(*directories, None).password_file is None


@pytest.mark.parametrize(
    ("site", "core", "why"),
    [
        ({"hadoop.kms.http.port": "9601"}, {}, "listens on 9601"),
        ({"hadoop.kms.ssl.enabled": "true"}, {}, "hadoop.kms.ssl.enabled is true"),
        ({"hadoop.kms.key.provider.uri": "dbks://http@host:9292/kms"}, {}, "is dbks"),
        ({"hadoop.kms.key.provider.uri": "jceks://hdfs@nn/kms.keystore"}, {}, "Java key store"),
        ({"hadoop.kms.key.provider.uri": "jceks://file@/${user.home}/k"}, {}, "Java key store"),
        ({}, {"hadoop.security.key.provider.path": "kms://http@a;b:9700/kms"}, "2 instances"),
        ({}, {"hadoop.security.key.provider.path": ""}, "is not set"),
    ],
)
def test_what_cannot_be_taken_over_names_the_property(
    tmp_path: Path, site: Mapping[str, str], core: Mapping[str, str], why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        read_stock_kms(*conf(tmp_path, {**SITE, **site}, {**CORE, **core}), None)


def test_a_directory_without_a_kms_says_which_option_names_another(tmp_path: Path) -> None:
    kms, hadoop = conf(tmp_path)
    (kms / "kms-site.xml").unlink()
    with pytest.raises(ConfigError, match=r"no kms-site\.xml") as caught:
        read_stock_kms(kms, hadoop, None)
    assert "--kms-conf" in (caught.value.hint or "")


# -- services


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A `systemctl` that writes down what it was told. There is no systemd where tests run."""
    monkeypatch.setattr(services, "_UNITS", tmp_path / "no-units")
    calls = tmp_path / "calls"
    program = tmp_path / "bin/systemctl"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {calls}\n'
        'case "$*" in *hadoop-kms-server*) echo loaded;; show*) echo not-found;; *broken*) echo no >&2; exit 5;; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    yield calls


def test_a_stock_unit_is_masked_so_that_nothing_starts_it(systemctl: Path) -> None:
    unit = SystemdUnit("hadoop-kms.service", masked=True)
    unit.stop()
    unit.start()
    assert systemctl.read_text().splitlines() == [
        *("stop hadoop-kms.service", "mask hadoop-kms.service"),
        *("unmask hadoop-kms.service", "start hadoop-kms.service"),
    ]


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where administrators' units are, with the stock KMS's own file in it, as on EMR."""
    units = tmp_path / "units"
    units.mkdir()
    (units / "hadoop-kms.service").write_text("[Service]\nExecStart=/etc/init.d/hadoop-kms start\n")
    (units / "hadoop-kms.service").chmod(0o640)
    monkeypatch.setattr(services, "_UNITS", units)
    return units


def _files(directory: Path) -> dict[str, tuple[int, str]]:
    return {
        each.name: (each.lstat().st_mode, str(each.readlink()) if each.is_symlink() else each.read_text())
        for each in directory.iterdir()
    }


def test_a_unit_whose_file_is_where_masks_go_is_put_aside_and_back(systemctl: Path, units: Path) -> None:
    before = _files(units)
    unit = SystemdUnit("hadoop-kms.service", masked=True)
    unit.stop()
    assert services.is_masked("hadoop-kms.service")
    assert not [each for each in units.iterdir() if each.suffix == ".service" and not each.is_symlink()]
    unit.stop()
    unit.start()
    assert _files(units) == before and not services.is_masked("hadoop-kms.service")
    assert "mask hadoop-kms.service" not in systemctl.read_text().splitlines()
    assert systemctl.read_text().splitlines().count("daemon-reload") == 2


def test_a_death_while_a_unit_is_put_aside_is_undone(systemctl: Path, units: Path) -> None:
    before = _files(units)
    place = units / "hadoop-kms.service"
    os.link(place, units / "hadoop-kms.service.ringfence-masked")
    (units / ".hadoop-kms.service.new").symlink_to("/dev/null")
    SystemdUnit("hadoop-kms.service", masked=True).start()
    assert _files(units) == before


def test_a_unit_that_was_given_a_new_file_since_keeps_it(systemctl: Path, units: Path) -> None:
    unit = SystemdUnit("hadoop-kms.service", masked=True)
    unit.stop()
    (units / "hadoop-kms.service").unlink()
    (units / "hadoop-kms.service").write_text("[Service]\nExecStart=/new\n")
    assert not services.is_masked("hadoop-kms.service")
    unit.start()
    assert [(each.name, each.read_text()) for each in units.iterdir()] == [
        ("hadoop-kms.service", "[Service]\nExecStart=/new\n")
    ]


def test_our_unit_is_enabled_and_disabled(systemctl: Path) -> None:
    unit = SystemdUnit("ringfence-kms.service", masked=False)
    unit.start()
    unit.stop()
    assert systemctl.read_text().splitlines() == [
        *("enable ringfence-kms.service", "start ringfence-kms.service"),
        *("stop ringfence-kms.service", "disable ringfence-kms.service"),
    ]


def test_the_stock_unit_is_found_by_its_usual_names(systemctl: Path) -> None:
    assert services.find_stock_unit() == "hadoop-kms-server.service"


def test_a_service_that_does_not_start_says_what_it_said(systemctl: Path) -> None:
    with pytest.raises(InstallError, match=r"'systemctl unmask broken.service' ended with 5: no"):
        SystemdUnit("broken.service", masked=True).start()


def test_commands_run_without_a_shell(tmp_path: Path) -> None:
    service = choose_service("our", None, f"touch '{tmp_path}/a b'", "true; false", masked=False)
    service.start()
    assert (tmp_path / "a b").exists()
    with pytest.raises(InstallError, match="did not run"):
        service.stop()


def test_half_a_pair_of_commands_is_refused() -> None:
    with pytest.raises(ConfigError, match="give both"):
        choose_service("stock", None, "start", None, masked=True)


@pytest.mark.parametrize("service", [Commands("a", "b"), SystemdUnit("u.service", masked=True)])
def test_a_service_comes_back_from_the_journal(service: services.Service) -> None:
    assert service_from_json(service.to_json()) == service


# -- our configuration


def places(tmp_path: Path, **changes: object) -> Places:
    values: dict[str, object] = {
        "uri": "kms://http@kms.example.com:9700/kms",
        "host": "kms.example.com",
        "port": 9700,
        "plain_http": True,
        "kms_conf": tmp_path / "kms",
        "stock_keystore": tmp_path / "kms.keystore",
        "password_file": None,
        "keystore": f"sqlite:///{tmp_path}/keys.db",
        "root_key": None,
        "store_password": None,
        "config": tmp_path / "kms.yaml",
        "state": tmp_path,
        "stock": Commands("a", "b"),
        "ours": SystemdUnit("u.service", masked=False),
    }
    return Places(**(values | changes))  # type: ignore[arg-type]


def test_places_come_back_from_the_journal(tmp_path: Path) -> None:
    made = places(tmp_path, root_key=tmp_path / "root")
    assert Places.from_json(made.to_json()) == made


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"plain_http": False}, False),
        ({"host": "localhost"}, False),
    ],
)
def test_plain_http_is_written_out_only_where_it_leaves_the_machine(
    tmp_path: Path, changes: dict[str, object], expected: bool
) -> None:
    assert ("allow_plain_http: true" in config_text(places(tmp_path, **changes))) is expected


def test_a_store_in_a_database_is_named_with_its_password_file(tmp_path: Path) -> None:
    uri = "postgresql://kms@db.example.com/keys"
    text = config_text(places(tmp_path, keystore=uri, root_key=tmp_path / "root.key", store_password=tmp_path / "p"))
    assert f'keystore: "{uri}"' in text
    assert f'keystore_password_file: "{tmp_path / "p"}"' in text
    KmsFile.model_validate(yaml.safe_load(text))


def test_keys_come_into_a_new_store_in_a_database_and_again_into_the_same(
    postgresql: DatabaseServer, tmp_path: Path
) -> None:
    source = tmp_path / "kms.keystore"
    shutil.copy(JCEKS, source)
    uri, password = postgresql.new_database(), tmp_path / "password"
    password.write_text("correct horse")
    commands = KeyCommands(uri, tmp_path / "root.key", postgresql.password_file, password, tmp_path)
    commands.bring(source)
    commands.bring(source)
    with closing(open_keystore(uri, tmp_path / "root.key", False, postgresql.password_file)) as store:
        assert len(store.list_metadata()) > 1
    postgresql.recycle(uri)
    elsewhere = replace(commands, keystore=f"{uri}x")
    with pytest.raises(InstallError, match="database"):
        elsewhere.bring(source)


def test_a_key_store_that_is_not_there_yet_brings_no_keys_only_where_it_may_be_missing(tmp_path: Path) -> None:
    source = tmp_path / "kms.keystore"
    (tmp_path / "password").write_text("correct horse")
    commands = KeyCommands(f"sqlite:///{tmp_path}/keys.db", None, None, tmp_path / "password", tmp_path)
    with pytest.raises(InstallError, match="cannot read"):
        commands.bring(source)
    commands.bring(source, may_be_missing=True)
    with closing(open_keystore(commands.keystore, None, False)) as store:
        assert store.list_metadata() == []
    being_written = tmp_path / "kms.keystore_NEW"
    being_written.write_text("")
    with pytest.raises(InstallError, match="is writing"):
        commands.bring(source, may_be_missing=True)
    being_written.unlink()
    shutil.copy(JCEKS, source)
    commands.bring(source, may_be_missing=True)
    with closing(open_keystore(commands.keystore, None, False)) as store:
        assert len(store.list_metadata()) > 1


@pytest.mark.parametrize(("keys", "allowed"), [((), True), (("unproven",), False)])
def test_a_stock_kms_that_tells_of_keys_has_to_have_its_key_store(
    tmp_path: Path, keys: tuple[str, ...], allowed: bool
) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "password").write_text("correct horse")
    at = places(tmp_path, password_file=tmp_path / "password")
    step = takeover_steps(at, Collected((), keys), lambda *_: pytest.fail("nobody is asked"))[0]
    assert step.name == "import"
    with nullcontext() if allowed else pytest.raises(InstallError, match="cannot read"):
        step.do()


def test_a_takeover_that_is_rolled_back_leaves_keys_that_vault_holds_where_they_are(
    tmp_path: Path, unused_port: int
) -> None:
    target = tmp_path / "kms.keystore"
    shutil.copy(JCEKS, target)
    (tmp_path / "password").write_text("correct horse")
    tmp_path.chmod(0o700)
    at = places(
        tmp_path,
        uri=f"kms://http@localhost:{unused_port}/kms",
        port=unused_port,
        password_file=tmp_path / "password",
        ours=Commands("true", f"touch {tmp_path}/stopped"),
    )
    at.keys.bring(target)
    with closing(open_keystore(at.keystore, None, False)) as store:
        attributes = {"ringfence.custody": "transit"}
        for name in ("held1", "held2"):
            held = TransitVersion(f"z-{name.translate({49: 97, 50: 98})[-1] * 26}", 1)
            store.create_key(NewKey(name, DEFAULT_CIPHER, 128, held, None, attributes))
        store.create_key(NewKey("made", DEFAULT_CIPHER, 128, Secret(bytes(16)), None, {}))
        number = len(store.list_metadata())
    (step,) = [step for step in takeover_steps(at, Collected((), ()), lambda _: []) if step.name == "start-ours"]
    told = step.undo({})
    assert told is not None and told.startswith("keys held1, held2 held by Vault stayed in our key store")
    assert (tmp_path / "stopped").exists()
    again = replace(at.keys, keystore=f"sqlite:///{tmp_path}/other.db", state=tmp_path / "other")
    again.state.mkdir()
    again.bring(target)
    with closing(open_keystore(again.keystore, None, False)) as store:
        names = [metadata.name for metadata in store.list_metadata()]
    assert "made" in names and len(names) == number - 2
    with pytest.raises(InstallError, match="keys held1, held2 are held by Vault"):
        at.keys.write(tmp_path / "all", target)


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_an_ipv6_address_keeps_its_brackets(tmp_path: Path) -> None:
    assert 'listen: "[::1]:9700"' in config_text(places(tmp_path, host="::1"))


# -- the key store's file


@pytest.fixture
def key_store(tmp_path: Path) -> Path:
    target = tmp_path / "kms.keystore"
    target.write_text("old")
    target.chmod(0o640)
    (tmp_path / ".kms.keystore.crc").write_text("sums of old")
    (tmp_path / "new").write_text("new")
    return target


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_a_link_in_place_of_the_new_key_store_changes_no_other_file(
    key_store: Path, tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    key_store.chmod(0o666)
    other = tmp_path / "another-file"
    other.write_text("not a key store")
    other.chmod(0o600)
    link(key_store.with_name("trap"), other)
    with pytest.raises(InstallError):
        put_in_place(key_store.with_name("trap"), key_store, beside(key_store, "before"))
    assert other.stat().st_mode & 0o777 == 0o600
    assert not beside(key_store, "before").exists()


def test_a_new_key_store_takes_the_place_owner_and_mode_of_the_old_and_loses_its_checksums(key_store: Path) -> None:
    backup = beside(key_store, "backup")
    put_in_place(key_store.with_name("new"), key_store, backup)
    assert (key_store.read_text(), backup.read_text()) == ("new", "old")
    assert stat.S_IMODE(key_store.stat().st_mode) == 0o640
    # Hadoop's local file system would refuse the new file over the old one's checksums.
    assert not key_store.with_name(".kms.keystore.crc").exists()
    put_back(key_store, backup)
    assert key_store.read_text() == "old" and not backup.exists()
    assert key_store.with_name(".kms.keystore.crc").read_text() == "sums of old"
    assert not key_store.with_name(".kms.keystore.backup.crc").exists()


def test_a_first_key_store_is_its_owner_s_alone_and_goes_when_it_is_put_back(key_store: Path) -> None:
    key_store.unlink()
    backup = beside(key_store, "backup")
    put_in_place(key_store.with_name("new"), key_store, backup)
    assert key_store.read_text() == "new" and not backup.exists()
    assert stat.S_IMODE(key_store.stat().st_mode) == 0o600
    assert key_store.stat().st_uid == key_store.parent.stat().st_uid
    put_back(key_store, backup, is_new=True)
    put_back(key_store, backup, is_new=True)
    assert not key_store.exists()


def test_putting_back_undoes_a_half_done_exchange_and_none_at_all(key_store: Path) -> None:
    backup = beside(key_store, "backup")
    put_back(key_store, backup)
    assert key_store.read_text() == "old"
    os.link(key_store, backup)
    put_back(key_store, backup)
    assert key_store.read_text() == "old" and not backup.exists()


# -- EDEKs


def test_the_encryption_attribute_of_a_file_is_read() -> None:
    edek, iv = bytes(range(200)), bytes(16)
    message = b"\x0a\xc8\x01" + edek + b"\x12\x10" + iv + b"\x1a\x06key@12"
    assert parse_edek("/z/f", message) == Edek("key", "key@12", iv, edek)


@pytest.mark.parametrize(
    "message", [b"", b"\x0a", b"\x0a\x05ab", b"\x08\x01", b"\x0a\xff\xff\xff\xff\xff\x01", b"\x1a\x01k"]
)
def test_another_attribute_is_refused(message: bytes) -> None:
    with pytest.raises(HdfsError):
        parse_edek("/z/f", message)


class Opener:
    """A KMS that opens EDEKs by adding its key; `allowed` names the keys its user may open."""

    def __init__(self, user: str, keys: Mapping[str, int], allowed: set[str]) -> None:
        self.user = user
        self._keys = keys
        self._allowed = allowed

    def generate_edek(self, name: str) -> Edek:
        raise KmsRemoteError("no GENERATE_EEK", status=403, java_class=None)

    def open_edek(self, edek: Edek) -> Secret:
        split = split_version_name(edek.version_name)
        assert split is not None
        if edek.key_name not in self._allowed:
            raise KmsRemoteError("not allowed", status=403, java_class=None)
        if edek.version_name not in self._keys:
            raise KmsRemoteError(f"'{edek.version_name}' not found", status=404, java_class=None)
        return Secret(bytes((byte + self._keys[edek.version_name]) % 256 for byte in edek.material))


def client(opener: Opener) -> KmsMaterialClient:
    return opener  # type: ignore[return-value]


def key(name: str, versions: int) -> KeyMetadata:
    return KeyMetadata(name, "AES/CTR/NoPadding", 128, 1, versions)


STOCK = {"a@0": 1, "a@1": 2, "b@0": 3}


def prove(**allowed: set[str]) -> Collected:
    provers = [client(Opener(user, STOCK, keys)) for user, keys in allowed.items()]
    files = [FileEdek("/z/f", Edek("a", "a@0", bytes(16), b"f" * 16))]
    return collect(provers, [key("a", 2), key("b", 1)], files)


def test_every_version_and_every_file_is_proven_by_whoever_may() -> None:
    collected = prove(etl={"a"}, other={"b"})
    assert collected.unproven == ()
    assert [proof.edek.version_name for proof in collected.proofs] == ["a@0", "a@1", "a@0", "b@0"]
    assert collected.file_count == 1
    same = [client(Opener("etl", STOCK, {"a"})), client(Opener("other", STOCK, {"b"}))]
    assert find_differences(collected, same) == []


def test_another_key_of_the_same_name_does_not_pass() -> None:
    collected = prove(etl={"a", "b"})
    [difference] = find_differences(collected, [client(Opener("etl", STOCK | {"a@1": 9}, {"a", "b"}))])
    assert difference == "a made-up EDEK of key a (key version a@1) opens to another DEK"


def test_a_missing_version_does_not_pass() -> None:
    collected = prove(etl={"a", "b"})
    missing = {name: value for name, value in STOCK.items() if name != "a@0"}
    assert len(find_differences(collected, [client(Opener("etl", missing, {"a", "b"}))])) == 2


def test_a_key_that_nobody_may_open_is_not_called_proven() -> None:
    assert prove(etl={"a"}).unproven == ("b",)


def test_a_proof_does_not_print_its_dek() -> None:
    proof = prove(etl={"a"}).proofs[0]
    assert proof.dek.reveal().hex() not in repr(proof)
    assert str(proof.dek.reveal()) not in repr(proof)


def test_who_proves_with_a_keytab_is_for_kerberos_and_a_claimed_name_is_not(tmp_path: Path) -> None:
    def refused(authentication: str, *given: str) -> str:
        write_xml(tmp_path / "core-site.xml", {"hadoop.security.authentication": authentication})
        words = ["--state-dir", str(tmp_path / "state"), "--hadoop-conf", str(tmp_path), *given]
        done = CliRunner().invoke(return_command, words)
        assert done.exit_code != 0
        return f"{done.exception} {done.output}"

    assert "is not of the form PRINCIPAL=/ABSOLUTE/FILE" in refused("kerberos", "--prove-with", "etl=here")
    assert "is not of the form PRINCIPAL=/ABSOLUTE/FILE" in refused("kerberos", "--prove-with", "/etc/etl.keytab")
    assert "this cluster uses simple authentication" in refused("simple", "--prove-with", "etl=/etc/etl.keytab")
    assert "claims a name, and this cluster uses Kerberos" in refused("kerberos", "--prove-as", "etl")
    assert "no KMS of this machine was taken over" in refused("kerberos", "--prove-with", "etl=/etc/etl.keytab")
