"""The root command: fast, and useful when parts are missing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib.machinery import ModuleSpec

import click
import pytest

from ringfence_zones.cli import main as cli
from ringfence_zones.cli.main import SUMMARIES, main, root

HEAVY = ("pydantic", "rich", "yaml", "requests", "msgspec", "jpype", "sqlalchemy", "fastapi", "uvloop", "cryptography")


def test_help_imports_no_subcommand_and_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from ringfence_zones.cli.main import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as done:\n    assert not done.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
        "print([name for name in sys.modules if name.startswith(('ringfence_agent.', 'ringfence_bootstrap.'))])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-2:] == ["[]", "[]"]


def test_every_command_is_listed_with_the_help_it_gives_itself() -> None:
    context = click.Context(root)
    names = root.list_commands(context)
    assert set(names) == set(SUMMARIES)
    for name in names:
        command = root.get_command(context, name)
        assert command is not None
        assert (command.help or "").split("\n\n")[0].replace("\n", " ") == SUMMARIES[name].short_help, name


def _without(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == missing else real(name, package)

    monkeypatch.setattr(cli.importlib.util, "find_spec", find_spec)


def test_help_notes_which_extra_a_command_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _without(monkeypatch, "uvloop")
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    assert not done.value.code
    lines = " ".join(capsys.readouterr().out.split())
    assert "The Hadoop-compatible key server. (needs ringfence[kms])" in lines
    assert "Keys and who may use them. (needs ringfence[kms])" in lines
    assert lines.count("(needs ") == sum(summary.module == "uvloop" for summary in SUMMARIES.values())


def test_a_command_whose_extra_is_missing_says_which_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(_entry: object) -> object:
        raise ModuleNotFoundError("No module named 'uvloop'", name="uvloop")

    monkeypatch.setattr(cli.EntryPoint, "load", load)
    with pytest.raises(SystemExit) as done:
        main(["kms", "serve"])
    assert done.value.code == 2
    assert "pip install 'ringfence[kms]'" in capsys.readouterr().err


def test_a_broken_installation_is_not_called_a_missing_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(_entry: object) -> object:
        raise ModuleNotFoundError("No module named 'ringfence_agent.cli'", name="ringfence_agent.cli")

    monkeypatch.setattr(cli.EntryPoint, "load", load)
    with pytest.raises(SystemExit) as done:
        main(["kms", "serve"])
    assert done.value.code == 1
    assert "incomplete" in capsys.readouterr().err


def test_global_options_are_taken_before_and_after_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--json", "policy", "lint", "-f", "none"], ["policy", "lint", "-f", "none", "--json"]):
        with pytest.raises(SystemExit) as done:
            main(arguments)
        assert done.value.code == 2
        assert capsys.readouterr().err.startswith('{"error": ')
