"""What somebody meant who wrote a member that EMR does not know.

Three ways to be nearly right, tried in this order: a name that older documentation had, a name that belongs to another
place of the document, and a name that is misspelt.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from ringfence_bootstrap.security_configuration.document import SecurityConfiguration
from ringfence_bootstrap.security_configuration.json_text import Location, spelled
from ringfence_bootstrap.security_configuration.nodes import Kind, Node

# Names that EMR's guide printed once, and names that people bring from CloudFormation's other services.
_RENAMED = {
    "LocalDiskEncryptionKeyProvider": "LocalDiskEncryptionConfiguration with EncryptionKeyProviderType",
    "Encryption": "EncryptionConfiguration",
    "S3Encryption": "S3EncryptionConfiguration",
    "KmsKeyId": "AwsKmsKey",
    "KMSKeyId": "AwsKmsKey",
    "AwsKmsKeyId": "AwsKmsKey",
    "KmsKey": "AwsKmsKey",
    "KmsKeyArn": "AwsKmsKey",
    "EncryptionOption": "EncryptionMode",
    "IdentityCenterApplicationAssignmentRequired": "IdentityCenterApplicationAssigmentRequired (EMR spells it so)",
}
# `Type` and `Mode` stand for different members in different objects.
_SHORT = {
    "Type": ("EncryptionKeyProviderType", "CertificateProviderType", "IdentifierType"),
    "Mode": ("EncryptionMode",),
}
_ELSEWHERE = {
    "Logging": "EMR encrypts logs by LogEncryptionKmsKeyId of RunJobFlow, not by a security configuration",
    "LogEncryptionKmsKeyId": "this is a member of RunJobFlow, not of a security configuration",
    "Name": "the name is given beside the document (--name), not in it",
    "SecurityConfiguration": "give what is inside SecurityConfiguration as the document",
    "KerberosAttributes": "this is a member of RunJobFlow, not of a security configuration",
}


def hint_for_unknown(kind: type[Node], name: str, place: Location) -> str:
    """The nearest right member for `name`, written at `place` in an object of `kind`."""
    known = kind.members()
    short = next((each for each in _SHORT.get(name, ()) if each in known), None)
    if short is not None:
        return f"write {short}"
    renamed = _RENAMED.get(name)
    if renamed is not None and renamed.split()[0] in known:
        return f"write {renamed}"
    same = next((each for each in known if each.lower() == name.lower()), None)
    if same is not None:
        return f"write {same}"
    homes = [home for home in _homes(name) if home != place[:-1]]
    if homes:
        return f"it belongs into {spelled(homes[0]) or 'the document itself'}"
    if name in _ELSEWHERE and not place[:-1]:
        return _ELSEWHERE[name]
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    return f"remove it; known here are {', '.join(known)}"


def _homes(name: str) -> list[Location]:
    """Where the schema has a member of this name; items of a list stand for all of them with index 0."""
    return [place for kind, place in _schema(SecurityConfiguration, ()) if name in kind.members()]


def _schema(kind: type[Node], place: Location) -> Iterator[tuple[type[Node], Location]]:
    yield kind, place
    for name, (_, member) in kind.members().items():
        if member.kind in (Kind.NODE, Kind.NODES) and member.of is not None and issubclass(member.of, Node):
            inner = (*place, name) if member.kind is Kind.NODE else (*place, name, 0)
            yield from _schema(member.of, inner)
