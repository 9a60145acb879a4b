"""Finding secrets where they must not be, in every spelling that a leak would have.

A scan is only worth what it can find: each test plants a secret in the same kind of place and sees that it is found.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

# A shorter piece could stand anywhere by chance.
_SHORTEST = 8
_CHUNK = 1 << 24


def spellings(secret: bytes) -> set[bytes]:
    """The secret as a log, a JSON document, a URL, a `repr`, a core file or another encoding would show it."""
    assert len(secret) >= _SHORTEST, "too short to be looked for"
    hexadecimal = binascii.hexlify(secret)
    found = {secret, hexadecimal, hexadecimal.upper(), repr(secret)[2:-1].encode(), quote(secret).encode()}
    text = secret.decode("latin-1")
    found |= {json.dumps(text)[1:-1].encode(), json.dumps(text, ensure_ascii=False)[1:-1].encode()}
    for offset in range(3):
        # Base64 of something longer that holds the secret: at one of three alignments, without its ragged ends.
        encoded = base64.b64encode(bytes(offset) + secret)
        inner = encoded[(0, 2, 3)[offset] : -4 if len(encoded) > 16 else None]
        found |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_"), quote(inner, safe="").encode()}
        found.add(inner.replace(b"/", b"\\/"))
    return found


@dataclass
class Canaries:
    """Secrets by name. Whoever finds one is told its name, never the secret."""

    _spellings: dict[str, set[bytes]] = field(default_factory=dict)

    def add(self, name: str, secret: bytes | str) -> None:
        secret = secret.encode() if isinstance(secret, str) else secret
        self._spellings[name] = spellings(secret)

    def add_base64(self, name: str, text: str) -> bytes:
        """What a JSON answer of the KMS carries; the bytes."""
        secret = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        self.add(name, secret)
        return secret

    @property
    def names(self) -> list[str]:
        return sorted(self._spellings)

    def only(self, *prefixes: str) -> Canaries:
        """Those whose names begin so."""
        return Canaries({name: found for name, found in self._spellings.items() if name.startswith(prefixes)})

    def find(self, data: bytes) -> set[str]:
        """The names of those that are in the data."""
        return {name for name, found in self._spellings.items() if any(spelling in data for spelling in found)}

    def find_in_file(self, path: Path) -> set[str]:
        """As `find`; a large file piece by piece, each overlapping the last."""
        overlap = max(len(each) for found in self._spellings.values() for each in found)
        names: set[str] = set()
        with path.open("rb") as stream:
            tail = b""
            while data := stream.read(_CHUNK):
                names |= self.find(tail + data)
                tail = data[-overlap:]
        return names

    def find_in_tree(self, root: Path, leave_out: Iterable[Path] = ()) -> dict[str, set[str]]:
        """By path, what was found in files and in their names; `leave_out` are the places that hold secrets."""
        kept = set(leave_out)
        found = {}
        for path in files_below(root):
            if path not in kept:
                names = self.find_in_file(path) | self.find(str(path).encode())
                if names:
                    found[str(path.relative_to(root))] = names
        return found

    def find_in_processes(self, pids: Iterable[int]) -> dict[str, set[str]]:
        """In the arguments and environments of processes, as far as we may read them."""
        found = {}
        for pid in pids:
            for kind in ("cmdline", "environ"):
                try:
                    data = Path(f"/proc/{pid}/{kind}").read_bytes()
                except PermissionError:
                    continue  # the kernel shows it to nobody but root, which is as good
                if names := self.find(data):
                    found[f"{pid}/{kind}"] = names
        return found

    def find_in_texts(self, texts: Mapping[str, str | bytes]) -> dict[str, set[str]]:
        """By name of the text."""
        encoded = {name: text.encode() if isinstance(text, str) else text for name, text in texts.items()}
        return {name: names for name, text in encoded.items() if (names := self.find(text))}


def files_below(root: Path) -> Iterator[Path]:
    return (path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink())


def process_tree(pid: int) -> list[int]:
    """A process and all that it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in process_tree(int(child)))]
