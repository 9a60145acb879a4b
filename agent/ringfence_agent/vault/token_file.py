"""The token of Vault that the key server's processes share: a file that one of them writes and all of them read.

Rules:

1. It is a regular file of mode 0600 that belongs to the user this process runs as; anything else is not read. Whoever
   writes it replaces it in one step (`durable_file.replace_file`).
2. It is read again when it changed, which is looked for at most once a second, and when Vault takes a token no more.
3. A file that is gone means that nobody is logged in: what was read before is not used any longer.
4. The token is never logged and is in no error.

It refuses to write, to renew and to log in.
"""

from __future__ import annotations

import os
import re
import stat
import time
from pathlib import Path

from ringfence_zones.errors import ProtectorRefusedError, ProtectorUnavailableError
from ringfence_zones.secret import Secret

# Vault takes no longer one in a header.
_MAX_BYTES = 8 * 1024
_LOOK_EVERY_S = 1.0
_TOKEN = re.compile(rb"[\x21-\x7e]+")
_NO_FILE = ()


class TokenFile:
    """The token in `path`. On one thread; a read takes microseconds and is made on the event loop."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._token: Secret | None = None
        self._stamp: tuple[int, ...] = _NO_FILE
        self._written_at_s = 0.0
        self._looked_at_s = 0.0

    def __repr__(self) -> str:
        return f"<TokenFile {self.path}>"

    def current(self) -> Secret:
        """The token, read again if the file was found changed.

        Raises ProtectorUnavailableError when there is none, ProtectorRefusedError for a file that is not safe or holds
        something else.
        """
        now_s = time.monotonic()
        if self._token is not None and now_s - self._looked_at_s < _LOOK_EVERY_S:
            return self._token
        if self._token is None or self._look() != self._stamp:
            return self.read_again()
        self._looked_at_s = now_s
        return self._token

    def read_again(self) -> Secret:
        """The token as the file has it now. Raises like `current`."""
        self._token, self._stamp = None, _NO_FILE
        self._token, self._stamp = self._read()
        self._looked_at_s = time.monotonic()
        return self._token

    def written_s_ago(self) -> float:
        """How long ago the file with this token was written, by the clock on the wall."""
        return time.time() - self._written_at_s

    def _look(self) -> tuple[int, ...]:
        try:
            return _stamp(os.stat(self.path, follow_symlinks=False))  # noqa: PTH116 - as cheap as can be
        except OSError:
            return _NO_FILE

    def _read(self) -> tuple[Secret, tuple[int, ...]]:
        try:
            # Without O_NONBLOCK a pipe in its place would hold up the event loop.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ProtectorUnavailableError(
                f"nobody is logged in to Vault: there is no token file {self.path}",
                hint="run `ringfence vault login` as the key server's user; where somebody else keeps the token"
                " (vault.auth.method token_file), it is theirs to put there",
            ) from None
        except OSError as error:
            raise self._unsafe(f"cannot be read: {error.strerror}") from None
        try:
            found = os.fstat(descriptor)
            self._check(found)
            content = os.read(descriptor, _MAX_BYTES + 1)
        finally:
            os.close(descriptor)
        self._written_at_s = found.st_mtime
        token = content.removesuffix(b"\n")
        if len(content) > _MAX_BYTES or _TOKEN.fullmatch(token) is None:
            raise self._unsafe("does not hold a token of Vault")
        return Secret(token), _stamp(found)

    def _check(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise self._unsafe("is not a regular file")
        if found.st_uid != os.geteuid():
            raise self._unsafe(f"belongs to uid {found.st_uid}, but this process runs as uid {os.geteuid()}")
        mode = stat.S_IMODE(found.st_mode)
        if mode & 0o177:
            raise ProtectorRefusedError(
                f"the token file {self.path} has mode {mode:04o}: others than its owner can reach it",
                hint="revoke the token in it, make the file private, and log in again",
                command=f"chmod 600 {self.path}",
            )

    def _unsafe(self, why: str) -> ProtectorRefusedError:
        return ProtectorRefusedError(
            f"the token file {self.path} {why}",
            hint="remove it, and log in as the key server's user: `ringfence vault login` makes it",
        )


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
