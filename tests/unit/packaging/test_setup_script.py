"""packaging/scripts/setup on machines that lack things, with recording stand-ins for their package managers.

The branch for Amazon Linux 2023 is tested only this way; the one for Debian also by a real fresh machine
(packaging/scripts/fresh-machine-test).
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]
TOOLS = ("bash", "cat", "cut", "dirname", "grep", "readlink", "sha256sum", "tr")
DEBIAN_SERVERS = (
    "krb5-kdc krb5-admin-server krb5-user postgresql mariadb-server systemd iproute2 chromium chromium-driver"
)
AMAZON_SERVERS = "krb5-server krb5-workstation postgresql15-server mariadb1011-server"
RECORDS = '#!/bin/sh\necho "$(basename "$0") $*" >>"$(dirname "$0")/calls"\n'


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A directory for PATH with the basic tools and nothing that setup looks for."""
    path = tmp_path / "bin"
    path.mkdir()
    for tool in (*TOOLS, "basename"):
        (path / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
    return path


def add(machine: Path, name: str, script: str = RECORDS) -> None:
    (machine / name).write_text(script)
    (machine / name).chmod(0o755)


def add_user(machine: Path, uid: int) -> None:
    add(machine, "id", f"#!/bin/sh\necho {uid}\n")


def run_setup(machine: Path) -> subprocess.CompletedProcess[str]:
    scripts = machine.parent / "checkout/packaging/scripts"
    scripts.mkdir(parents=True)
    shutil.copy(CHECKOUT / "packaging/scripts/setup", scripts)
    return subprocess.run(
        [scripts / "setup"],
        env={"PATH": str(machine), "JAVA_HOME": str(java_home(machine))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def java_home(machine: Path) -> Path:
    home = machine.parent / "java"
    (home / "bin").mkdir(parents=True)
    (home / "release").write_text('JAVA_VERSION="17.0.1"\n')
    add(home / "bin", "java")
    return home


def test_amazon_linux_gets_its_own_package_names_through_dnf(machine: Path) -> None:
    add(machine, "dnf")
    add_user(machine, 0)
    finished = run_setup(machine)
    assert (
        machine / "calls"
    ).read_text() == f"dnf install --assumeyes --quiet python3.11 python3.11-pip maven {AMAZON_SERVERS}\n"
    assert "setup: a Python of at least 3.11" in finished.stderr, "dnf is a stand-in, so Python is still missing"
    assert finished.returncode == 1


def test_debian_gets_its_packages_through_apt_after_one_update(machine: Path) -> None:
    add(machine, "apt-get")
    add(machine, "apt-cache", "#!/bin/sh\nexit 0\n")
    add_user(machine, 0)
    run_setup(machine)
    assert (machine / "calls").read_text().splitlines() == [
        "apt-get update -qq",
        f"apt-get install --yes --no-install-recommends -qq python3-venv maven {DEBIAN_SERVERS}",
    ]


def test_debian_starts_no_packaged_server_and_may_again_afterwards(machine: Path) -> None:
    add(machine, "apt-get", '#!/bin/sh\n"$(dirname "$0")/policy-rc.d"\necho "$1 $?" >>"$(dirname "$0")/calls"\n')
    add(machine, "apt-cache", "#!/bin/sh\nexit 0\n")
    for tool in ("chmod", "rm"):
        (machine / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
    add(machine, "invoke-rc.d")
    add_user(machine, 0)
    run_setup(machine)
    assert (machine / "calls").read_text().splitlines() == ["update 127", "install 101"]
    assert not (machine / "policy-rc.d").exists()


@pytest.mark.parametrize(
    ("manager", "line"),
    [
        ("apt-get", f"run: sudo apt-get install --yes --no-install-recommends python3-venv maven {DEBIAN_SERVERS}"),
        ("dnf", f"run: sudo dnf install --assumeyes python3.11 python3.11-pip maven {AMAZON_SERVERS}"),
    ],
)
def test_without_root_the_exact_line_is_printed_and_nothing_is_run(machine: Path, manager: str, line: str) -> None:
    add(machine, manager)
    add(machine, "apt-cache", "#!/bin/sh\nexit 0\n")
    add_user(machine, 1000)
    finished = run_setup(machine)
    assert finished.returncode == 1
    assert line in finished.stderr
    assert not (machine / "calls").exists()


def test_a_system_without_a_known_package_manager_is_told_what_is_missing(machine: Path) -> None:
    add_user(machine, 0)
    finished = run_setup(machine)
    assert finished.returncode == 1
    assert "a Python of at least 3.11 with its venv module is needed" in finished.stderr


def test_a_system_whose_packages_hold_no_browser_is_set_up_without_one(machine: Path) -> None:
    add(machine, "apt-get")
    add(machine, "apt-cache", '#!/bin/sh\n[ "$2" != chromium-driver ]\n')
    add_user(machine, 0)
    run_setup(machine)
    assert "chromium" not in (machine / "calls").read_text()
    assert "mariadb-server" in (machine / "calls").read_text()


def test_a_browser_of_another_origin_is_good_enough(machine: Path) -> None:
    add(machine, "apt-get")
    add(machine, "apt-cache", "#!/bin/sh\nexit 0\n")
    add(machine, "chromedriver")
    add(machine, "google-chrome")
    add_user(machine, 0)
    run_setup(machine)
    assert "chromium" not in (machine / "calls").read_text()
