"""The zip of PEM files: exact names, no folder, no passphrase, names of nodes."""

from __future__ import annotations

import io
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ringfence_bootstrap.releases import parse_release
from ringfence_bootstrap.security_configuration.pem_bundle import (
    MAX_BUNDLE_BYTES,
    MAX_MEMBER_BYTES,
    check_bundle,
    node_domain,
    read_bundle,
)
from ringfence_zones.errors import InputError
from ringfence_zones.findings import Rule, Severity

KEY = ec.generate_private_key(ec.SECP256R1())
PLAIN = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
SEALED = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
)
OLD_SEALED = KEY.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.TraditionalOpenSSL,
    serialization.BestAvailableEncryption(b"secret"),
)


def certificate(common: str, *names: str) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


CHAIN = certificate("*.ec2.internal", "*.ec2.internal")


def bundle(**files: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return made.getvalue()


def check(
    files: dict[str, bytes], region: str | None = "us-east-1", release: str | None = None
) -> list[tuple[str, str]]:
    domain = node_domain(region) if region else None
    found = check_bundle(bundle(**files), "c.zip", domain=domain, release=parse_release(release) if release else None)
    assert all(each.rule is Rule.EMR_CERTIFICATE and each.path == "c.zip" for each in found)
    return [(each.severity.value, f"{each.message} | {each.hint}") for each in found]


def test_the_layout_that_emr_wants_has_no_finding() -> None:
    assert check({"privateKey.pem": PLAIN, "certificateChain.pem": CHAIN}) == []
    assert check({"privateKey.pem": PLAIN, "certificateChain.pem": CHAIN, "trustedCertificates.pem": CHAIN}) == []


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"certificateChain.pem": CHAIN}, "privateKey.pem is missing"),
        ({"privateKey.pem": PLAIN}, "certificateChain.pem is missing"),
        ({"certs/privateKey.pem": PLAIN, "certificateChain.pem": CHAIN}, "lies in a folder"),
        ({"PrivateKey.pem": PLAIN, "certificateChain.pem": CHAIN}, "name it privateKey.pem"),
        ({"privateKey.pem": PLAIN, "certificateChain.pem": CHAIN, "x/trustedCertificates.pem": CHAIN}, "in a folder"),
        ({"privateKey.pem": SEALED, "certificateChain.pem": CHAIN}, "passphrase"),
        ({"privateKey.pem": OLD_SEALED, "certificateChain.pem": CHAIN}, "passphrase"),
        ({"privateKey.pem": CHAIN, "certificateChain.pem": CHAIN}, "no private key"),
        ({"privateKey.pem": PLAIN, "certificateChain.pem": PLAIN}, "no certificate"),
        ({"privateKey.pem": PLAIN, "certificateChain.pem": CHAIN, "trustedCertificates.pem": b""}, "no certificate"),
        ({"privateKey.pem": b"x" * (MAX_MEMBER_BYTES + 1), "certificateChain.pem": CHAIN}, "larger than"),
        ({f"f{number}": b"" for number in range(101)}, "holds 101 files"),
    ],
)
def test_what_a_cluster_does_not_start_with_is_an_error(files: dict[str, bytes], words: str) -> None:
    ((severity, text),) = check(files)
    assert severity == "error"
    assert words in text


@pytest.mark.parametrize(
    ("chain", "region", "is_for_nodes"),
    [
        (CHAIN, "us-east-1", True),
        (CHAIN, "us-west-2", False),
        (CHAIN, None, True),
        (certificate("*.us-west-2.compute.internal"), "us-west-2", True),
        (certificate("*.us-west-2.compute.internal", "other.example.com"), "us-west-2", False),
        (certificate("x", "a.example.com", "*.us-west-2.compute.internal"), "us-west-2", True),
        (certificate("*.internal"), "us-east-1", False),
        (certificate("*"), "us-east-1", False),
    ],
)
def test_the_certificate_is_for_the_names_of_nodes(chain: bytes, region: str | None, is_for_nodes: bool) -> None:
    found = check({"privateKey.pem": PLAIN, "certificateChain.pem": chain}, region)
    assert [severity for severity, _ in found] == ([] if is_for_nodes else ["warn"])


def test_the_way_out_of_other_names_is_the_release_s() -> None:
    files = {"privateKey.pem": PLAIN, "certificateChain.pem": certificate("*.example.com")}
    ((_, new),), ((_, old),), ((_, any_release),) = (
        check(files, release=release) for release in ("emr-7.3.0", "emr-7.2.0", None)
    )
    assert "by the classification core-site" in new
    assert "in the file on the nodes" in old
    assert "from emr-7.3.0 on" in any_release
    assert all("Oozie" in text for text in (new, old, any_release))


@pytest.mark.parametrize("data", [b"", b"no zip", bundle(a=b"x")[:-30]])
def test_what_is_no_zip_is_one_finding(data: bytes) -> None:
    (found,) = check_bundle(data, "c.zip")
    assert found.severity is Severity.ERROR
    assert "no zip that can be read" in found.message


def test_no_finding_shows_what_is_in_a_key() -> None:
    (found,) = check_bundle(bundle(**{"privateKey.pem": SEALED, "certificateChain.pem": CHAIN}), "c.zip")
    body = SEALED.decode().splitlines()[1]
    assert body not in f"{found.message}{found.hint}"


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "c.zip"
    with path.open("wb") as stream:
        stream.truncate(MAX_BUNDLE_BYTES + 1)
    with pytest.raises(InputError, match="larger than"):
        read_bundle(path)
    with pytest.raises(InputError, match="cannot read"):
        read_bundle(tmp_path / "absent.zip")


def test_domains_of_regions() -> None:
    assert [node_domain(each) for each in ("us-east-1", "eu-central-1")] == [
        "ec2.internal",
        "eu-central-1.compute.internal",
    ]


def test_every_damage_to_a_zip_is_a_finding() -> None:
    whole = bundle(**{"privateKey.pem": PLAIN, "certificateChain.pem": CHAIN})
    for at in range(len(whole)):
        for bits in (1, 0x80):
            damaged = bytearray(whole)
            damaged[at] ^= bits
            check_bundle(bytes(damaged), "c.zip", domain="ec2.internal")
    for method in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", method) as archive:
            archive.writestr("privateKey.pem", PLAIN)
        for at in range(30, 80):
            damaged = bytearray(made.getvalue())
            damaged[at] ^= 0xFF
            check_bundle(bytes(damaged), "c.zip")
