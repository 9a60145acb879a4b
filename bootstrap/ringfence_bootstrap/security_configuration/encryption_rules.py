"""Rules about `EncryptionConfiguration`: which member needs which, and which mean nothing beside others."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ringfence_bootstrap.releases import Feature
from ringfence_bootstrap.security_configuration.document import (
    CertificateProvider,
    Certificates,
    DiskProvider,
    LocalDisk,
    S3Mode,
    S3Override,
    S3Rule,
)
from ringfence_bootstrap.security_configuration.json_text import Location
from ringfence_bootstrap.security_configuration.nodes import Node
from ringfence_bootstrap.security_configuration.subject import Subject
from ringfence_zones.findings import Finding, Rule, Severity

_BUCKET_ARN = re.compile(r"arn:aws[a-z-]*:s3:::[^/]+/.+")
_S3_URI = re.compile(r"s3://[^/]+/.+")
_NO_BUCKET_NAME = re.compile(r"[/:*\s]")
_JAVA_CLASS = re.compile(r"[A-Za-z_$][\w$]*(\.[A-Za-z_$][\w$]*)*")
_EMR_MEMBERS = ("AwsKmsKey", "SecretTags", "ValidityInDays", "WildcardDnsSuffix")
_OWN_PROVIDER = ("S3Object", "EncryptionKeyProviderClass")


def check_switches(subject: Subject) -> Iterator[Finding]:
    """A switch that is on has its sub-configuration, and a sub-configuration its switch."""
    encryption = subject.document.encryption
    if encryption is None:
        return
    for is_on, switch, needed in (
        (encryption.in_transit_enabled is True, "EnableInTransitEncryption", "InTransitEncryptionConfiguration"),
        (encryption.at_rest_enabled is True, "EnableAtRestEncryption", "AtRestEncryptionConfiguration"),
    ):
        if is_on:
            yield from subject.missing(encryption, (needed,), f"{switch} is true", "add it, or set the switch to false")
        elif not encryption.lacks(needed) and _is_readable_switch(encryption, switch):
            message = f"means nothing while {switch} is not true"
            hint = f'set "{switch}": true, or remove it'
            yield subject.warn(Rule.EMR_NEEDLESS_MEMBER, (*encryption.place, needed), message, hint)
    if encryption.in_transit is not None:
        why = "in-transit encryption needs certificates"
        hint = 'add  "TLSCertificateConfiguration": {"CertificateProviderType": "PEM", "S3Object": "s3://…/certs.zip"}'
        yield from subject.missing(encryption.in_transit, ("TLSCertificateConfiguration",), why, hint)
    at_rest = encryption.at_rest
    parts = ("S3EncryptionConfiguration", "LocalDiskEncryptionConfiguration")
    if at_rest is not None and all(at_rest.lacks(part) for part in parts):
        message = f"has neither {parts[0]} nor {parts[1]}, and encrypts nothing"
        yield subject.error(Rule.EMR_MISSING_MEMBER, at_rest.place, message, "add one of them, or both")


def _is_readable_switch(encryption: Node, switch: str) -> bool:
    """A switch of the wrong type was told already."""
    return encryption.others.get(switch) is None


def check_certificates(subject: Subject) -> Iterator[Finding]:
    """What each kind of certificate provider takes."""
    in_transit = subject.document.encryption.in_transit if subject.document.encryption is not None else None
    certificates = in_transit.certificates if in_transit is not None else None
    if certificates is None:
        return
    why, hint = "EMR has to know where certificates come from", "write one of PEM, Custom, EMR"
    yield from subject.missing(certificates, ("CertificateProviderType",), why, hint)
    provider = certificates.provider
    if provider is CertificateProvider.PEM:
        hint = 'add  "S3Object": "s3://BUCKET/certs.zip"'
        yield from subject.missing(certificates, ("S3Object",), "PEM certificates come from a zip in S3", hint)
        why = "is for CertificateProviderType Custom"
        yield from subject.needless(certificates, ("CertificateProviderClass",), why, Severity.ERROR)
    elif provider is CertificateProvider.CUSTOM:
        why, hint = "a provider of one's own is a class in a jar in S3", "add S3Object and CertificateProviderClass"
        yield from subject.missing(certificates, ("S3Object", "CertificateProviderClass"), why, hint)
    elif provider is CertificateProvider.EMR:
        why = "is not for CertificateProviderType EMR, which makes its certificates itself"
        yield from subject.needless(certificates, ("S3Object", "CertificateProviderClass"), why, Severity.ERROR)
        yield from subject.too_old(Feature.EMR_CERTIFICATES, (*certificates.place, "CertificateProviderType"))
    yield from _emr_certificates(subject, certificates)


def _emr_certificates(subject: Subject, certificates: Certificates) -> Iterator[Finding]:
    if certificates.provider in (CertificateProvider.PEM, CertificateProvider.CUSTOM):
        why = "is for CertificateProviderType EMR"
        yield from subject.needless(certificates, _EMR_MEMBERS, why, Severity.ERROR)
    days = certificates.validity_days
    if days is not None:
        place = (*certificates.place, "ValidityInDays")
        if days < 1:
            yield subject.error(Rule.EMR_BAD_VALUE, place, f"{days} days is no validity", "write a number from 1 on")
        elif certificates.provider is CertificateProvider.EMR:
            message = f"the CA ends {days} days after the security configuration was made, and nothing renews it"
            hint = "delete and create the configuration before then, or leave the member out for 20 years"
            yield subject.info(Rule.EMR_CERTIFICATE, place, message, hint)
    for tag in certificates.secret_tags or ():
        yield from subject.missing(tag, ("Key",), "a tag has a key", 'write  {"Key": "…", "Value": "…"}')


def check_s3(subject: Subject) -> Iterator[Finding]:
    """What each mode takes, for the default and for each override."""
    encryption = subject.document.encryption
    s3 = encryption.at_rest.s3 if encryption is not None and encryption.at_rest is not None else None
    if s3 is None:
        return
    yield from _s3_rule(subject, s3)
    seen: set[str] = set()
    for override in s3.overrides or ():
        yield from _s3_rule(subject, override)
        yield from _bucket(subject, override, seen)


def _s3_rule(subject: Subject, rule: S3Rule) -> Iterator[Finding]:
    why, hint = "EMR has to know how to encrypt", f"write one of {', '.join(S3Mode)}"
    yield from subject.missing(rule, ("EncryptionMode",), why, hint)
    mode = rule.mode
    if mode is None:
        return
    if mode.names_key:
        yield from subject.missing(rule, ("AwsKmsKey",), f"{mode} needs an AWS KMS key", "add the key's ARN")
    else:
        yield from subject.needless(rule, ("AwsKmsKey",), f"means nothing with {mode}", Severity.WARN)
    if mode is S3Mode.CSE_CUSTOM:
        why, hint = "CSE-Custom is a class in a jar in S3", "add S3Object and EncryptionKeyProviderClass"
        yield from subject.missing(rule, _OWN_PROVIDER, why, hint)
    else:
        yield from subject.needless(rule, _OWN_PROVIDER, f"means nothing with {mode}", Severity.WARN)


def _bucket(subject: Subject, override: S3Override, seen: set[str]) -> Iterator[Finding]:
    why, hint = "an override is for one bucket", "add the bucket's name"
    yield from subject.missing(override, ("BucketName",), why, hint)
    place = (*override.place, "BucketName")
    if override.bucket is None:
        return
    if _NO_BUCKET_NAME.search(override.bucket):
        message = f"{override.bucket!r} is no bucket's name"
        yield subject.error(
            Rule.EMR_BAD_VALUE, place, message, "write the name alone, without s3:// and without a path"
        )
    if override.bucket in seen:
        message = f"bucket {override.bucket} has an override already; which one holds would be a guess"
        yield subject.error(Rule.EMR_BAD_VALUE, place, message, "keep one of the two")
    seen.add(override.bucket)


def check_local_disk(subject: Subject) -> Iterator[Finding]:
    """What each provider of local disks' passphrases takes."""
    encryption = subject.document.encryption
    disk = encryption.at_rest.local_disk if encryption is not None and encryption.at_rest is not None else None
    if disk is None:
        return
    why, hint = "EMR has to know where the disks' key comes from", "write AwsKms, or Custom"
    yield from subject.missing(disk, ("EncryptionKeyProviderType",), why, hint)
    if disk.provider is DiskProvider.AWS_KMS:
        yield from subject.missing(disk, ("AwsKmsKey",), "AwsKms needs an AWS KMS key", "add the key's ARN")
        yield from subject.needless(disk, _OWN_PROVIDER, "means nothing with AwsKms", Severity.WARN)
    elif disk.provider is DiskProvider.CUSTOM:
        why, hint = "a provider of one's own is a class in a jar in S3", "add S3Object and EncryptionKeyProviderClass"
        yield from subject.missing(disk, _OWN_PROVIDER, why, hint)
        yield from subject.needless(disk, ("AwsKmsKey",), "means nothing with Custom", Severity.WARN)
        yield from _algorithm(subject, disk)
    yield from _ebs(subject, disk)


