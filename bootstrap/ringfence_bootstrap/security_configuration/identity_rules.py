"""Rules about who users are, what they may do, and how the nodes know who they are themselves."""

from __future__ import annotations

from collections.abc import Iterator

from ringfence_bootstrap.releases import Feature
from ringfence_bootstrap.security_configuration.document import (
    Authorization,
    KdcProvider,
    Kerberos,
    Ranger,
)
from ringfence_bootstrap.security_configuration.subject import Subject
from ringfence_zones.findings import Finding, Rule, Severity

_DEDICATED = "ClusterDedicatedKdcConfiguration"
_EXTERNAL = "ExternalKdcConfiguration"
_TRUST = ("Realm", "Domain", "AdminServer", "KdcServer")
_RANGER = (
    "AdminServerURL",
    "RoleForRangerPluginsARN",
    "RoleForOtherAWSServicesARN",
    "AdminServerSecretARN",
    "RangerPluginConfigurations",
)


def check_kerberos(subject: Subject) -> Iterator[Finding]:
    """What each KDC takes, and the release that has it."""
    kerberos = subject.document.kerberos
    if kerberos is None:
        return
    yield from subject.too_old(Feature.KERBEROS, kerberos.place)
    why, hint = "EMR has to know whose KDC it is", "write ClusterDedicatedKdc, or ExternalKdc"
    yield from subject.missing(kerberos, ("Provider",), why, hint)
    if kerberos.provider is KdcProvider.CLUSTER_DEDICATED:
        yield from subject.needless(kerberos, (_EXTERNAL,), "is for Provider ExternalKdc", Severity.ERROR)
    if kerberos.provider is KdcProvider.EXTERNAL:
        yield from subject.too_old(Feature.EXTERNAL_KDC, (*kerberos.place, "Provider"))
        yield from subject.needless(kerberos, (_DEDICATED,), "is for Provider ClusterDedicatedKdc", Severity.ERROR)
        hint = 'add  {"KdcServerType": "Single", "AdminServer": "HOST:749", "KdcServer": "HOST:88"}'
        yield from subject.missing(kerberos, (_EXTERNAL,), "an external KDC has an address", hint)
    yield from _dedicated_kdc(subject, kerberos)
    yield from _external_kdc(subject, kerberos)


def _dedicated_kdc(subject: Subject, kerberos: Kerberos) -> Iterator[Finding]:
    kdc = kerberos.dedicated
    if kdc is None:
        return
    yield from _ticket_lifetime(subject, kdc.place, kdc.ticket_hours)
    if kdc.trust is not None:
        why, hint = "a trust needs all of realm, domain and the two servers", "add it"
        yield from subject.missing(kdc.trust, _TRUST, why, hint)


def _external_kdc(subject: Subject, kerberos: Kerberos) -> Iterator[Finding]:
    kdc = kerberos.external
    if kdc is None:
        return
    yield from _ticket_lifetime(subject, kdc.place, kdc.ticket_hours)
    yield from subject.missing(kdc, ("AdminServer", "KdcServer"), "an external KDC has addresses", "write HOST:PORT")
    if kdc.lacks("KdcServerType"):
        message = "it is missing, and EMR's documentation always has it"
        place = (*kdc.place, "KdcServerType")
        yield subject.warn(Rule.EMR_MISSING_MEMBER, place, message, 'add  "KdcServerType": "Single"')
    if kdc.ad_integration is not None:
        why, hint = "Active Directory has a realm, a domain and a server", "add it"
        yield from subject.missing(kdc.ad_integration, ("AdRealm", "AdDomain", "AdServer"), why, hint)


def _ticket_lifetime(subject: Subject, place: tuple[str | int, ...], hours: int | None) -> Iterator[Finding]:
    if hours is not None and hours < 1:
        message = f"{hours} hours is no lifetime of a ticket"
        where = (*place, "TicketLifetimeInHours")
        yield subject.error(Rule.EMR_BAD_VALUE, where, message, "write a number from 1 on; 24 is EMR's default")


def check_identity_center(subject: Subject) -> Iterator[Finding]:
    """Identity Center, when it is on, has an instance and a role."""
    authentication = subject.document.authentication
    center = authentication.identity_center if authentication is not None else None
    if center is None:
        return
    needed = ("IdentityCenterInstanceARN", "IAMRoleForEMRIdentityCenterApplicationARN")
    if center.enabled is True:
        yield from subject.missing(center, needed, "EnableIdentityCenter is true", "add its ARN")
    elif center.lacks("EnableIdentityCenter") or center.enabled is False:
        why = "means nothing while EnableIdentityCenter is not true"
        yield from subject.needless(center, needed, why, Severity.WARN)


