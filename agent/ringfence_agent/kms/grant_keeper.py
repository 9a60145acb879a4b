"""Ends grants whose time is over or whose delegation token is gone, and puts that on record.

Nothing depends on it: a grant whose time is over admits nothing whether that was written down or not, and who has no
token any more is no session. Every worker looks now and then; the flow memory says who was first, and that one writes
the audit record.
"""

from __future__ import annotations

import asyncio
import logging
import random

from ringfence_agent.flow.grants import FlowGrant
from ringfence_agent.kms.audit.log import AuditLog
from ringfence_agent.kms.audit.record import OK, Decision
from ringfence_agent.kms.authentication.caller import Identity
from ringfence_agent.kms.authorization.access import AccessRules
from ringfence_agent.kms.flow_control import FlowControl
from ringfence_agent.kms.grant_resource import described
from ringfence_agent.kms.store_access import StoreAccess
from ringfence_zones.errors import RingfenceError

_log = logging.getLogger(__name__)

_INTERVAL_S = 5.0


class GrantKeeper:
    """One worker's."""

    def __init__(
        self,
        flows: FlowControl,
        store: StoreAccess,
        access: AccessRules,
        audit: AuditLog,
        interval_s: float = _INTERVAL_S,
    ) -> None:
        self._flows = flows
        self._store = store
        self._access = access
        self._audit = audit
        self._interval_s = interval_s

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(random.uniform(self._interval_s / 2, self._interval_s))  # noqa: S311 -- not in step
            try:
                await self.look()
            except RingfenceError as error:
                _log.debug("grants cannot be looked at now: %s", error.message)

    async def look(self) -> None:
        """Ends what is over."""
        if not self._flows.has_grants:
            return
        tokens = await self._flows.ask(lambda memory: memory.grants.live_tokens())
        dead = {token for token in tokens if await self._is_gone(token)}
        for each in await self._flows.ask(lambda memory: memory.grants.end_due(dead)):
            self._record(each)

    async def _is_gone(self, token: int) -> bool:
        return await self._store.read_tokens(lambda store: store.find_token(token)) is None

    def _record(self, ended: FlowGrant) -> None:
        nobody = Decision(
            "END_GRANT",
            None,
            None,
            None,
            None,
            None,
            Identity.NONE.word,
            None,
            None,
            OK,
            f"grant:{ended.grant.ended_by}",
            self._access.published.revision,
        )
        self._audit.record(nobody, described(ended.grant))
        self._audit.commit()
