"""Cluster documents for tests: a directory with the files of tests/vectors/emr_launch, and a document to change."""

from __future__ import annotations

import copy
import functools
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from ringfence_bootstrap.launch.reading import Launch, read_launch
from ringfence_zones.errors import DocumentError
from ringfence_zones.findings import Finding, Severity

CHECKOUT = Path(__file__).parents[2]
VECTORS = CHECKOUT / "tests" / "vectors" / "emr_launch"
EVERY_FIELD = CHECKOUT / "packaging" / "docs" / "emr-cluster.yaml"

Place: TypeAlias = tuple[str | int, ...]


# Hundreds of documents are written: the parser in C where there is one.
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@functools.cache
def _read(source: Path) -> Any:
    return yaml.safe_load(source.read_text())


class Site:
    """A directory with a document and the files it names. `document` is `small` or `every-field`."""

    def __init__(self, directory: Path, document: str = "small") -> None:
        self.directory = directory
        for file in VECTORS.iterdir():
            if file.suffix in (".yaml", ".json"):
                shutil.copy(file, directory)
        source = EVERY_FIELD if document == "every-field" else VECTORS / "cluster.yaml"
        self.cluster = directory / "cluster.yaml"
        self.cluster.write_text(source.read_text())
        self.data: dict[str, Any] = copy.deepcopy(_read(source))

    def set(self, value: Any, *place: str | int) -> Site:
        """Gives the value at a place."""
        inner: Any = self.data
        for part in place[:-1]:
            inner = inner[part] if isinstance(part, int) else inner.setdefault(part, {})
        inner[place[-1]] = value
        return self._write()

    def drop(self, *place: str | int) -> Site:
        """Takes it away."""
        inner: Any = self.data
        for part in place[:-1]:
            inner = inner[part]
        del inner[place[-1]]
        return self._write()

    def file(self, name: str, content: str) -> Site:
        """Another content of a file beside the document."""
        (self.directory / name).write_text(content)
        return self

    def read(self) -> Launch:
        """What is launched."""
        return read_launch(self.cluster)

    def findings(self) -> list[Finding]:
        """Everything that is found, whether it is refused or not."""
        try:
            return list(self.read().warnings)
        except DocumentError as error:
            return list(error.findings)

    def errors(self) -> list[Finding]:
        """What it is refused for."""
        return [finding for finding in self.findings() if finding.severity is Severity.ERROR]

    def line_of(self, text: str) -> int:
        """The line that holds a text first."""
        lines = self.cluster.read_text().splitlines()
        return next(number for number, line in enumerate(lines, 1) if text in line)

    def _write(self) -> Site:
        self.cluster.write_text(yaml.dump(self.data, Dumper=_Dumper, sort_keys=False))
        return self


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Every place of a document, containers included, itself not."""
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in pairs:
        yield (*place, name)
        yield from places(inner, (*place, name))


def value_at(document: Any, place: Place) -> Any:
    """What stands there."""
    for part in place:
        document = document[part]
    return document
