"""The zip of PEM files that nodes take their certificates from: what it must hold for a cluster to start.

EMR reads the names exactly, at the top of the archive, and takes no key that a passphrase protects; a cluster that gets
anything else ends with an error about a file on its nodes. Whether the certificates are good for what they are, dates,
chain and key among it, is looked at where they are made.
"""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509

from ringfence_bootstrap.releases import Feature, Release
from ringfence_zones.bounded_file import read_bounded
from ringfence_zones.errors import InputError
from ringfence_zones.findings import Finding, Rule, Severity

PRIVATE_KEY = "privateKey.pem"
CERTIFICATE_CHAIN = "certificateChain.pem"
TRUSTED_CERTIFICATES = "trustedCertificates.pem"
MAX_BUNDLE_BYTES = 4 * 1024 * 1024
MAX_MEMBER_BYTES = 1024 * 1024
MAX_MEMBERS = 100
# What the library raises for an archive that is broken, encrypted, or compressed in a way that it does not know.
UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(NotImplementedError, RuntimeError, EOFError, OSError, ValueError),
)
_NAMES = (PRIVATE_KEY, CERTIFICATE_CHAIN, TRUSTED_CERTIFICATES)
# How PKCS #8 and the older form of OpenSSL say that a key is encrypted.
_ENCRYPTED = (b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED")


def node_domain(region: str) -> str:
    """The domain of nodes' names in a Region, as Amazon's DNS gives them."""
    return "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"


def read_bundle(path: Path) -> bytes:
    """The bytes of a bundle, and never more than one can have. Raises InputError."""
    return read_bounded(path, MAX_BUNDLE_BYTES, InputError, kind="a zip of PEM files")


def check_bundle(data: bytes, name: str, *, release: Release | None = None, domain: str | None = None) -> list[Finding]:
    """What keeps nodes from starting with the bundle or from taking each other's certificate. Reads no secret out.

    `domain` is what nodes' names end with (`node_domain`); names are not looked at without it.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return list(_check(archive, name, release, domain))
    except UNREADABLE as error:
        return [_error(name, f"this is no zip that can be read: {error}", f"zip {name} {' '.join(_NAMES[:2])}")]


def _check(archive: zipfile.ZipFile, name: str, release: Release | None, domain: str | None) -> Iterator[Finding]:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        yield _error(name, f"the zip holds {len(members)} files", f"put {', '.join(_NAMES)} in it and nothing else")
        return
    large = next((each for each in members if each.file_size > MAX_MEMBER_BYTES), None)
    if large is not None:
        yield _error(name, f"{large.filename} is larger than {MAX_MEMBER_BYTES} bytes", "is it a PEM file?")
        return
    files = {each.filename: each for each in members if not each.is_dir()}
    for wanted in _NAMES:
        if wanted not in files:
            yield from _absent(name, wanted, list(files))
    if PRIVATE_KEY in files:
        yield from _private_key(name, archive.read(PRIVATE_KEY))
    if CERTIFICATE_CHAIN in files:
        yield from _chain(name, archive.read(CERTIFICATE_CHAIN), release, domain)
    if TRUSTED_CERTIFICATES in files and not read_certificates(archive.read(TRUSTED_CERTIFICATES)):
        yield _error(name, f"{TRUSTED_CERTIFICATES} holds no certificate in PEM form", "put the CA's certificate in it")


def _absent(name: str, wanted: str, files: list[str]) -> Iterator[Finding]:
    nested = next((each for each in files if each.rpartition("/")[2] == wanted), None)
    cased = next((each for each in files if each.lower() == wanted.lower()), None)
    if nested is not None:
        hint = f"put {wanted} at the top of the zip: zip -j {name} …"
        yield _error(name, f"{nested} lies in a folder, where EMR does not look", hint)
    elif cased is not None:
        yield _error(name, f"{cased} is not spelt as EMR wants it", f"name it {wanted}")
    elif wanted != TRUSTED_CERTIFICATES:
        yield _error(name, f"{wanted} is missing", f"put {wanted} at the top of the zip")


def _private_key(name: str, pem: bytes) -> Iterator[Finding]:
    if any(mark in pem for mark in _ENCRYPTED):
        message = f"{PRIVATE_KEY} is protected by a passphrase, which EMR cannot be told"
        hint = f"openssl pkey -in {PRIVATE_KEY} -out plain.pem, and keep the zip in a bucket encrypted with SSE-KMS"
        yield _error(name, message, hint)
    elif b"PRIVATE KEY-----" not in pem:
        yield _error(name, f"{PRIVATE_KEY} holds no private key in PEM form", "put the key in it, PKCS #8 in PEM")


def read_certificates(pem: bytes) -> list[x509.Certificate]:
    """The certificates of a PEM file, none where it holds none that can be read."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        return []


def _chain(name: str, pem: bytes, release: Release | None, domain: str | None) -> Iterator[Finding]:
    certificates = read_certificates(pem)
    if not certificates:
        message = f"{CERTIFICATE_CHAIN} holds no certificate in PEM form"
        yield _error(name, message, "put the nodes' certificate in it first, then those that signed it")
        return
    if domain is None:
        return
    names = _names(certificates[0])
    # Every node has the same certificate, so nothing but a wildcard is for all of them.
    if f"*.{domain}".lower() not in [each.lower() for each in names]:
        listed = ", ".join(names[:5]) or "nothing"
        message = f"the certificate is for {listed}, and nodes are called *.{domain}"
        yield Finding(
            severity=Severity.WARN,
            rule=Rule.EMR_CERTIFICATE,
            path=name,
            message=message,
            hint=f"make it for *.{domain}; with a domain of your own, {_without_verification(release)}",
        )


def _names(certificate: x509.Certificate) -> list[str]:
    """The names that it is for: those of the extension, else the common name."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (ValueError, x509.DuplicateExtension):
        return []
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return [str(each.value) for each in common]
    return extension.value.get_values_for_type(x509.DNSName)


def _without_verification(release: Release | None) -> str:
    way = "by core-site from emr-7.3.0 on, and in the file on the nodes before"
    if release is not None:
        by_classification = release.has(Feature.HOSTNAME_VERIFIER_SETTING)
        way = "by the classification core-site" if by_classification else "in the file on the nodes"
    return f"set hadoop.ssl.hostname.verifier=ALLOW_ALL {way}; Oozie has no such way, and waits for ever"


def _error(name: str, message: str, hint: str) -> Finding:
    return Finding(severity=Severity.ERROR, rule=Rule.EMR_CERTIFICATE, path=name, message=message, hint=hint)
