"""Doctor on configurations of every kind, through the functions its command calls."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from acl_files import SOUND, write_acls
from certificates import Certificates
from click.testing import CliRunner

from ringfence_agent.cli.doctor import CHECKS, doctor
from ringfence_agent.doctor import machine, proofs, storage
from ringfence_agent.doctor.subject import Subject, find_subject
from ringfence_agent.keystore.open import open_keystore
from ringfence_zones.findings import Finding, Rule
from ringfence_zones.named_checks import NotChecked


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "kms"
    place.mkdir(mode=0o700)
    return place


def configured(place: Path, *lines: str) -> Subject:
    file = place / "kms.yaml"
    file.write_text("\n".join([f"keystore: sqlite:///{place}/keys.db", *lines]) + "\n")
    return find_subject(file, place, named=False)


def stock(place: Path, site: dict[str, str]) -> Subject:
    write_acls(place, SOUND, site)
    return find_subject(None, place, named=True)


def rules(findings: Any) -> list[Rule]:
    return [finding.rule for finding in findings]


def test_a_kms_that_would_not_start_is_found_with_its_own_words(place: Path) -> None:
    subject = configured(place, "lissten: localhost:1")
    (found,) = storage.check_configuration(subject)
    assert found.rule is Rule.CONFIGURATION
    assert "lissten" in found.message


def test_without_a_configuration_nothing_is_called_fine(tmp_path: Path) -> None:
    subject = find_subject(None, tmp_path, named=True)
    for check in CHECKS:
        if check.run.__module__ != machine.__name__:
            with pytest.raises(NotChecked):
                list(check.run(subject))


def test_a_store_of_ours_as_its_first_start_made_it_is_fine(place: Path) -> None:
    subject = configured(place)
    with pytest.raises(NotChecked, match="not there yet"):
        list(storage.check_key_store(subject))
    open_keystore(f"sqlite:///{place}/keys.db", None, init=False).close()
    for check in (storage.check_configuration, storage.check_root_key, storage.check_audit):
        assert list(check(subject)) == []
    assert rules(storage.check_key_store(subject)) in ([], [Rule.KEY_STORE_NOT_DURABLE])  # a container's own layer


def test_open_modes_and_lost_keys_are_found(place: Path) -> None:
    subject = configured(place)
    open_keystore(f"sqlite:///{place}/keys.db", None, init=False).close()
    (place / "keys.db").chmod(0o644)
    (place / "keys.db.root-key").chmod(0o640)
    assert Rule.KEY_STORE in rules(storage.check_key_store(subject))
    assert Rule.SECRET_EXPOSED in rules(storage.check_root_key(subject))
    (place / "keys.db.root-key").unlink()
    assert rules(storage.check_root_key(subject)) == [Rule.KEY_STORE]
    place.chmod(0o777)
    assert rules(storage.check_key_store(subject)).count(Rule.KEY_STORE) == 2


def test_a_store_in_memory_is_found(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = configured(place)
    open_keystore(f"sqlite:///{place}/keys.db", None, init=False).close()
    monkeypatch.setattr(storage, "file_system_of", lambda _: "tmpfs")
    (found,) = storage.check_key_store(subject)
    assert found.rule is Rule.KEY_STORE_NOT_DURABLE


def test_a_database_that_does_not_answer_is_found(place: Path) -> None:
    settings = configured(place).settings
    assert settings is not None
    shared = dataclasses.replace(settings, keystore="postgresql://kms@localhost:1/keys")
    subject = Subject(place, "kms.yaml", {}, settings=shared)
    (found,) = storage.check_key_store(subject)
    assert found.rule is Rule.KEY_STORE
    assert "does not answer" in found.message


def test_little_room_for_the_audit_log_is_found(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Disk:
        f_bavail, f_frsize = 1, 4096

    subject = configured(place)
    monkeypatch.setattr(storage.os, "statvfs", lambda _: Disk)
    assert rules(storage.check_audit(subject)) == [Rule.AUDIT_SPACE]


def test_claimed_users_and_plain_http_are_found(place: Path) -> None:
    open_to_all = configured(place, "listen: 0.0.0.0:9600", "allow_plain_http: true")
    assert rules(proofs.check_transport(open_to_all)) == [Rule.KMS_PLAIN_HTTP]
    assert rules(proofs.check_authentication(open_to_all)) == [Rule.SIMPLE_AUTHENTICATION]
    assert list(proofs.check_transport(configured(place))) == []


def test_a_good_certificate_is_fine_and_a_foreign_key_is_found(place: Path, certificates: Certificates) -> None:
    good = certificates.server
    subject = configured(place, "tls:", f"  cert: {good.certificate}", f"  key: {good.key}")
    assert subject.settings is not None, subject.problem
    assert list(proofs.check_certificate(subject)) == []
    other = certificates.rsa_server
    mixed = configured(place, "tls:", f"  cert: {good.certificate}", f"  key: {other.key}")
    assert rules(proofs.check_certificate(mixed)) == [Rule.CERTIFICATE]


def test_a_certificate_about_to_run_out_is_found(
    place: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = certificates.server
    subject = configured(place, "tls:", f"  cert: {good.certificate}", f"  key: {good.key}")
    monkeypatch.setattr(proofs, "_SOON", proofs._SOON * 10_000)
    assert set(rules(proofs.check_certificate(subject))) == {Rule.CERTIFICATE_EXPIRES}


def test_a_stock_kms_is_looked_at_read_only(place: Path) -> None:
    store, secret = place / "kms.keystore", place / "secret"
    store.touch(0o644)
    secret.write_text("hadoop")
    secret.chmod(0o600)
    subject = stock(
        place,
        {
            "hadoop.kms.key.provider.uri": f"jceks://file@{store}",
            "hadoop.kms.authentication.signature.secret.file": str(secret),
        },
    )
    assert subject.stock is not None
    found: list[Finding] = []
    for check in (storage.check_key_store, proofs.check_secrets, proofs.check_transport, proofs.check_authentication):
        found += check(subject)
    assert {Rule.SECRET_WEAK, Rule.KEY_STORE, Rule.KMS_PLAIN_HTTP, Rule.SIMPLE_AUTHENTICATION} <= set(rules(found))
    assert sum(each.path == str(secret) for each in found) == 1


def test_a_keytab_is_judged_by_its_principals(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keytab = place / "kms.keytab"
    keytab.write_bytes(b"\x05\x02")
    keytab.chmod(0o644)
    subject = stock(
        place,
        {
            "hadoop.kms.authentication.type": "kerberos",
            "hadoop.kms.authentication.kerberos.keytab": str(keytab),
            "hadoop.kms.authentication.kerberos.principal": "HTTP/kms.example.com",
        },
    )
    messages = [each.message for each in proofs.check_keytab(subject)]
    assert len(messages) == 3
    assert "mode 0644" in messages[0]
    assert "no HTTP/ principal" in messages[1]
    assert "HTTP/kms.example.com is not in the keytab" in messages[2]


def test_the_command_says_of_each_check_what_came_of_it(place: Path) -> None:
    configured(place)
    done = CliRunner().invoke(doctor, ["--config", str(place / "kms.yaml"), "--json"])
    assert done.exit_code == 3  # simple authentication, at least
    answer = json.loads(done.output)
    assert [check["name"] for check in answer["checks"]] == [check.name for check in CHECKS]
    results = {check["name"]: check["result"] for check in answer["checks"]}
    assert (results["authentication"], results["configuration"], results["root_key"]) == ("found", "ok", "not_checked")
    assert "simple_authentication" in {finding["rule"] for finding in answer["findings"]}
    text = CliRunner().invoke(doctor, ["--config", str(place / "kms.yaml")]).output
    assert "ok    configuration" in text
    assert "!!    authentication" in text
    assert "--    keytab" in text


@pytest.mark.parametrize(("secret", "expected"), [("a" * 40, [Rule.SECRET_WEAK]), ("4f9c01b7e2d8a35612c0", [])])
def test_a_cookie_secret_of_our_own_kms_that_can_be_guessed_is_found(
    place: Path, secret: str, expected: list[Rule]
) -> None:
    file = place / "cookie.secret"
    file.write_text(secret)
    file.chmod(0o600)
    subject = configured(place, f"authentication: {{signature_secret_file: {file}}}")
    assert rules(proofs.check_secrets(subject)) == expected
