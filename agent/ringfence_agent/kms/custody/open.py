"""Opens custody `transit` for one worker, as the `vault` block of kms.yaml says."""

from __future__ import annotations

from contextlib import AsyncExitStack

from ringfence_agent.kms.custody.transit import TransitCustody
from ringfence_agent.kms.custody.transit_changes import TransitChanges
from ringfence_agent.vault.batching import MicroBatcher, OnCall
from ringfence_agent.vault.servers import VaultServers
from ringfence_agent.vault.settings import VaultSettings
from ringfence_agent.vault.transit import Transit


def open_transit(
    settings: VaultSettings, workers: int, on_call: OnCall, stack: AsyncExitStack
) -> tuple[TransitCustody, TransitChanges]:
    """Connects to nothing yet. Closed with `stack`.

    All workers together have about as many calls under way as a node of Vault has cores: more would only queue there.
    """
    servers = VaultServers.of(settings)
    stack.push_async_callback(servers.close)
    calls_at_once = max(1, settings.server_cores // workers)
    batcher = MicroBatcher(Transit(servers, settings.transit_mount), calls_at_once, on_call)
    stack.push_async_callback(batcher.close)
    custody = TransitCustody(batcher, servers)
    changes = TransitChanges(settings, custody)
    stack.push_async_callback(changes.close)
    return custody, changes
