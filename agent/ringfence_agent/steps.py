"""The steps that a kill could fall between, told as they are reached: a test stops an agent there and kills it.

Nothing depends on being heard, and nobody but a test listens. Each part names its own steps; their values are unique
over all parts.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

OnStep = Callable[[enum.StrEnum], None]


def unheard(_step: enum.StrEnum) -> None:
    """For whoever is run without a test."""
