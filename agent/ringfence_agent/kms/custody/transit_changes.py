"""What a create and a roll change in Vault for custody `transit`. What they change in the store comes after.

Each step may be the last of a server that dies, and whatever it left does no harm:

- A Transit key that no record names is used by nobody. The next create takes another name, and `ringfence doctor vault`
  counts what was left.
- A version of Transit that no record names is taken by the next roll instead of a new one.

So Vault always has what the store names. Calls go to the active node, in a thread of their own: a Vault that hangs
holds up no change of a key that Vault has no part in.

What fails is answered to whoever asked, who is seldom the one to mend it: the log says it too, with the way out, once
until a change works again, and never more than once a minute.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from ringfence_agent.keystore.held import TransitVersion
from ringfence_agent.kms.custody.transit import TransitCustody
from ringfence_agent.vault.settings import VaultSettings
from ringfence_agent.vault.transit import LAG_S
from ringfence_zones.errors import ProtectorRefusedError, ProtectorUnavailableError

if TYPE_CHECKING:
    # hvac takes a while to load, and no server needs it before its first change in Vault.
    from ringfence_agent.vault.control import VaultControl

_log = logging.getLogger(__name__)

T = TypeVar("T")

_PATIENCE_S = 20.0
_TELL_EVERY_S = 60.0


class TransitChanges:
    """One worker's; used on its event loop."""

    def __init__(self, settings: VaultSettings, custody: TransitCustody) -> None:
        self._settings = settings
        self._custody = custody
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vault-control")
        self._control: VaultControl | None = None
        # What the log was told of last, and until when (the loop's time) it is told nothing else.
        self._told: str | None = None
        self._quiet_until_s = 0.0

    async def make_key(self, place: TransitVersion) -> None:
        """Makes the Transit key that a record is to name, and sees that it is sound and works.

        Raises ProtectorUnavailableError, ProtectorRefusedError.
        """
        with self._failures_logged():
            made = await self._in_thread(lambda control: control.transit.create(place.key))
            if made.latest_version != place.version:
                raise ProtectorRefusedError(
                    f"Vault had the Transit key {place.key} already, in version {made.latest_version}: it is not used",
                    reason="unsound_key",
                )
            await self._settle(place)

    async def next_version(self, current: TransitVersion) -> TransitVersion:
        """A version after `current`: one that is there already, from a roll that was cut off, else a new one."""

        def find(control: VaultControl) -> int:
            latest = control.transit.get(current.key).require_sound().latest_version
            if latest < current.version:
                raise ProtectorRefusedError(
                    f"Vault has {current.key} up to version {latest}, but {current.version} was in use: Vault was put"
                    " back to an earlier state, and a new version would get a number that another one had",
                    hint="restore a later snapshot of Vault; `ringfence keystore verify` lists every such key",
                    reason="vault_rolled_back",
                )
            if latest == current.version:
                latest = control.transit.rotate(current.key, from_version=latest).latest_version
            return latest

        with self._failures_logged():
            following = TransitVersion(current.key, await self._in_thread(find))
            await self._settle(following)
        return following

    async def close(self) -> None:
        """Ends the thread and its connections."""
        control, self._control = self._control, None
        if control is not None:
            self._thread.submit(control.close)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)

    @contextmanager
    def _failures_logged(self) -> Iterator[None]:
        try:
            yield
        except (ProtectorUnavailableError, ProtectorRefusedError) as error:
            now_s = asyncio.get_running_loop().time()
            if error.message != self._told and now_s >= self._quiet_until_s:
                self._told, self._quiet_until_s = error.message, now_s + _TELL_EVERY_S
                level = logging.WARNING if isinstance(error, ProtectorUnavailableError) else logging.ERROR
                way_out = "; ".join(each for each in (error.hint, error.command) if each)
                text = "no key that Vault holds can be made or rolled: %s%s"
                _log.log(level, text, error.message, f" ({way_out})" if way_out else "")
            raise
        self._told = None

    async def _settle(self, place: TransitVersion) -> None:
        await self._custody.prove(place)
        if len(self._settings.addresses) != 1:
            # The proof went through one node: others learn of the key a tenth of a second later.
            await asyncio.sleep(LAG_S)

    async def _in_thread(self, work: Callable[[VaultControl], T]) -> T:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(self._opened()))
        except TimeoutError:
            raise ProtectorUnavailableError(
                f"Vault did not answer within {_PATIENCE_S:g} s", hint="is it reached and unsealed, and is there disk?"
            ) from None

    def _opened(self) -> VaultControl:
        from ringfence_agent.vault.open import open_control  # noqa: PLC0415 -- see above

        if self._control is None:
            self._control = open_control(self._settings)
        return self._control
