"""Reads Hadoop's own `*-site.xml` files as `org.apache.hadoop.conf.Configuration` does.

Later files override earlier ones unless a property was marked final; `${name}` expands from the other properties
(never from the environment or from system properties: a configuration must mean the same to every process).
This module only reads; `hadoop_xml.py` edits. XInclude is refused by name rather than ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

from ringfence_zones.errors import ConfigError

_FIELDS = ("name", "value", "final")
MAX_FILE_BYTES = 8 * 1024 * 1024
_VARIABLE = re.compile(r"\$\{([^{}$\s]+)\}")
_MAX_EXPANSIONS = 20  # Configuration.MAX_SUBST
_JAVA_BLANKS = "".join(map(chr, range(0x21)))


class HadoopConf(Mapping[str, str]):
    """Properties by name, values expanded and stripped, as `Configuration.getTrimmed` returns them.

    `empty` are the names that the files write with `<value></value>` only: to Hadoop such a property is not set.
    """

    def __init__(self, properties: Mapping[str, str], empty: Iterable[str] = ()) -> None:
        self._raw = dict(properties)
        self.empty = frozenset(empty) - self._raw.keys()

    def __getitem__(self, name: str) -> str:
        return trim(self._expand(self._raw[name]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)

    def find_untrimmed(self, name: str) -> str | None:
        """A property as `Configuration.get` gives it: in an access list the leading blank has a meaning."""
        return self._expand(self._raw[name]) if name in self._raw else None

    def get_list(self, name: str) -> list[str]:
        """A comma-separated property as `getTrimmedStrings`: blanks stripped, empty items dropped."""
        return split_list(self.get(name, ""))

    def get_bool(self, name: str, default: bool) -> bool:
        """`true` or `false` in any case; anything else is the default, as in Hadoop."""
        value = self.get(name, "").lower()
        return value == "true" if value in ("true", "false") else default

    def get_int(self, name: str, default: int) -> int:
        """A decimal integer. Raises ConfigError naming the property when it is something else."""
        value = self.get(name, "")
        if not value:
            return default
        try:
            return int(value)
        except ValueError:
            raise ConfigError(f"{name} must be a whole number, not {value!r}") from None

    def _expand(self, value: str) -> str:
        for _ in range(_MAX_EXPANSIONS):
            match = _VARIABLE.search(value)
            if match is None or match[1] not in self._raw:
                return value
            value = value[: match.start()] + self._raw[match[1]] + value[match.end() :]
        return value


def trim(text: str) -> str:
    """`String.trim`: ASCII controls and blanks only, where Python's `strip` knows more kinds of blank."""
    return text.strip(_JAVA_BLANKS)


def split_list(value: str) -> list[str]:
    """The items of a comma-separated value: blanks stripped, empty items dropped."""
    return [item.strip() for item in value.split(",") if item.strip()]


def read_hadoop_conf(directory: Path, *file_names: str) -> HadoopConf:
    """The properties of the named files in `directory`, in that order; an absent file counts as empty.

    Raises ConfigError when the directory is missing or a file is unreadable, too large or not Hadoop's XML.
    """
    if not directory.is_dir():
        raise ConfigError(
            f"the Hadoop configuration directory {directory} does not exist",
            hint="give --hadoop-conf DIR or set HADOOP_CONF_DIR to the directory that holds core-site.xml",
        )
    properties: dict[str, str] = {}
    finals: set[str] = set()
    empty: set[str] = set()
    for file_name in file_names:
        path = directory / file_name
        if not path.exists():
            continue
        for name, value, final in _read_file(path):
            # Hadoop passes over an empty value: the property is not set, and an earlier one keeps its place.
            if value is None:
                empty.add(name)
            elif name not in finals:
                properties[name] = value
            if final:
                finals.add(name)
    return HadoopConf(properties, empty)


def find_default_fs(directory: Path) -> str | None:
    """`fs.defaultFS` of the configuration in `directory`; None when there is none to read."""
    try:
        return read_hadoop_conf(directory, "core-site.xml").get("fs.defaultFS") or None
    except ConfigError:
        return None


def _read_file(path: Path) -> Iterator[tuple[str, str | None, bool]]:
    try:
        with path.open("rb") as stream:
            text = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if len(text) > MAX_FILE_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_FILE_BYTES} bytes: not a Hadoop configuration file")
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise ConfigError(f"{path} declares a document type or entities, which Hadoop files do not need")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - no DTD or entity gets this far
    except ElementTree.ParseError as error:
        raise ConfigError(f"{path} is not well-formed XML: {error}") from error
    if root.tag != "configuration":
        raise ConfigError(f"{path}: the top element must be <configuration>, not <{root.tag}>")
    _check_places(path, root)
    for element in root:
        name = trim(_text(element, "name") or element.get("name") or "")
        if element.tag != "property" or not name:
            continue
        # Exactly so: Hadoop takes neither `TRUE` nor blanks around it.
        final = (_text(element, "final") or element.get("final")) == "true"
        # Only an attribute can say an empty value.
        yield name, _text(element, "value") or element.get("value"), final


def _text(element: ElementTree.Element, field: str) -> str:
    # The last that says something, as in Hadoop.
    return next((child.text for child in reversed(element.findall(field)) if child.text), "")


def _check_places(path: Path, root: ElementTree.Element) -> None:
    """Hadoop looks at names of elements, not at where they stand: nothing that counts may stand elsewhere."""
    properties = {id(element) for element in root}
    fields = {id(child) for element in root if element.tag == "property" for child in element}
    for element in root.iter():
        tag = element.tag
        if tag.endswith("include"):
            raise ConfigError(f"{path} uses XInclude, which is not supported: put the properties in the file")
        is_field = tag in _FIELDS
        misplaced = (tag == "property" and id(element) not in properties) or (is_field and id(element) not in fields)
        if misplaced or (is_field and len(element)):
            raise ConfigError(f"{path}: <{tag}> is nested in a way that Hadoop reads differently from how it looks")
