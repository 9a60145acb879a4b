"""Delegation tokens: issued, verified, renewed and cancelled, shared by every instance of one key store.

Source of behaviour and messages: `AbstractDelegationTokenSecretManager` under `DelegationTokenManager`. Rules:

1. A password is HMAC-SHA-256 of the identifier under a master key of 256 bits (stock: HMAC-SHA1, 64 bits); only servers
   of this store verify it. It is compared in constant time, before anything is looked up. What a token proves is in
   its password: one issued under simple authentication is a forgery to a server with Kerberos on the same store.
2. A token is good while its record is in the store and not past the date it was renewed to. What was verified is
   remembered by the whole token for a bounded time, and forgotten at once when a worker of this server changes one.
3. Master keys roll each update interval, when a token is issued. Any instance may roll; the store lets one win.
4. An owner under simple authentication was a claim, and the token proves no more than that.

The token itself never leaves this module but as the answer to its issue: no message quotes it.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from ringfence_agent.keystore.interface import OpenStore
from ringfence_agent.keystore.token_store import MasterKey, TokenRecord
from ringfence_agent.kms.authentication.caller import Caller, Identity
from ringfence_agent.kms.authentication.delegation_token import Token, TokenIdentifier, decode_url
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.store_access import StoreAccess
from ringfence_agent.kms.unready import Unready
from ringfence_zones.errors import (
    AccessDeniedError,
    AuthenticationError,
    InputError,
    InvalidTokenError,
    RingfenceError,
)
from ringfence_zones.secret import Secret

_log = logging.getLogger(__name__)

_MASTER_KEY_BYTES = 32
_CACHE_LIMIT = 4096
_MAX_NAME_CHARS = 256
_MAX_SERVICE_CHARS = 1024
# What expired stays in the store for so long: a server whose clock is ahead by less takes no good token from the
# others, nor the key that proves it.
_KEPT_EXPIRED_MS = 2 * 86_400_000


@dataclass(frozen=True, slots=True)
class TokenLifetimes:
    """`delegation-token.{max-lifetime,renew-interval,update-interval,removal-scan-interval}.sec`, in milliseconds."""

    max_life_ms: int = 604_800_000
    renew_interval_ms: int = 86_400_000
    update_interval_ms: int = 86_400_000
    removal_scan_ms: int = 3_600_000


class DelegationTokens:
    """The tokens of one server.

    `identity` is what a verified token proves; `short_name` maps the names in a token to those of ACLs (raising
    AuthenticationError); `keep_ms` bounds how long a token is believed without asking the store.
    """

    def __init__(
        self,
        store: StoreAccess,
        lifetimes: TokenLifetimes,
        identity: Identity,
        short_name: Callable[[str], str],
        now_ms: Callable[[], int],
        keep_ms: int,
    ) -> None:
        self._store = store
        self._lifetimes = lifetimes
        self._identity = identity
        self._short_name = short_name
        self._now_ms = now_ms
        self._keep_ms = keep_ms
        # By token: until when (epoch ms) it is believed, and whose it is.
        self._known: dict[bytes, tuple[int, Caller]] = {}

    # -- use

    def verify(self, call: Call, url_string: bytes) -> Caller:
        """Whose token this is. Raises InvalidTokenError, and Unready, whose load sets `call.session`."""
        if self._store.tokens_have_changed():
            self._known.clear()
        known = self._known.get(url_string)
        # From below as well: the clock may have been set back.
        if known is not None and known[0] - self._keep_ms <= self._now_ms() <= known[0]:
            return known[1]
        raise Unready(lambda: self._look_up(call, url_string))

    async def _look_up(self, call: Call, url_string: bytes) -> None:
        try:
            token, identifier = decode_url(url_string)
            record = await self._store.read_tokens(lambda store: self._live_record(store, token, identifier))
            caller = self._owner(identifier)
        except AuthenticationError as error:
            raise InvalidTokenError(_invalid(error.message)) from error
        if len(self._known) >= _CACHE_LIMIT:
            self._known.clear()
        self._known[url_string] = (min(record.expires_ms, self._now_ms() + self._keep_ms), caller)
        call.session = caller

    def _owner(self, identifier: TokenIdentifier) -> Caller:
        real_user = identifier.real_user
        acts = self._short_name(real_user) if real_user not in ("", identifier.owner) else None
        return Caller(
            self._short_name(identifier.owner), self._identity, 0, acts, is_token=True, token=identifier.sequence
        )

    def _live_record(self, store: OpenStore, token: Token, identifier: TokenIdentifier) -> TokenRecord:
        if not self._is_genuine(store, token, identifier):
            raise InvalidTokenError(f"token ({identifier}) is invalid, password doesn't match")
        record = _find(store, token, identifier)
        if record is None:
            raise InvalidTokenError(f"Token for real user: {identifier.real_user}, can't be found in cache")
        now_ms = self._now_ms()
        if record.expires_ms < now_ms:
            raise InvalidTokenError(
                f"Token {identifier.real_user} has expired, current time: {_time(now_ms)}"
                f" expected renewal time: {_time(record.expires_ms)}"
            )
        return record

    # -- issue, renew, cancel

    async def issue(self, owner: str, renewer: str | None, real_user: str | None, service: str | None) -> str:
        """A new token for `owner`, in the form in which clients carry it.

        `renewer` may be a full principal; None makes the owner its own. Raises InputError for unusable names.
        """
        renewer = self._renewer(owner if renewer is None else renewer)
        if len(service or "") > _MAX_SERVICE_CHARS:
            raise InputError(f"the service of a token has at most {_MAX_SERVICE_CHARS} characters")
        return await self._store.change_tokens(
            lambda store: self._issue(store, owner, renewer, real_user or "", service or "")
        )

    def _renewer(self, name: str) -> str:
        if len(name) > _MAX_NAME_CHARS or not name.isprintable():
            raise InputError("the renewer of a token is no user name")
        try:
            return self._short_name(name) if name else ""
        except AuthenticationError as error:
            raise InputError(f"the renewer of a token has no short name: {error.message}") from error

    def _issue(self, store: OpenStore, owner: str, renewer: str, real_user: str, service: str) -> str:
        now_ms = self._now_ms()
        key = self._current_key(store, now_ms)
        identifier = TokenIdentifier(
            owner,
            renewer,
            real_user,
            now_ms,
            now_ms + self._lifetimes.max_life_ms,
            store.next_sequence(),
            key.key_id,
        )
        encoded = identifier.encode()
        expires_ms = now_ms + min(self._lifetimes.renew_interval_ms, self._lifetimes.max_life_ms)
        store.add_token(TokenRecord(identifier.sequence, encoded, expires_ms))
        return Token(encoded, self._password(key.secret, encoded), service=service).encode_url()

    def _current_key(self, store: OpenStore, now_ms: int) -> MasterKey:
        lifetimes = self._lifetimes
        keys = store.list_master_keys()
        newest = keys[-1] if keys else None
        # A key verifies its last token until that is past its maximum life, also when that was configured anew.
        if (
            newest is not None
            and newest.created_ms <= now_ms < newest.created_ms + lifetimes.update_interval_ms
            and newest.expires_ms >= now_ms + lifetimes.max_life_ms
        ):
            return newest
        expires_ms = now_ms + lifetimes.update_interval_ms + lifetimes.max_life_ms
        secret = Secret(secrets.token_bytes(_MASTER_KEY_BYTES))
        return store.add_master_key(0 if newest is None else newest.key_id, secret, now_ms, expires_ms)

    async def renew(self, url_string: str, renewer: str) -> int:
        """The new expiry (epoch ms). Raises InvalidTokenError and AccessDeniedError with Hadoop's sentences."""
        token, identifier = decode_url(url_string.encode("utf-8", "replace"))
        return await self._store.change_tokens(lambda store: self._renew(store, token, identifier, renewer))

    def _renew(self, store: OpenStore, token: Token, identifier: TokenIdentifier, renewer: str) -> int:
        now_ms = self._now_ms()
        if identifier.max_date_ms < now_ms:
            raise InvalidTokenError(
                f"{renewer} tried to renew an expired token ({identifier}) max expiration date:"
                f" {_time(identifier.max_date_ms)} currentTime: {_time(now_ms)}"
            )
        if not identifier.renewer:
            raise AccessDeniedError(f"{renewer} tried to renew a token ({identifier}) without a renewer")
        if identifier.renewer != renewer:
            raise AccessDeniedError(
                f"{renewer} tries to renew a token ({identifier}) with non-matching renewer {identifier.renewer}"
            )
        if not self._is_genuine(store, token, identifier):
            raise AccessDeniedError(f"{renewer} is trying to renew a token ({identifier}) with wrong password")
        expires_ms = min(identifier.max_date_ms, now_ms + self._lifetimes.renew_interval_ms)
        renewed, record = None, _find(store, token, identifier)
        # What expired before that is as good as removed.
        if record is not None and record.expires_ms >= now_ms - self._lifetimes.removal_scan_ms:
            renewed = store.renew_token(identifier.sequence, expires_ms)
        if renewed is None:
            raise InvalidTokenError(f"Renewal request for unknown token ({identifier})")
        return renewed.expires_ms

    async def cancel(self, url_string: str, canceller: str | None) -> None:
        """Cancels a token; `canceller` must be its owner or renewer. None is whoever has it, while it is good.

        Raises InvalidTokenError and AccessDeniedError.
        """
        token, identifier = decode_url(url_string.encode("utf-8", "replace"))
        await self._store.change_tokens(lambda store: self._cancel(store, token, identifier, canceller))

    def _cancel(self, store: OpenStore, token: Token, identifier: TokenIdentifier, canceller: str | None) -> None:
        if canceller is None:
            self._live_record(store, token, identifier)
        elif canceller not in (identifier.owner, identifier.renewer):
            raise AccessDeniedError(f"{canceller} is not authorized to cancel the token ({identifier})")
        elif not self._is_genuine(store, token, identifier) or _find(store, token, identifier) is None:
            raise InvalidTokenError(f"Token not found ({identifier})")
        if not store.cancel_token(identifier.sequence):
            raise InvalidTokenError(f"Token not found ({identifier})")

    async def require_live(self, url_string: str) -> None:
        """Raises InvalidTokenError unless the token is genuine and good now. Changes nothing."""
        token, identifier = decode_url(url_string.encode("utf-8", "replace"))
        await self._store.read_tokens(lambda store: self._live_record(store, token, identifier))

    def _is_genuine(self, store: OpenStore, token: Token, identifier: TokenIdentifier) -> bool:
        for key in store.list_master_keys():
            if key.key_id == identifier.master_key_id:
                return hmac.compare_digest(self._password(key.secret, token.identifier), token.password)
        return False

    def _password(self, secret: Secret, identifier: bytes) -> bytes:
        # An identifier begins with a zero byte, so the word before it has an end.
        return hmac.digest(secret.reveal(), self._identity.value.encode("ascii") + identifier, "sha256")

    async def keep_clean(self) -> None:
        """Removes what expired two days ago from the store, each removal-scan interval, until it is cancelled."""
        while True:
            await asyncio.sleep(self._lifetimes.removal_scan_ms / 1000)
            try:
                await self._store.change_tokens(lambda store: store.remove_expired(self._now_ms() - _KEPT_EXPIRED_MS))
            except RingfenceError as error:
                # Nothing hangs on it: an expired token is refused whether its record is there or not.
                _log.warning("expired delegation tokens could not be removed: %s", error.message)


def _find(store: OpenStore, token: Token, identifier: TokenIdentifier) -> TokenRecord | None:
    """The record of exactly this token; None when it was cancelled or removed, or another one has its number."""
    if identifier.sequence < 1:
        return None
    record = store.find_token(identifier.sequence)
    return record if record is not None and record.identifier == token.identifier else None


def _invalid(message: str) -> str:
    return f"org.apache.hadoop.security.token.SecretManager$InvalidToken: {message}"


def _time(epoch_ms: int) -> str:
    """`Time.formatTime`, in UTC."""
    try:
        seconds = time.gmtime(epoch_ms // 1000)
    except (OverflowError, OSError, ValueError):  # a date that only a forged token can have
        return str(epoch_ms)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', seconds)},{epoch_ms % 1000:03d}+0000"
