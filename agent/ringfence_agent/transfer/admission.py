"""The KMS's leave for one job: a grant for the transfer's session, where flow rules would refuse it.

A session without a delegation token is a user at an address, so the grant names the user who copies and the address
from which this machine speaks to the KMS. One grant for each zone that is read; none while the policy's flow rules are
off or in shadow, none where an edge allows the user anyway, and none within one zone. What the grant admits is a copy
by that user from this machine, for as long as the transfer runs: it ends with it, and with its lifetime when the agent
dies first. A transfer that goes on longer has its grants made anew with each attempt.
"""

from __future__ import annotations

import logging
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing

from ringfence_agent.transfer.record import Transfer, Zone
from ringfence_zones.errors import GrantNotFoundError, KmsUnavailableError, RingfenceError
from ringfence_zones.grants import GrantRequest
from ringfence_zones.kms_admin import AdminClient
from ringfence_zones.kms_uri import KmsUri
from ringfence_zones.policy import Policy

_LIFETIME_S = 3600.0
_CONNECT_S = 5.0
_PURPOSE_CHARS = 500
_log = logging.getLogger(__name__)


class KmsAdmission:
    """Grants of the Ringfence KMS; see the module."""

    def __init__(
        self,
        open_client: Callable[[], AdminClient],
        find_policy: Callable[[], Policy | None],
        find_address: Callable[[], str],
    ) -> None:
        """`find_address` is the address that the KMS sees this machine under."""
        self._open_client = open_client
        self._find_policy = find_policy
        self._find_address = find_address
        self._made: dict[str, list[str]] = {}

    def admit(self, transfer: Transfer) -> None:
        """See `service.Admission`. Raises the `KmsError` family, AccessDeniedError and ConfigError."""
        policy, target = self._enforced(), transfer.request.target_zone
        if policy is None or target is None:
            return
        self.end(transfer)
        made = self._made.setdefault(transfer.id, [])
        client = None
        for source in self._zones_to_admit(transfer, target, policy):
            client = client or self._open_client()
            request = self._request(transfer, source, target)
            made.append(request.id)
            client.create_grant(request)

    def end(self, transfer: Transfer) -> None:
        """See `service.Admission`. A KMS that does not answer is not waited for: it ends the grant by its time."""
        for grant_id in self._made.pop(transfer.id, []):
            try:
                self._open_client().end_grant(grant_id)
            except GrantNotFoundError:
                continue
            except RingfenceError as error:
                _log.warning("the grant %s of transfer %s ends by time: %s", grant_id, transfer.id, error.message)

    def find_ungranted(self, transfer: Transfer) -> Zone | None:
        """A zone that the transfer reads and the KMS would refuse without a grant; None when it needs none."""
        target = transfer.request.target_zone
        policy = self._enforced() if target is not None else None
        if policy is None or target is None:
            return None
        return next(self._zones_to_admit(transfer, target, policy), None)

    def _enforced(self) -> Policy | None:
        policy = self._find_policy()
        if policy is None or policy.flow_control.mode != "enforce" or policy.flows is None:
            return None
        return policy

    def _zones_to_admit(self, transfer: Transfer, target: Zone, policy: Policy) -> Iterator[Zone]:
        user = transfer.request.copy_as
        for source in transfer.request.source_zones:
            edges = [flow for flow in policy.flows or () if (flow.source, flow.target) == (source.path, target.path)]
            if source.path != target.path and not any(flow.allows(user) for flow in edges):
                yield source

    def _request(self, transfer: Transfer, source: Zone, target: Zone) -> GrantRequest:
        request, grant = transfer.request, transfer.grant
        return GrantRequest(
            user=request.copy_as,
            source=source.path,
            target=target.path,
            lifetime_s=_LIFETIME_S,
            purpose=_one_line(f"transfer {transfer.id}: {request.purpose or 'allowed by the policy'}"),
            approver=grant.approver if grant is not None else request.user,
            address=self._find_address(),
            id=uuid.uuid4().hex,
        )


def _one_line(purpose: str) -> str:
    """As the KMS takes it: the requester's own words may be longer, and hold what is not printable."""
    return "".join(char if char.isprintable() else "?" for char in purpose)[:_PURPOSE_CHARS]


def address_towards(uri: KmsUri) -> str:
    """The address that connections from here to the KMS come from. Raises KmsUnavailableError."""
    host, port = uri.hosts[0], uri.port
    try:
        with closing(socket.create_connection((host, port), _CONNECT_S)) as connection:
            return str(connection.getsockname()[0])
    except OSError as error:
        raise KmsUnavailableError(f"the KMS at {host}:{port} does not answer: {error.strerror or error}") from error
