"""The list of reviewed skips is enforced, not only printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from allowed_skips import AllowedSkip, read_allowed_skips

SUPPORT = Path(__file__).parents[1] / "support"


def run_suite(directory: Path, source: str, allowed: str) -> subprocess.CompletedProcess[str]:
    """Pytest on one file, with the plugin reading a list of this test's own."""
    (directory / "test_it.py").write_text(source)
    (directory / "allowed.txt").write_text(allowed)
    (directory / "conftest.py").write_text(
        f"import sys; from pathlib import Path\nsys.path.insert(0, {str(SUPPORT)!r})\n"
        "import allowed_skips\nallowed_skips.LIST = Path(__file__).with_name('allowed.txt')\n"
        "pytest_plugins = ['allowed_skips']\n"
    )
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-c",
            "/dev/null",
            "--rootdir",
            directory,
            directory,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


SKIPPED = "import pytest\n@pytest.mark.skip(reason='x')\ndef test_a(): ...\ndef test_b(): ...\n"


def test_a_skip_outside_the_list_fails_the_run_and_is_named(tmp_path: Path) -> None:
    finished = run_suite(tmp_path, SKIPPED, "")
    assert finished.returncode == 1
    assert "skipped without an entry in tests/allowed_skips.txt: test_it.py::test_a" in finished.stdout


def test_a_listed_skip_passes_and_is_counted_with_its_reason(tmp_path: Path) -> None:
    finished = run_suite(tmp_path, SKIPPED, "test_it.py::test_a -- no such machine here\n")
    assert finished.returncode == 0, finished.stdout
    assert "1 on the list, 1 tests skipped in this run" in finished.stdout
    assert "1 x test_it.py::test_a -- no such machine here" in finished.stdout


@pytest.mark.parametrize(
    "source",
    [
        "import pytest\n@pytest.mark.xfail\ndef test_a(): assert False\n",
        "import pytest\ndef test_a(): pytest.skip('at run time')\n",
        "import pytest\npytest.skip('whole module', allow_module_level=True)\n",
    ],
)
def test_every_way_to_skip_is_seen(tmp_path: Path, source: str) -> None:
    assert run_suite(tmp_path, source + "\n", "").returncode in (1, 5)
    assert "skipped without an entry" in run_suite(tmp_path, source, "").stdout


def test_an_entry_without_a_reason_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "allowed.txt"
    path.write_text("test_it.py::test_a\n")
    with pytest.raises(ValueError, match=r"allowed\.txt:1 gives no reason"):
        read_allowed_skips(path)


def test_brackets_of_a_parametrised_test_are_plain_characters() -> None:
    assert AllowedSkip("t.py::test_a[1-*]", "why").covers("t.py::test_a[1-x]")
    assert not AllowedSkip("t.py::test_a[12]", "why").covers("t.py::test_a1")