def _algorithm(subject: Subject, disk: LocalDisk) -> Iterator[Finding]:
    if subject.release is None or disk.provider_class is None:
        return
    message = f"in {subject.release} the provider must give a key of algorithm {subject.release.local_disk_algorithm}"
    hint = "AES/GCM/NoPadding up to emr-7.0.0, AES from emr-7.1.0"
    yield subject.info(Rule.EMR_PROVIDER_CLASS, (*disk.place, "EncryptionKeyProviderClass"), message, hint)


def _ebs(subject: Subject, disk: LocalDisk) -> Iterator[Finding]:
    if disk.ebs is not True:
        return
    place = (*disk.place, "EnableEbsEncryption")
    if disk.provider is DiskProvider.CUSTOM:
        hint = "use the provider AwsKms, or set it to false"
        yield subject.error(Rule.EMR_NEEDLESS_MEMBER, place, "EBS encryption goes with the provider AwsKms alone", hint)
    release = subject.release
    if release is not None and not release.has(Feature.EBS_ENCRYPTION):
        message = f"{release} does not have EBS encryption, which came with emr-5.24.0"
        # An image of one's own is the only other way to an encrypted root device.
        way = "here an encrypted custom AMI is the only way" if release.has(Feature.CUSTOM_AMI) else "here is no way"
        yield subject.error(Rule.EMR_RELEASE, place, message, f"use emr-5.24.0 or later, or remove it; {way}")


