"""Asking a real KDC for a ticket with a keytab's key."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from pathlib import Path

import pytest
from acl_files import SOUND, write_acls
from kdc import Kdc

from ringfence_agent.doctor import kdc as kdc_check
from ringfence_agent.doctor.kdc import check_kdc
from ringfence_agent.doctor.krb5_library import ask_kdc
from ringfence_agent.doctor.subject import Subject, find_subject
from ringfence_zones.findings import Rule, Severity
from ringfence_zones.hadoop_conf import HadoopConf


@pytest.fixture
def subject(kdc: Kdc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """A stock KMS whose keytab holds the key of HTTP/localhost."""
    monkeypatch.setenv("KRB5_CONFIG", kdc.environment["KRB5_CONFIG"])
    shutil.copy(kdc.keytab("HTTP/localhost"), tmp_path / "http.keytab")
    write_acls(
        tmp_path,
        SOUND,
        {
            "hadoop.kms.authentication.type": "kerberos",
            "hadoop.kms.authentication.kerberos.keytab": str(tmp_path / "http.keytab"),
            "hadoop.kms.authentication.kerberos.principal": "HTTP/localhost",
        },
    )
    return find_subject(None, tmp_path, named=True)


def test_a_kdc_that_knows_the_key_and_the_time_is_fine(kdc: Kdc, subject: Subject, tmp_path: Path) -> None:
    assert abs(ask_kdc(tmp_path / "http.keytab", f"HTTP/localhost@{kdc.realm.name}")) <= 2
    assert not list(check_kdc(subject))


def test_a_key_that_the_kdc_no_longer_has_is_found(kdc: Kdc, subject: Subject, tmp_path: Path) -> None:
    shutil.copy(kdc.keytab("HTTP/rekeyed"), tmp_path / "http.keytab")
    kdc.realm.change_key("HTTP/rekeyed")
    for principal, why in (("HTTP/rekeyed", "HTTP/rekeyed@"), ("HTTP/absent", "HTTP/absent@")):
        assert subject.stock is not None
        changed = {**subject.stock, "hadoop.kms.authentication.kerberos.principal": principal}
        (found,) = check_kdc(dataclasses.replace(subject, stock=HadoopConf(changed)))
        assert (found.rule, found.severity) == (Rule.KDC, Severity.ERROR)
        assert f"no ticket for {why}" in found.message
        assert "kinit -k -t" in (found.command or "")


def test_a_kdc_that_does_not_answer_is_not_waited_for_longer_than_bearable(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    monkeypatch.setattr(kdc_check, "_PATIENCE_S", 0.05)
    monkeypatch.setattr(kdc_check, "ask_kdc", lambda *_: over.wait(30) and 0)
    (found,) = check_kdc(subject)
    over.set()
    assert "no answer within" in found.message


def test_a_kdc_that_is_not_there_is_found(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = tmp_path / "krb5.conf"
    conf.write_text(
        "[libdefaults]\ndefault_realm = NOWHERE.TEST\ndns_lookup_kdc = false\n"
        "[realms]\nNOWHERE.TEST = {\nkdc = 127.0.0.1:1\n}\n"
    )
    monkeypatch.setenv("KRB5_CONFIG", str(conf))
    (found,) = check_kdc(subject)
    assert "no ticket for HTTP/localhost@NOWHERE.TEST" in found.message


def test_a_clock_that_is_off_is_found_before_kerberos_refuses_it(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    for ahead_s, severities in ((20, []), (-90, [Severity.WARN]), (400, [Severity.ERROR])):
        monkeypatch.setattr(kdc_check, "ask_kdc", lambda *_, ahead_s=ahead_s: ahead_s)
        found = list(check_kdc(subject))
        assert [(each.rule, each.severity) for each in found] == [(Rule.KDC, severity) for severity in severities]
        assert all(f"{abs(ahead_s)} s {'behind' if ahead_s > 0 else 'ahead of'}" in each.message for each in found)
