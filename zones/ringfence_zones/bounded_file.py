"""Files of which nobody knows who made them, read whole and never further than such a file can reach."""

from __future__ import annotations

from pathlib import Path

from ringfence_zones.errors import RingfenceError


def read_bounded(
    path: Path, most_bytes: int, refuse: type[RingfenceError], *, what: str | None = None, kind: str | None = None
) -> bytes:
    """The bytes of a file. Raises `refuse` when it cannot be read, or holds more than `most_bytes`.

    `what` is what a message calls it before its path (`the key store`), `kind` what a larger file cannot be (`a PEM
    file`).
    """
    named = f"{what} {path}" if what is not None else f"{path}"
    try:
        with path.open("rb") as stream:
            content = stream.read(most_bytes + 1)
    except OSError as error:
        raise refuse(f"cannot read {named}: {error.strerror}") from error
    if len(content) > most_bytes:
        not_that = f": not {kind}" if kind is not None else ""
        raise refuse(f"{named} is larger than {most_bytes} bytes{not_that}")
    return content
