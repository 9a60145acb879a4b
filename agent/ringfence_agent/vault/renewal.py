"""Keeps the key server logged in to Vault: renews its token in time, and logs in again when there is none that is good.

One turn (`TokenKeeper.turn`) looks at the token and does what is due; it says when the next one is. A thread takes the
turns in a server; a test takes them by hand.

Rules:

1. Renewed at half of its life, with ±10 % of chance so that a fleet does not renew in step.
2. A token whose life does not start anew (it nears `explicit_max_ttl`, or cannot be renewed) is replaced by a login
   before its last tenth, when a login can be repeated without a human; else a human is told in good time.
3. One process at a time logs in: under a lock beside the token file, and only when the file still holds the token that
   was found dead. Others find the new one there.
4. A refused login is not repeated blindly, for five attempts with a wrong secret id lock a role out: a lockout is
   waited out for 15 minutes, and anything else for as long, unless what the login shows changes on disk. Methods that
   know no lockout try again each minute.
5. A Vault that does not answer, or is sealed, costs no token: the token is good again when Vault is.

It keeps no token of a Vault Agent, and logs in for no token that somebody else keeps, but it renews that.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ringfence_agent.vault.control import VaultControl
from ringfence_agent.vault.login import LOCKED_OUT, NEEDS_HUMAN, VaultLogin, sole_login, write_token
from ringfence_agent.vault.refusal import VaultRefusedError
from ringfence_agent.vault.settings import VaultSettings
from ringfence_agent.vault.token_file import TokenFile
from ringfence_agent.vault.tokens import Login, TokenState
from ringfence_zones.errors import ProtectorRefusedError, ProtectorUnavailableError, RingfenceError
from ringfence_zones.secret import Secret

_log = logging.getLogger(__name__)

_JITTER = 0.1
# A token that was revoked is found out after no longer than that.
_LOOK_EVERY_S = 60.0
_SHORTEST_S = 1.0
_LOCKOUT_S = 15 * 60.0
_FIRST_BACKOFF_S, _MAX_BACKOFF_S = 1.0, 60.0
# Of the life of a token: renewed below the first, replaced below the second.
_RENEW_BELOW, _REPLACE_BELOW = 0.5, 0.1


@dataclass(frozen=True, slots=True)
class KeeperState:
    """What came of a turn. `problem` is None while all is well; `needs_human` when only a person can help.

    `ttl_s` is None without a token that is good, and for one that never ends.
    """

    logged_in: bool
    ttl_s: int | None = None
    problem: str | None = None
    needs_human: bool = False


class TokenKeeper:
    """Keeps the token file of one key server. See the module."""

    def __init__(
        self,
        settings: VaultSettings,
        login: VaultLogin | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`clock` gives seconds, `jitter` numbers from 0 to 1. Connects to nothing yet."""
        self._settings = settings
        self._file = TokenFile(settings.token_file)
        self._control = VaultControl(settings, self._file)
        self._login = login or VaultLogin(settings)
        self._clock = clock
        self._jitter = jitter
        self._renew_below = self._drawn()
        self._failures = 0
        # The last login that was refused, until when it stands, and what was shown then.
        self._refusal: ProtectorRefusedError | None = None
        self._stands_until_s = 0.0
        self._shown: tuple[tuple[int, ...], ...] = ()
        self._wake = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None
        self.state = KeeperState(logged_in=False)

    def turn(self) -> float:
        """Does what is due; seconds until the next turn. Raises nothing: what went wrong is in `state` and the log."""
        try:
            wait_s = self._do_what_is_due()
        except RingfenceError as error:
            wait_s = self._after_failure(error)
        else:
            self._failures = 0
        return max(_SHORTEST_S, min(wait_s, _LOOK_EVERY_S))

    # In a server

    def start(self) -> None:
        """Takes turns in a thread of its own, the first at once."""
        self._thread = threading.Thread(target=self._run, name="vault-token", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Vault refused the token: the next turn is now."""
        self._wake.set()

    def stop(self) -> None:
        """Ends the thread. The token stays good for the next start."""
        self._stopped = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self._control.close()
        self._login.close()

    def _run(self) -> None:
        while not self._stopped:
            try:
                wait_s = self.turn()
            except Exception as error:  # noqa: BLE001 - without this thread the key server is logged out within the hour
                # Its class alone: what it says was written for nobody.
                _log.critical("a turn at the token of Vault failed: %s", type(error).__name__)
                wait_s = _LOOK_EVERY_S
            self._wake.wait(wait_s)
            self._wake.clear()

    # One turn

    def _do_what_is_due(self) -> float:
        token = self._find_token()
        state = self._control.tokens.find_self() if token is not None else None
        if state is None:
            return self._replace(token)
        if not state.expires:
            self.state = KeeperState(logged_in=True)
            return _LOOK_EVERY_S
        life_s = state.period_s or state.creation_ttl_s
        if state.ttl_s > life_s * self._renew_below:
            self.state = KeeperState(logged_in=True, ttl_s=state.ttl_s)
            return state.ttl_s - life_s * self._renew_below
        return self._renew(token, state, life_s)

    def _renew(self, token: Secret | None, state: TokenState, life_s: int) -> float:
        try:
            ttl_s = self._control.tokens.renew_self().lease_s
        except VaultRefusedError:
            ttl_s = state.ttl_s  # it cannot be renewed, or not any more
        if ttl_s > life_s * self._renew_below:
            _log.info("renewed the token of Vault (accessor %s) for %d s", state.accessor, ttl_s)
            self._renew_below = self._drawn()
            self.state = KeeperState(logged_in=True, ttl_s=ttl_s)
            return ttl_s - life_s * self._renew_below
        by_itself = self._logs_in and self._login.is_repeatable
        if by_itself and ttl_s <= life_s * _REPLACE_BELOW:
            return self._replace(token)
        self.state = KeeperState(
            logged_in=True,
            ttl_s=ttl_s,
            problem=None if by_itself else self._tell_of_the_end(state, ttl_s),
            needs_human=not by_itself,
        )
        return max(ttl_s - life_s * _REPLACE_BELOW, ttl_s / 4)

    def _replace(self, dead: Secret | None) -> float:
        """Logs in, unless another process did meanwhile."""
        if not self._logs_in:
            raise ProtectorRefusedError(
                f"there is no good token of Vault in {self._settings.token_file}, which somebody else keeps",
                hint="put a token there, mode 0600, of the key server's user",
                reason=NEEDS_HUMAN,
            )
        with sole_login(self._settings.token_file):
            found = self._find_token()
            if found is not None and found != dead and self._control.tokens.find_self() is not None:
                return _SHORTEST_S  # another process was first; the next turn looks at what it got
            login = self._log_in()
            write_token(self._settings.token_file, login.token)
        _log.info("logged in to Vault (accessor %s) for %d s", login.accessor, login.lease_s)
        self._renew_below = self._drawn()
        self.state = KeeperState(logged_in=True, ttl_s=login.lease_s or None)
        return login.lease_s * (1 - self._renew_below) if login.lease_s else _LOOK_EVERY_S

    def _log_in(self) -> Login:
        """Raises the last refusal again while nothing can have changed."""
        shown = self._stamp()
        if self._refusal is not None and self._stands(self._refusal, shown):
            raise self._refusal.with_traceback(None)
        try:
            login = self._login.log_in()
        except ProtectorRefusedError as error:
            self._refusal, self._shown = error, shown
            stands_s = _LOCKOUT_S if self._settings.auth.method == "approle" else _LOOK_EVERY_S
            self._stands_until_s = self._clock() + stands_s * (1 + _JITTER * self._jitter())
            raise
        self._refusal = None
        return login

    def _stands(self, refusal: ProtectorRefusedError, shown: tuple[tuple[int, ...], ...]) -> bool:
        """Whether the same would come of showing `shown` now."""
        return self._clock() < self._stands_until_s and (refusal.reason == LOCKED_OUT or shown == self._shown)

    def _after_failure(self, error: RingfenceError) -> float:
        reason = error.reason if isinstance(error, ProtectorRefusedError | ProtectorUnavailableError) else None
        is_away = isinstance(error, ProtectorUnavailableError)
        if error.message != self.state.problem:
            level = logging.WARNING if is_away else logging.CRITICAL
            _log.log(level, "the token of Vault: %s%s", error.message, f" ({error.hint})" if error.hint else "")
        self.state = KeeperState(
            # A Vault that is away takes the token again when it is back.
            logged_in=is_away and self.state.logged_in,
            problem=error.message,
            needs_human=not is_away and reason != LOCKED_OUT,
        )
        if not is_away:
            return _LOOK_EVERY_S
        self._failures += 1
        return self._jitter() * min(_FIRST_BACKOFF_S * 2.0**self._failures, _MAX_BACKOFF_S)

    def _tell_of_the_end(self, state: TokenState, ttl_s: int) -> str:
        problem = "the token of Vault cannot be renewed any more: a person must log the key server in before it ends"
        if self.state.problem != problem:
            _log.critical("%s, in %d s (accessor %s)", problem, ttl_s, state.accessor)
        return problem

    # Bits

    @property
    def _logs_in(self) -> bool:
        return self._settings.auth.method in ("approle", "aws_iam", "jwt")

    def _drawn(self) -> float:
        """Half of a life, give or take."""
        return _RENEW_BELOW * (1 + _JITTER * (2 * self._jitter() - 1))

    def _find_token(self) -> Secret | None:
        try:
            return self._file.read_again()
        except ProtectorUnavailableError:
            return None

    def _stamp(self) -> tuple[tuple[int, ...], ...]:
        """Changes when what a login shows does."""
        auth = self._settings.auth
        return tuple(
            _file_stamp(path)
            for path in (auth.role_id_file, auth.wrapped_secret_id_file, auth.secret_id_file, auth.jwt_file)
            if path is not None
        )


def _file_stamp(path: Path) -> tuple[int, ...]:
    with suppress(OSError):
        found = path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns
    return ()
