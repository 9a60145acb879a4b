"""The key server as the handlers of one worker see it: what they share, and what a handler is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from ringfence_agent.http.response import Response
from ringfence_agent.keystore.interface import KeyStore
from ringfence_agent.kms.audit.log import AuditLog
from ringfence_agent.kms.audit.record import BEGUN
from ringfence_agent.kms.authentication.delegation_tokens import DelegationTokens
from ringfence_agent.kms.authorization.access import AccessRules
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.custody.transit import TransitCustody
from ringfence_agent.kms.custody.transit_changes import TransitChanges
from ringfence_agent.kms.flow_control import FlowControl
from ringfence_agent.kms.freshness import Freshness
from ringfence_agent.kms.key_cache import KeyCache
from ringfence_agent.kms.lease_desk import LeaseDesk
from ringfence_agent.kms.monitoring.pages import Monitoring
from ringfence_agent.kms.repeated_change import RepeatedChanges
from ringfence_agent.kms.store_access import StoreAccess
from ringfence_agent.kms.store_keeper import StoreKeeper
from ringfence_zones.custody import CUSTODIES, DEFAULT_CUSTODY, Custody
from ringfence_zones.errors import ProtectorUnavailableError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KeyDefaults:
    """What a create without cipher or length gets (`hadoop.security.key.default.{cipher,bitlength}`)."""

    cipher: str
    length_bits: int


@dataclass(frozen=True, slots=True)
class Kms:
    """What the handlers of one worker share. `version` is the product's; `authentication` is simple or kerberos.

    `grant_lifetime_s` is how long a grant may last. `transit` and `transit_changes` are there when kms.yaml has a
    `vault` block.
    """

    store: StoreAccess
    keys: KeyCache
    access: AccessRules
    defaults: KeyDefaults
    version: str
    audit: AuditLog
    tokens: DelegationTokens
    authentication: str
    freshness: Freshness
    repeated: RepeatedChanges
    monitoring: Monitoring
    keeper: StoreKeeper
    flows: FlowControl
    leases: LeaseDesk
    grant_lifetime_s: float
    transit: TransitCustody | None = None
    transit_changes: TransitChanges | None = None

    @property
    def custodies(self) -> tuple[Custody, ...]:
        """What keys can be in here."""
        return CUSTODIES if self.transit is not None else (DEFAULT_CUSTODY,)

    def get_transit(self) -> TransitCustody:
        """Raises ProtectorUnavailableError where Vault is not set up: another instance may have it."""
        if self.transit is None:
            raise ProtectorUnavailableError(
                "the key is held by Vault, and this key server is not set up for Vault",
                hint="write the vault block in kms.yaml, and restart the key server",
            )
        return self.transit

    def get_transit_changes(self) -> TransitChanges:
        """As `get_transit`."""
        self.get_transit()
        assert self.transit_changes is not None, "both are there, or none is"
        return self.transit_changes

    async def change(self, call: Call, method: Callable[[KeyStore], T]) -> T:
        """What `method` returns after its commit. That it is about to happen is on record, and on disk, before."""
        await self.begin_change(call)
        return await self.commit(method)

    async def begin_change(self, call: Call) -> None:
        """Puts on record that a change is about to be made, for one that begins before its `commit`."""
        await self.audit.begin(call.decision(None, BEGUN, self.access.published.revision), call.detail)

    async def commit(self, method: Callable[[KeyStore], T]) -> T:
        """What `method` returns after its commit; the change has begun."""
        try:
            return await self.store.change(method)
        finally:
            self.keeper.note_change()  # whatever came of it: a failure may have been committed


# A handler answers from memory, raises Unready for what is not there, or returns an awaitable once it has begun to
# change something. Errors of the RingfenceError family become the answer.
Handler = Callable[[Kms, Call], Response | Awaitable[Response]]