def check_authorization(subject: Subject) -> Iterator[Finding]:
    """Role mappings are whole, runtime roles are on and in the release, Ranger has what it needs."""
    authorization = subject.document.authorization
    if authorization is None:
        return
    yield from _role_mappings(subject, authorization)
    iam = authorization.iam
    if iam is not None and iam.runtime_roles is True:
        yield from subject.too_old(Feature.RUNTIME_ROLES, (*iam.place, "EnableApplicationScopedIAMRole"))
    elif iam is not None and (iam.lacks("EnableApplicationScopedIAMRole") or iam.runtime_roles is False):
        why = "means nothing while EnableApplicationScopedIAMRole is not true"
        yield from subject.needless(iam, ("ApplicationScopedIAMRoleConfiguration",), why, Severity.WARN)
    if authorization.ranger is not None:
        yield from _ranger(subject, authorization.ranger)


def _role_mappings(subject: Subject, authorization: Authorization) -> Iterator[Finding]:
    emrfs = authorization.emrfs
    if emrfs is None:
        return
    if subject.release is not None and subject.release.lacks("EMRFS"):
        message = f"{subject.release} has no EMRFS, so no role is ever mapped"
        yield subject.warn(Rule.EMR_RELEASE, emrfs.place, message, "use runtime roles instead")
    hint = 'add  "RoleMappings": [{"Role": "ARN", "IdentifierType": "User", "Identifiers": ["NAME"]}]'
    yield from subject.missing(emrfs, ("RoleMappings",), "without it no role is ever mapped", hint)
    for mapping in emrfs.role_mappings or ():
        why, hint = "a mapping says which role whom it is for", "add it"
        yield from subject.missing(mapping, ("Role", "IdentifierType", "Identifiers"), why, hint)
        if mapping.identifiers == ():
            message = "is empty, so the role is nobody's"
            place = (*mapping.place, "Identifiers")
            yield subject.error(Rule.EMR_BAD_VALUE, place, message, "name whom the role is for")


def _ranger(subject: Subject, ranger: Ranger) -> Iterator[Finding]:
    if subject.document.kerberos is None:
        message = "Ranger needs to know who users are, and there is no KerberosConfiguration"
        hint = "add AuthenticationConfiguration with a KerberosConfiguration"
        yield subject.error(Rule.EMR_MISSING_MEMBER, ranger.place, message, hint)
    yield from subject.missing(ranger, _RANGER, "EMR's plug-ins for Ranger need it", "add it")
    for plugin in ranger.plugins or ():
        why = "a plug-in has an application, a client certificate and a repository"
        yield from subject.missing(plugin, ("App", "ClientSecretARN", "PolicyRepositoryName"), why, "add it")


def check_metadata_service(subject: Subject) -> Iterator[Finding]:
    """Both members, in their bounds, and a release that starts with version 2 alone."""
    service = subject.document.metadata_service
    if service is None:
        return
    both = ("MinimumInstanceMetadataServiceVersion", "HttpPutResponseHopLimit")
    version_place, hops_place = ((*service.place, name) for name in both)
    yield from subject.missing(service, both, "EMR takes both of them or none", "write 2, and a hop limit of 1")
    version, hops = service.minimum_version, service.hop_limit
    if version not in (None, 1, 2):
        yield subject.error(Rule.EMR_BAD_VALUE, version_place, f"there is no version {version}", "write 1, or 2")
    if hops is not None and not 1 <= hops <= 64:
        yield subject.error(Rule.EMR_BAD_VALUE, hops_place, f"{hops} is not between 1 and 64", "write 1")
    if hops == 1:
        message = "with one hop containers on the nodes do not reach the instance metadata service"
        yield subject.info(Rule.EMR_METADATA_SERVICE, hops_place, message, "write 2 if code in containers needs it")
    release = subject.release
    if version == 2 and release is not None and not release.starts_with_metadata_v2_alone:
        message = f"nodes of {release} do not start when the instance metadata service takes version 2 alone"
        hint = "write 1, or use 5.23.1, 5.27.1, a release from 5.32 on in the 5 series, or one from 6.2 on"
        yield subject.error(Rule.EMR_RELEASE, version_place, message, hint)


def check_output_members(subject: Subject) -> Iterator[Finding]:
    """Members that the service adds to what it hands out."""
    for node in subject.document.nodes():
        for name, (attribute, member) in type(node).members().items():
            if member.output_only and getattr(node, attribute) is not None:
                message = "EMR adds this to what it hands out, and takes it from nobody"
                hint = "remove it before a configuration is created from this document"
                yield subject.warn(Rule.EMR_OUTPUT_MEMBER, (*node.place, name), message, hint)
