"""Opens custody `transit` for one worker, as the `vault` block of kms.yaml says."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

from ringfence_agent.kms.custody.transit import TransitCustody
from ringfence_agent.kms.custody.transit_changes import TransitChanges
from ringfence_agent.vault.batching import MicroBatcher
from ringfence_agent.vault.servers import VaultServers
from ringfence_agent.vault.settings import VaultSettings
from ringfence_agent.vault.transit import Transit

OnCall = Callable[[int, float, bool], None]
"""Told of each call: how many items it carried, how many seconds it took, and whether it failed as a whole."""


def open_transit(settings: VaultSettings, workers: int, stack: AsyncExitStack) -> tuple[TransitCustody, TransitChanges]:
    """Connects to nothing yet. Closed with `stack`.

    All workers together have about as many calls under way as a node of Vault has cores: more would only queue there.
    """
    servers = VaultServers.of(settings)
    stack.push_async_callback(servers.close)
    batcher = MicroBatcher(Transit(servers, settings.transit_mount), max(1, settings.server_cores // workers))
    stack.push_async_callback(batcher.close)
    custody = TransitCustody(batcher)
    changes = TransitChanges(settings, custody)
    stack.push_async_callback(changes.close)
    return custody, changes
