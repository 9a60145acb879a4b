"""Which errors are not a transfer's fault, and over soon: it waits and goes on."""

from __future__ import annotations

from ringfence_zones.errors import (
    HandsLostError,
    KmsUnavailableError,
    NameNodeUnavailableError,
    SafeModeError,
    YarnUnavailableError,
)

TRANSIENT = (HandsLostError, KmsUnavailableError, NameNodeUnavailableError, SafeModeError, YarnUnavailableError)