def check_provider_classes(subject: Subject) -> Iterator[Finding]:
    """Java classes are named whole, and local disks and S3 do not share one: the interfaces differ."""
    for node in subject.document.nodes():
        for place, text in _classes(node):
            yield from _class(subject, place, text)
    encryption = subject.document.encryption
    at_rest = encryption.at_rest if encryption is not None else None
    if at_rest is None or at_rest.local_disk is None or at_rest.s3 is None:
        return
    of_s3 = {rule.provider_class for rule in (at_rest.s3, *(at_rest.s3.overrides or ()))}
    disk = at_rest.local_disk
    if disk.provider_class is not None and disk.provider_class in of_s3:
        message = f"{disk.provider_class} is named for S3 too, and the two implement different interfaces"
        hint = "name a class of its own for each"
        yield subject.warn(Rule.EMR_PROVIDER_CLASS, (*disk.place, "EncryptionKeyProviderClass"), message, hint)


def _classes(node: Node) -> Iterator[tuple[Location, str]]:
    for name in ("EncryptionKeyProviderClass", "CertificateProviderClass"):
        text = node.written().get(name)
        if isinstance(text, str):
            yield (*node.place, name), text


def _class(subject: Subject, place: Location, text: str) -> Iterator[Finding]:
    if _JAVA_CLASS.fullmatch(text) is None:
        hint = "write package and class, such as com.example.Provider"
        yield subject.error(Rule.EMR_PROVIDER_CLASS, place, f"{text!r} is no name of a Java class", hint)
    elif text.endswith(".jar"):
        message = f"{text!r} looks like a file's name; here stands the class"
        yield subject.warn(Rule.EMR_PROVIDER_CLASS, place, message, "write the class's whole name, without .jar")


def check_objects(subject: Subject) -> Iterator[Finding]:
    """Objects in S3 are named by URI or ARN: a zip for PEM, a jar for a class."""
    for node in subject.document.nodes():
        text = node.written().get("S3Object")
        if not isinstance(text, str):
            continue
        place = (*node.place, "S3Object")
        if _S3_URI.fullmatch(text) is None and _BUCKET_ARN.fullmatch(text) is None:
            hint = "write s3://BUCKET/KEY, or arn:aws:s3:::BUCKET/KEY"
            yield subject.error(Rule.EMR_S3_OBJECT, place, f"{text!r} is no object in S3", hint)
            continue
        is_pem = isinstance(node, Certificates) and node.provider is CertificateProvider.PEM
        suffix = ".zip" if is_pem else ".jar"
        if not text.lower().endswith(suffix):
            what = "PEM certificates come in a zip" if is_pem else "a class comes in a jar"
            yield subject.warn(Rule.EMR_S3_OBJECT, place, f"{what}, and {text!r} is none", f"name a {suffix} file")
