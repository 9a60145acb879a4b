"""EMR's `Configurations`: a list of classifications, each a set of properties of one file on every node.

Source of the form: `Configuration` of EMR's RunJobFlow (`Classification`, `Properties`). Values are strings, always.
A value that is a secret stands there as a reference: a property named `EMR.secret@NAME` holds the ARN of a secret, and
EMR's service role puts the secret's value in its place on the node; `DescribeCluster` goes on showing the ARN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ringfence_zones.errors import InputError

SECRET_PREFIX = "EMR.secret@"  # noqa: S105 - what a property's name begins with


@dataclass(frozen=True, slots=True)
class Classification:
    """Properties for one classification."""

    name: str
    properties: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """As RunJobFlow, Terraform's `configurations_json` and CloudFormation take it."""
        return {"Classification": self.name, "Properties": dict(self.properties)}


def merge(parts: Iterable[Classification]) -> tuple[Classification, ...]:
    """One classification of each name, in the order of the first of that name.

    Raises InputError when two parts give one property different values: EMR would keep one of them and not say which.
    """
    merged: dict[str, dict[str, str]] = {}
    for part in parts:
        properties = merged.setdefault(part.name, {})
        for name, value in part.properties.items():
            if properties.setdefault(name, value) != value:
                raise InputError(f"{name} of {part.name} is to be both {properties[name]!r} and {value!r}")
    return tuple(Classification(name, properties) for name, properties in merged.items() if properties)
