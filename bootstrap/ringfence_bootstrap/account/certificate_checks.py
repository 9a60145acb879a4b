"""Whether the nodes of a cluster will start with certificates, and take them from each other. Pure.

EMR looks at them when a node starts, and never again: they are not renewed, and a key that does not fit ends the
cluster. So everything is looked at here: key and certificate belong together, each certificate is signed by the next,
the dates hold, and the names fit those that nodes have.

Source: "Providing certificates for encrypting data in transit" of the EMR management guide; RFC 5280 for the chain;
RFC 6125 for names. Java takes a name from the common name only when there is no subject alternative name at all.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from ringfence_bootstrap.account.certificate_bundle import Bundle, find_bundle
from ringfence_bootstrap.security_configuration.pem_bundle import (
    CERTIFICATE_CHAIN,
    PRIVATE_KEY,
    TRUSTED_CERTIFICATES,
    check_bundle,
    node_domain,
    read_certificates,
)
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.secret import Secret

_SOON = datetime.timedelta(days=30)
_MIN_RSA_BITS = 2048
_REMAKE = (
    "make them again: `ringfence emr certificates new`, or by your own authority and `ringfence emr certificates pack`"
)
_PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def check_zip(
    content: Secret, name: str, *, region: str, domain: str | None = None, now: datetime.datetime | None = None
) -> list[Finding]:
    """Everything wrong with a zip of certificates; `name` is what findings call it.

    `domain` is a DNS suffix of the VPC's own in place of Amazon's; `now` is for tests.
    """
    findings = check_bundle(content.reveal(), name, domain=domain or node_domain(region))
    bundle = find_bundle(content)
    if bundle is None:
        return findings
    check = _Check(name, now or datetime.datetime.now(datetime.UTC), findings)
    key = check.private_key(bundle.private_key)
    chain, trusted = read_certificates(bundle.chain), read_certificates(bundle.trusted or b"")
    if chain:
        check.match(key, chain[0])
        check.chain(chain, trusted)
        check.leaf(chain[0])
    for certificate in {each.fingerprint(hashes.SHA256()): each for each in [*chain, *trusted]}.values():
        check.dates(certificate)
    return check.findings


@dataclass(slots=True)
class _Check:
    name: str
    now: datetime.datetime
    findings: list[Finding]

    def note(
        self, message: str, hint: str, rule: Rule = Rule.EMR_CERTIFICATE, severity: Severity = Severity.ERROR
    ) -> None:
        self.findings.append(Finding(severity=severity, rule=rule, path=self.name, message=message, hint=hint))

    def private_key(self, pem: Secret) -> _PrivateKey | None:
        try:
            key = serialization.load_pem_private_key(pem.reveal(), None)
        except TypeError:
            # A passphrase, which the layout's check has told.
            return None
        except (ValueError, UnsupportedAlgorithm):
            if b"PRIVATE KEY-----" in pem.reveal() and b"ENCRYPTED" not in pem.reveal():
                self.note(f"{PRIVATE_KEY} holds a private key that cannot be read", _REMAKE)
            return None
        if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
            self.note(f"{PRIVATE_KEY} is neither an RSA nor an EC key", _REMAKE)
            return None
        if isinstance(key, rsa.RSAPrivateKey) and key.key_size < _MIN_RSA_BITS:
            self.note(
                f"{PRIVATE_KEY} is an RSA key of {key.key_size} bits", f"{_MIN_RSA_BITS} are the least; {_REMAKE}"
            )
        return key

    def match(self, key: _PrivateKey | None, leaf: x509.Certificate) -> None:
        if key is not None and _public(leaf) != _public(key):
            self.note(
                f"{PRIVATE_KEY} is not the key of the first certificate in {CERTIFICATE_CHAIN} ({_named(leaf)})",
                "put the nodes' own certificate first, and beside it the key that it was made for",
            )

    def chain(self, chain: Sequence[x509.Certificate], trusted: Sequence[x509.Certificate]) -> None:
        for below, above in itertools.pairwise(chain):
            if not _is_signed_by(below, above):
                self.note(
                    f"{CERTIFICATE_CHAIN}: {_named(below)} is not signed by the certificate after it, {_named(above)}",
                    "order it: the nodes' certificate, then who signed it, and so on",
                )
                return
        last = chain[-1]
        ends_in_root = _is_signed_by(last, last)
        if not trusted and not ends_in_root:
            self.note(
                f"who signed {_named(last)} is neither in {CERTIFICATE_CHAIN} nor in {TRUSTED_CERTIFICATES},"
                " so no node trusts it",
                f"add the root certificate as {TRUSTED_CERTIFICATES}",
            )
        elif trusted and not any(_is_signed_by(each, root) for each in chain for root in trusted):
            self.note(
                f"nothing in {TRUSTED_CERTIFICATES} has signed anything in {CERTIFICATE_CHAIN},"
                " so nodes refuse each other",
                f"put the root certificate of the chain into {TRUSTED_CERTIFICATES}",
            )

    def leaf(self, leaf: x509.Certificate) -> None:
        self._purposes(leaf)
        digest = leaf.signature_hash_algorithm
        if digest is not None and digest.name in ("md5", "sha1"):
            self.note(f"{_named(leaf)} is signed with {digest.name.upper()}, which Java refuses", _REMAKE)

    def _purposes(self, leaf: x509.Certificate) -> None:
        try:
            basic = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value
        except x509.ExtensionNotFound:
            basic = None
        if basic is not None and basic.ca and not _is_signed_by(leaf, leaf):
            self.note(f"{_named(leaf)} is an authority's certificate, and no node's", _REMAKE, severity=Severity.WARN)
        try:
            purposes = set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        except x509.ExtensionNotFound:
            return
        for oid, word in ((ExtendedKeyUsageOID.SERVER_AUTH, "servers"), (ExtendedKeyUsageOID.CLIENT_AUTH, "clients")):
            if oid not in purposes:
                self.note(f"{_named(leaf)} is not for {word}, and a node is both", _REMAKE)

    def dates(self, certificate: x509.Certificate) -> None:
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if begins > self.now:
            self.note(f"{_named(certificate)} is not valid before {begins:%Y-%m-%d}", "check the clock, or wait")
        if ends <= self.now:
            self.note(f"{_named(certificate)} ran out on {ends:%Y-%m-%d}", _REMAKE, Rule.CERTIFICATE_EXPIRES)
        elif ends - self.now < _SOON:
            self.note(
                f"{_named(certificate)} runs out on {ends:%Y-%m-%d}",
                "nodes fetch certificates once, when they start: a cluster that lives longer breaks on that day",
                Rule.CERTIFICATE_EXPIRES,
                Severity.WARN,
            )


def first_end(bundle: Bundle) -> datetime.datetime:
    """When the first of a bundle's certificates runs out. Raises ValueError for one without certificates."""
    pems = bundle.chain + (bundle.trusted or b"")
    return min(each.not_valid_after_utc for each in x509.load_pem_x509_certificates(pems))


def _is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _public(holder: x509.Certificate | _PrivateKey) -> bytes:
    return holder.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _named(certificate: x509.Certificate) -> str:
    return f"the certificate of {certificate.subject.rfc4514_string() or 'nobody named'}"
