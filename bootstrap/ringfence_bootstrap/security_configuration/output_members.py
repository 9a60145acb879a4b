"""A document as it can be created again: without what the service itself added to what it hands out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from ringfence_bootstrap.security_configuration.nodes import Node

NodeT = TypeVar("NodeT", bound=Node)


def without_output_members(node: NodeT) -> NodeT:
    """The same object, and everything inside it, without output-only members."""
    changes: dict[str, Any] = {}
    for attribute, member in type(node).members().values():
        value = getattr(node, attribute)
        if member.output_only:
            changes[attribute] = None
        elif isinstance(value, Node):
            changes[attribute] = without_output_members(value)
        elif isinstance(value, tuple):
            changes[attribute] = tuple(
                without_output_members(each) if isinstance(each, Node) else each for each in value
            )
    return replace(node, **changes)
