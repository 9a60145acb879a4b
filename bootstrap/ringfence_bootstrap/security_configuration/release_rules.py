"""Rules that go by the release alone."""

from __future__ import annotations

from collections.abc import Iterator

from ringfence_bootstrap.in_transit_endpoints import ENDPOINTS, Mechanism
from ringfence_bootstrap.releases import NEWEST, Feature, Release, spelled_version
from ringfence_bootstrap.security_configuration.document import DiskProvider, S3Mode, S3Rule
from ringfence_bootstrap.security_configuration.subject import Subject
from ringfence_zones.findings import Finding, Rule

_SDK_1 = "AWS SDK for Java 1"


def check_release(subject: Subject) -> Iterator[Finding]:
    """The release takes security configurations at all, and is one that we know."""
    release = subject.release
    if release is None:
        return
    yield from subject.too_old(Feature.SECURITY_CONFIGURATION, ())
    if not release.is_known:
        newest = f"{release.train}-{spelled_version(NEWEST[release.train])}"
        message = f"{release} came after {newest}, the last that is known here; what holds for that one was checked"
        hint = "look at the release's notes for what has changed"
        yield subject.info(Rule.EMR_RELEASE_UNKNOWN, (), message, hint)


def check_scope(subject: Subject) -> Iterator[Finding]:
    """What in-transit encryption turns on in this release, for whoever wonders what the switch is worth."""
    release = subject.release
    if release is None or not subject.document.encrypts_in_transit:
        return
    has_kerberos = subject.document.kerberos is not None
    parts = [_protected(subject, release, mechanism) for mechanism in (Mechanism.TLS, Mechanism.AES_RPC)]
    if has_kerberos and subject.cluster.has_kerberos_attributes is not False:
        parts.append(_protected(subject, release, Mechanism.SASL))
    place = ("EncryptionConfiguration", "EnableInTransitEncryption")
    message = f"in {release} this turns on {'; '.join(part for part in parts if part)}"
    yield subject.info(Rule.EMR_IN_TRANSIT_SCOPE, place, message, "what it leaves in clear is told apart")


def _protected(subject: Subject, release: Release, mechanism: Mechanism) -> str:
    names: dict[str, list[str]] = {}
    for each in ENDPOINTS:
        is_there = not release.lacks(each.application) and subject.cluster.runs(each.application) is not False
        if is_there and each.mechanism(release) is mechanism:
            names.setdefault(each.service, []).append(each.name)
    listed = ", ".join(f"{service} ({', '.join(parts)})" for service, parts in names.items())
    return f"{mechanism.value} for {listed}" if listed else ""


def check_s3a(subject: Subject) -> Iterator[Finding]:
    """Java providers written against what a release no longer has."""
    release, document = subject.release, subject.document
    if release is None:
        return
    rules: list[S3Rule] = [document.s3, *(document.s3.overrides or ())] if document.s3 is not None else []
    for rule in rules:
        if rule.mode is not S3Mode.CSE_CUSTOM:
            continue
        place = (*rule.place, "EncryptionKeyProviderClass")
        if release.lacks(_SDK_1):
            message = f"{release} has neither EMRFS nor the {_SDK_1}, whose EncryptionMaterialsProvider this class is"
            hint = "use SSE-KMS or CSE-KMS"
            yield subject.error(Rule.EMR_CSE_CUSTOM, place, message, hint)
        elif release.has(Feature.S3A_IS_DEFAULT):
            message = f"in {release} s3:// is S3A, which takes a Keyring of the S3 Encryption Client, not this class"
            hint = (
                "give a class by fs.s3a.encryption.cse.custom.keyring.class.name and its jar by"
                " fs.s3a.cse.customKeyringProvider.uri"
            )
            yield subject.warn(Rule.EMR_CSE_CUSTOM, place, message, hint)
    disk = document.local_disk
    if disk is not None and disk.provider is DiskProvider.CUSTOM and release.lacks(_SDK_1):
        message = f"the interface of such classes belongs to the {_SDK_1}, which {release} does not have"
        place = (*disk.place, "EncryptionKeyProviderType")
        yield subject.warn(
            Rule.EMR_PROVIDER_CLASS, place, message, "use the provider AwsKms, or bring the SDK in the jar"
        )
