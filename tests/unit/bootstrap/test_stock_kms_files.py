"""Files that a hardening changes and puts back; its certificate; its units."""

from __future__ import annotations

import datetime
import hashlib
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from certificates import Certificates
from cryptography.hazmat.primitives.serialization import pkcs12

from ringfence_bootstrap.sandbox.certificates import CertificateAuthority
from ringfence_bootstrap.stock_kms.file_changes import FileChange, Owner, is_as_written
from ringfence_bootstrap.stock_kms.hardening import is_on_root_volume
from ringfence_bootstrap.stock_kms.stores import new_password, read_server_certificate
from ringfence_bootstrap.stock_kms.units import install_units, remove_units, unit_files
from ringfence_zones.errors import ConfigError
from ringfence_zones.java_truststore import read_trusted_certificates


def test_a_changed_file_comes_back_byte_by_byte_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "kms-site.xml"
    path.write_bytes(b"old\r\n\xff")
    path.chmod(0o640)
    step = FileChange(path, lambda old: (old or b"") + b"new", 0o600, Owner.of(path)).step("site", "", tmp_path)
    undo = step.prepare()
    assert path.read_bytes() == b"old\r\n\xff"
    step.do()
    assert path.read_bytes() == b"old\r\n\xffnew"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert is_as_written(undo)
    path.write_bytes(b"somebody else's")
    assert not is_as_written(undo)
    for _ in range(2):  # may find its work done
        step.undo(undo)
        assert path.read_bytes() == b"old\r\n\xff"
        assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_secret_that_was_made_is_private_and_goes_again(tmp_path: Path) -> None:
    path = tmp_path / "password"
    step = FileChange(path, lambda _: b"hunter2", 0o400, Owner.of(tmp_path), forced=True).step("p", "", tmp_path)
    undo = step.prepare()
    assert not path.exists()
    assert b"hunter2" not in str(dict(undo)).encode()
    step.do()
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    step.undo(undo)
    step.undo(undo)
    assert not path.exists()


def test_passwords_are_long_and_never_the_same() -> None:
    assert len({new_password() for _ in range(50)}) == 50
    assert all(len(new_password()) >= 32 for _ in range(50))


def test_the_stores_hold_what_java_and_we_read(certificates: Certificates, tmp_path: Path) -> None:
    server = certificates.server
    read = read_server_certificate(server.certificate, server.key, certificates.trusted, ["localhost", "127.0.0.1"])
    key_store = pkcs12.load_pkcs12(read.key_store("password"), b"password")
    assert key_store.key is not None
    assert key_store.cert is not None
    assert key_store.cert.certificate == read.certificate
    (tmp_path / "trust.p12").write_bytes(read.trust_store("password"))
    [trusted] = read_trusted_certificates(tmp_path / "trust.p12", "password")
    assert hashlib.sha256(trusted).digest() == read.authority.fingerprint(read.certificate.signature_hash_algorithm)  # type: ignore[arg-type]


def test_a_certificate_that_clients_would_refuse_is_refused_first(certificates: Certificates, tmp_path: Path) -> None:
    server, other = certificates.server, CertificateAuthority.make(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"not for kms\.example\.com"):
        read_server_certificate(server.certificate, server.key, certificates.trusted, ["kms.example.com"])
    with pytest.raises(ConfigError, match="signed the one"):
        read_server_certificate(server.certificate, server.key, other.certificate, ["localhost"])
    with pytest.raises(ConfigError, match="is not that of the certificate"):
        read_server_certificate(server.certificate, certificates.rsa_server.key, certificates.trusted, ["localhost"])
    old = other.issue_server("old", valid_for=datetime.timedelta(days=-1))
    with pytest.raises(ConfigError, match="only"):
        read_server_certificate(old.certificate, old.key, other.certificate, ["localhost"])
    wild = other.issue_server("wild", names=("*.ec2.internal",))
    read_server_certificate(wild.certificate, wild.key, other.certificate, ["ip-10-0-0-1.ec2.internal"])
    with pytest.raises(ConfigError, match="not for"):
        read_server_certificate(wild.certificate, wild.key, other.certificate, ["a.b.ec2.internal"])


def test_a_place_below_a_directory_that_is_not_there_is_on_the_volume_it_would_be_on(tmp_path: Path) -> None:
    assert is_on_root_volume(Path("/no-such-directory/and/below"))
    other = Path("/proc/1")
    assert not is_on_root_volume(other / "file")


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    command = tmp_path / "ring fence"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    units = unit_files(str(command), Path("/var/lib/state dir"), Path("/var/lib/hadoop-kms/kms.keystore"))
    for name, text in units.items():
        (tmp_path / name).write_text(text)
    assert "PathChanged=/var/lib/hadoop-kms/kms.keystore\n" in units["ringfence-stock-kms-backup.path"]
    verify = shutil.which("systemd-analyze")
    assert verify is not None, "systemd-analyze is needed to judge units"
    done = subprocess.run(
        [verify, "verify", *(str(tmp_path / name) for name in units)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if "ringfence-stock-kms" in line], done.stderr


def test_units_are_started_and_removed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs, units = tmp_path / "bin", tmp_path / "units"
    programs.mkdir()
    units.mkdir()
    (programs / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (programs / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    install_units(unit_files("/opt/ringfence/bin/ringfence", Path("/var/lib/s"), Path("/var/lib/k")), units)
    assert sorted(path.name for path in units.iterdir()) == [
        "ringfence-stock-kms-backup.path",
        "ringfence-stock-kms-backup.service",
        "ringfence-stock-kms-backup.timer",
    ]
    remove_units(units)
    remove_units(units)
    assert not list(units.iterdir())
    both = "ringfence-stock-kms-backup.path ringfence-stock-kms-backup.timer"
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == ["daemon-reload", f"enable --now {both}", f"disable --now {both}", "daemon-reload"]
