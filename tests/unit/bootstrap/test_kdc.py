"""The private realm, with a real KDC and MIT's own clients."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from kdc import Kdc

from ringfence_bootstrap.sandbox import kdc as kdc_module
from ringfence_bootstrap.sandbox.kdc import Realm
from ringfence_zones.errors import SandboxError


def klist(environ: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["klist", *options], env={**os.environ, **environ, "LC_ALL": "C"}, capture_output=True, text=True, check=False
    )


def kvno(environ: dict[str, str], service: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["kvno", service], env={**os.environ, **environ}, capture_output=True, text=True, check=False)


def test_a_keytab_gets_a_ticket_and_the_ticket_gets_one_for_a_service(kdc: Kdc) -> None:
    kdc.principal("HTTP/localhost")
    environ = kdc.kinit("kdc-alice")
    assert kvno(environ, "HTTP/localhost").returncode == 0
    assert "Default principal: kdc-alice@RINGFENCE.TEST" in klist(environ).stdout


def test_a_ticket_ends_after_its_lifetime(kdc: Kdc) -> None:
    environ = kdc.kinit("kdc-brief", lifetime_s=1)
    deadline = time.monotonic() + 20
    while klist(environ, "-s").returncode == 0:
        assert time.monotonic() < deadline, "the ticket of one second is still good"
        time.sleep(0.1)


def test_a_principal_bounds_the_life_of_its_tickets(kdc: Kdc) -> None:
    kdc.principal("kdc-two-minutes", max_life_s=120)
    environ = kdc.kinit("kdc-two-minutes", lifetime_s=3600)
    times = re.search(r"(\d\S+ \S+)  (\d\S+ \S+)  krbtgt/", klist(environ).stdout)
    assert times is not None
    begins, ends = (time.mktime(time.strptime(text, "%m/%d/%y %H:%M:%S")) for text in times.groups())
    assert 0 < ends - begins <= 120


def test_a_keytab_of_before_a_change_of_key_is_refused_and_a_later_one_is_not(kdc: Kdc, tmp_path: Path) -> None:
    stale = kdc.keytab("kdc-changed")
    kdc.realm.change_key("kdc-changed")
    with pytest.raises(SandboxError, match=r"Preauthentication failed|Password incorrect"):
        kdc.realm.kinit("kdc-changed", stale, tmp_path / "cache")
    kdc.realm.kinit("kdc-changed", kdc.keytab("kdc-changed"), tmp_path / "cache")


def test_a_second_keytab_leaves_the_first_good(kdc: Kdc, tmp_path: Path) -> None:
    first = kdc.keytab("kdc-twice")
    kdc.keytab("kdc-twice", "kdc-other")
    kdc.realm.kinit("kdc-twice", first, tmp_path / "cache")


def test_nothing_of_the_realm_is_readable_by_others(tmp_path: Path) -> None:
    realm = Realm(tmp_path / "realm", 1)
    realm.create()
    assert realm.directory.stat().st_mode & 0o077 == 0
    assert (realm.directory / "stash").stat().st_mode & 0o077 == 0


def test_missing_programs_are_named_with_the_command_that_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kdc_module, "_SYSTEM_PATH", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match="kdb5_util is not installed"):
        Realm(tmp_path / "realm", 1).create()
