"""Logging in to Vault, by each method that kms.yaml can name, and putting the token where the processes share it.

Rules:

1. A wrapped secret id is looked at before it is opened: it must have been made by Vault itself for our role. One that
   is somebody's own wrapping, or was opened and not by us, is an alarm: somebody may be logged in in our place.
2. It opens once. What came out of it is kept in memory until the login has succeeded, so that a Vault that is away for
   a moment does not cost a human's errand; afterwards it is dropped.
3. A login that Vault refuses says why it cannot be repeated blindly: with a wrong secret id, five attempts lock the
   role out for 15 minutes where that is not switched off, and then the right one is refused too.
4. No error, log or `repr` holds a token, a secret id, a JWT or a signature.

A token that somebody else keeps (`token_file`) or adds (`agent`) is never logged in for here.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ringfence_agent.vault.aws_login import sign_caller_identity
from ringfence_agent.vault.control import FixedToken, VaultControl
from ringfence_agent.vault.refusal import Reason, VaultRefusedError
from ringfence_agent.vault.secret_file import read_public_file, read_secret_file
from ringfence_agent.vault.settings import VaultSettings
from ringfence_agent.vault.tokens import DEFAULT_POLICY, ROOT_POLICY, Login
from ringfence_zones.durable_file import replace_file
from ringfence_zones.errors import ConfigError, ProtectorRefusedError
from ringfence_zones.secret import Secret

_log = logging.getLogger(__name__)

# Words of `ProtectorRefusedError.reason`: only a person can help; so it is, and somebody interfered; only time can.
NEEDS_HUMAN = "needs_human"
TAMPERING = "tampering"
LOCKED_OUT = "locked_out"
_ISSUE = "`ringfence vault setup --token-file FILE --issue DIR`, with an administrator's token"
_DIRECTORY_HINT = "the directory of vault.token_file must be there, and belong to the key server's user"


class VaultLogin:
    """Logs in as kms.yaml says. `control` has no token of its own. On one thread."""

    def __init__(self, settings: VaultSettings, control: VaultControl | None = None) -> None:
        self._settings = settings
        self._control = control or VaultControl(settings, FixedToken())
        self._unwrapped: Secret | None = None

    def close(self) -> None:
        """Closes the connections."""
        self._control.close()

    @property
    def is_repeatable(self) -> bool:
        """Whether it can log in again by itself, with what is on this machine."""
        auth = self._settings.auth
        return auth.method in ("aws_iam", "jwt") or (auth.method == "approle" and auth.wrapped_secret_id_file is None)

    def log_in(self) -> Login:
        """A new token.

        Raises ProtectorRefusedError with reason NEEDS_HUMAN, TAMPERING or LOCKED_OUT, ProtectorUnavailableError, and
        ConfigError for files that are not as they must be.
        """
        method = self._methods().get(self._settings.auth.method)
        if method is None:
            raise ConfigError(
                f"vault.auth.method is {self._settings.auth.method}: somebody else logs in",
                hint="see who keeps the token there: an Agent, or whoever writes vault.token_file",
            )
        try:
            login = method()
        except VaultRefusedError as error:
            problem = self._problem(error)
        else:
            self._unwrapped = None
            _warn_of_powers(login)
            return login
        raise problem

    def _methods(self) -> dict[str, Callable[[], Login]]:
        return {"approle": self._by_approle, "aws_iam": self._by_aws_iam, "jwt": self._by_jwt}

    def _by_approle(self) -> Login:
        auth = self._settings.auth
        assert auth.role_id_file is not None, "the block's validator asks for it"
        role_id = read_public_file(auth.role_id_file, "role id")
        if auth.secret_id_file is not None:
            secret_id = read_secret_file(auth.secret_id_file, "secret id")
        else:
            assert auth.wrapped_secret_id_file is not None, "the block's validator asks for one of them"
            if self._unwrapped is None:
                self._unwrapped = self._open_wrapped(auth.wrapped_secret_id_file)
            secret_id = self._unwrapped
        return self._control.tokens.login_approle(self._settings.auth_mount, role_id, secret_id)

    def _open_wrapped(self, path: Path) -> Secret:
        wrapping = read_secret_file(path, "wrapped secret id")
        expected = f"auth/{self._settings.auth_mount}/role/{self._settings.role}/secret-id"
        mark = _OpeningMark(self._settings.token_file, wrapping)
        try:
            if self._control.tokens.look_at_wrapped(wrapping).creation_path != expected:
                raise _forged(path, expected)
        except VaultRefusedError as error:
            problem = _unopened(error, _used(path) if mark.is_there() else _spent(path))
        else:
            # Before it is used up: where this cannot be written, the token could not be either.
            mark.write()
            try:
                data = self._control.tokens.unwrap(wrapping)
            except VaultRefusedError as error:
                mark.remove()
                problem = _unopened(error, _spent(path))
            else:
                if isinstance(data.get("secret_id"), str) and data["secret_id"]:
                    return Secret(data["secret_id"].encode())
                problem = _forged(path, expected)
        raise problem

    def _by_jwt(self) -> Login:
        auth = self._settings.auth
        assert auth.jwt_file is not None, "the block's validator asks for it"
        jwt = read_secret_file(auth.jwt_file, "JWT")
        return self._control.tokens.login_jwt(self._settings.auth_mount, self._settings.role, jwt)

    def _by_aws_iam(self) -> Login:
        auth = self._settings.auth
        assert auth.region is not None, "the block's validator asks for it"
        assert auth.server_id is not None, "the block's validator asks for it"
        signed = sign_caller_identity(auth.region, auth.server_id)
        return self._control.tokens.login_aws_iam(self._settings.auth_mount, self._settings.role, signed)

    def _problem(self, error: VaultRefusedError) -> ProtectorRefusedError:
        """What a refused login means."""
        mount, role = self._settings.auth_mount, self._settings.role
        if error.status == 403:
            return ProtectorRefusedError(
                f"Vault lets nobody log in at auth/{mount} as {role} now: the role is locked out, as after five wrong"
                " secret ids, or there is no such login",
                hint="the lockout ends by itself after 15 minutes; `ringfence vault setup` switches it off, and"
                " `vault write -f sys/locked-users/ACCESSOR/unlock/ROLE_ID` ends it now",
                reason=LOCKED_OUT,
            )
        self._unwrapped = None
        if error.status == 400:
            words: dict[str | None, str] = {
                Reason.INVALID_LOGIN: "the role id or the secret id is wrong, spent or has run out",
                Reason.INVALID_JWT: "the JWT is not what the role is bound to, or has run out",
            }
            why = words.get(error.reason)
            return ProtectorRefusedError(
                f"Vault refuses the login at auth/{mount} as {role}: {why or 'it does not take what was shown'}",
                hint=_new_credentials_hint(self._settings),
                reason=NEEDS_HUMAN,
            )
        return error


def log_in_and_share(settings: VaultSettings, login: VaultLogin) -> Login:
    """Logs in and writes the token file; no other process does at the same time. Raises as `VaultLogin.log_in`."""
    with sole_login(settings.token_file):
        got = login.log_in()
        write_token(settings.token_file, got.token)
    return got


@contextmanager
def sole_login(token_file: Path) -> Iterator[None]:
    """Waits until no other process logs in. Raises ConfigError when the lock beside the token file cannot be made."""
    path = token_file.with_name(token_file.name + ".lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot make {path}: {error.strerror}", hint=_DIRECTORY_HINT) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_token(path: Path, token: Secret) -> None:
    """Puts the token where every process of the key server reads it (`token_file`), in one step, mode 0600.

    Raises ConfigError when that cannot be.
    """
    _replace(path, token.reveal() + b"\n")


def _replace(path: Path, content: bytes) -> None:
    try:
        replace_file(path, content, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}", hint=_DIRECTORY_HINT) from None


def _warn_of_powers(login: Login) -> None:
    if ROOT_POLICY in login.policies:
        _log.critical("the login gave the key server a root token: whoever takes it over has all of Vault")
    elif DEFAULT_POLICY in login.policies:
        _log.warning(
            "the token has the policy `default`, which costs Vault up to a millisecond a request: set"
            " token_no_default_policy on the role (`ringfence vault setup` does)"
        )


class _OpeningMark:
    """Says beside the token file which wrapping token this key server opened itself, by its SHA-256.

    A wrapping that is spent is an alarm unless it was us.
    """

    def __init__(self, token_file: Path, wrapping: Secret) -> None:
        self._path = token_file.with_name(token_file.name + ".opened")
        self._content = hashlib.sha256(wrapping.reveal()).hexdigest().encode() + b"\n"

    def is_there(self) -> bool:
        try:
            return hmac.compare_digest(self._path.read_bytes(), self._content)
        except OSError:
            return False

    def write(self) -> None:
        """Raises ConfigError."""
        _replace(self._path, self._content)

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def _unopened(error: VaultRefusedError, meaning: ProtectorRefusedError) -> ProtectorRefusedError:
    """Vault says one of these to a wrapping token that it does not know, or not any more."""
    return meaning if error.status in (400, 403, 404) else error


def _used(path: Path) -> ProtectorRefusedError:
    return ProtectorRefusedError(
        f"the wrapped secret id in {path} was used up by an earlier login of this key server",
        hint=f"get a new one ({_ISSUE}), put it there, and run `ringfence vault login`",
        reason=NEEDS_HUMAN,
    )


def _spent(path: Path) -> ProtectorRefusedError:
    return ProtectorRefusedError(
        f"the wrapped secret id in {path} does not open: it has run out, or SOMEBODY ELSE OPENED IT",
        hint="if it is younger than its time to live, somebody took it: destroy the role's secret ids and revoke its"
        f" tokens. Then get a new one ({_ISSUE}), and run `ringfence vault login`",
        reason=TAMPERING,
    )


def _forged(path: Path, expected: str) -> ProtectorRefusedError:
    return ProtectorRefusedError(
        f"what {path} holds was not made by Vault at {expected}: it was not opened, for SOMEBODY PUT IT THERE",
        hint="find out who writes to that file; if the role has another name, say so in vault.auth.role",
        reason=TAMPERING,
    )


def _new_credentials_hint(settings: VaultSettings) -> str:
    if settings.auth.wrapped_secret_id_file is not None:
        return f"a wrapped secret id is good for one login: get a new one ({_ISSUE}), and run `ringfence vault login`"
    return "put what Vault takes in the file that vault.auth names, then run `ringfence vault login`"
