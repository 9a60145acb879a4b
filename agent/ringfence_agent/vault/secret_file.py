"""Reads what a login needs from a file: a secret id, a wrapping token, a JWT, an administrator's token.

The file is a regular one, no link, of the user this process runs as or of root, and nobody else's to read. It holds one
line of printable characters. What it holds is in no error.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from ringfence_zones.errors import ConfigError
from ringfence_zones.secret import Secret

# A JWT with many claims; Vault's own are far shorter.
_MAX_BYTES = 16 * 1024
_LINE = re.compile(rb"[\x21-\x7e]+")


def read_secret_file(path: Path, what: str) -> Secret:
    """The line; `what` is how messages call it (`secret id`). Raises ConfigError naming the file and the fix."""
    try:
        # Without O_NONBLOCK a pipe in its place would hold us up for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(
            f"the file of the {what}, {path}, cannot be opened: {error.strerror}",
            hint="name a regular file that belongs to this user or to root, not a link",
        ) from None
    with os.fdopen(descriptor, "rb") as stream:
        _check(os.fstat(descriptor), path, what)
        content = stream.read(_MAX_BYTES + 1)
    line = content.strip()
    if len(content) > _MAX_BYTES or _LINE.fullmatch(line) is None:
        raise ConfigError(f"the file of the {what}, {path}, does not hold one line of printable characters")
    return Secret(line)


def read_public_file(path: Path, what: str) -> str:
    """As `read_secret_file`, for what may be known (a role id): whoever owns the file."""
    try:
        # See above. A pipe that nobody writes to is empty then.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            content = stream.read(_MAX_BYTES + 1) or b""
    except OSError as error:
        raise ConfigError(f"the file of the {what}, {path}, cannot be read: {error.strerror}") from None
    line = content.strip()
    if len(content) > _MAX_BYTES or _LINE.fullmatch(line) is None:
        raise ConfigError(f"the file of the {what}, {path}, does not hold one line of printable characters")
    return line.decode()


def _check(found: os.stat_result, path: Path, what: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{path} is not a regular file", hint=f"name the file of the {what} itself")
    if found.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"the file of the {what}, {path}, belongs to uid {found.st_uid}, and this process runs as {os.geteuid()}"
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise ConfigError(
            f"the file of the {what}, {path}, can be reached by others than its owner",
            hint="make it private; if others could have read it, get another",
            command=f"chmod 600 {path}",
        )
