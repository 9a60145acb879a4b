"""The control plane as the key server itself: with the token its processes share, or none where an Agent adds it."""

from __future__ import annotations

from ringfence_agent.vault.control import FixedToken, VaultControl
from ringfence_agent.vault.settings import VaultSettings
from ringfence_agent.vault.token_file import TokenFile


def open_control(settings: VaultSettings) -> VaultControl:
    """Connects to nothing yet. Raises ConfigError, MissingExtraError."""
    if settings.agent_socket is not None:
        return VaultControl(settings, FixedToken())
    return VaultControl(settings, TokenFile(settings.token_file))
