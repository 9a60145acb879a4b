"""The layout that packaging relies on: the packages listed are the packages there, and nothing shadows a library."""

from __future__ import annotations

import configparser
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
COMPONENTS = {"zones": "ringfence_zones", "agent": "ringfence_agent", "bootstrap": "ringfence_bootstrap"}


def listed() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(CHECKOUT / "setup.cfg")
    return parser


def packages_on_disk() -> set[str]:
    return {
        ".".join(init.parent.relative_to(CHECKOUT / component).parts)
        for component, package in COMPONENTS.items()
        for init in (CHECKOUT / component / package).rglob("__init__.py")
    }


def test_setup_cfg_lists_exactly_the_packages_on_disk() -> None:
    assert set(listed()["options"]["packages"].split()) == packages_on_disk()


def test_every_folder_with_python_in_it_is_a_package() -> None:
    folders = {
        file.parent
        for component, package in COMPONENTS.items()
        for file in (CHECKOUT / component / package).rglob("*.py")
    }
    assert {folder for folder in folders if not (folder / "__init__.py").is_file()} == set()


def test_packaging_never_becomes_a_package_that_shadows_the_real_one() -> None:
    assert not list((CHECKOUT / "packaging").rglob("__init__.py"))


def test_a_component_root_holds_nothing_else_to_import() -> None:
    for component, package in COMPONENTS.items():
        importable = {path.name for path in (CHECKOUT / component).iterdir() if path.suffix == ".py"}
        folders = {path.parent.name for path in (CHECKOUT / component).glob("*/__init__.py")}
        assert (importable, folders) == (set(), {package})


def test_every_shipped_data_file_is_matched_by_package_data() -> None:
    patterns = {name: value.replace(",", " ").split() for name, value in listed()["options.package_data"].items()}
    for component, package in COMPONENTS.items():
        root = CHECKOUT / component / package
        for file in root.rglob("*"):
            if not file.is_file() or file.suffix in {".py", ".pyc"}:
                continue
            relative = file.relative_to(root)
            assert any(relative.match(pattern) for pattern in patterns[package]), f"{package}/{relative} is not shipped"
