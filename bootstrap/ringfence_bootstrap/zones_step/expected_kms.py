"""Which KMS the NameNode has to name before a zone is made.

A zone keeps its key for ever, so a zone made with a key of the wrong KMS cannot be mended. What counts is the
NameNode's own answer (`keyProviderUri` of its server defaults), not a file of this machine: a NameNode that was not
restarted since core-site.xml was changed still asks the old one.

    ringfence              the KMS at that address answers as Ringfence's
    existing               whichever KMS it is, it answers
    kms://https@HOST:9600/kms   exactly this one
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from ringfence_zones.errors import AuthenticationError, ConfigError, InputError, KmsError
from ringfence_zones.http_session import HttpAccess
from ringfence_zones.kms_client import KmsClient
from ringfence_zones.kms_uri import KmsUri, parse_kms_uri

RINGFENCE, EXISTING = "ringfence", "existing"
AskKms = Callable[[str], bool]
"""Whether the KMS at an address is Ringfence's. Raises KmsError, AuthenticationError when it does not answer."""


@dataclass(frozen=True, slots=True)
class ExpectedKms:
    """`uri` is None for any address; `tls` demands https of it."""

    word: str
    uri: KmsUri | None
    tls: bool

    def __str__(self) -> str:
        text = self.uri.text if self.uri is not None else f"{self.word} KMS"
        return f"{text} over https" if self.tls and self.uri is None else text

    def find_difference(self, provider: str | None, ask: AskKms) -> str | None:
        """Why `provider`, as the NameNode tells it, is not this one; None when it is."""
        if provider is None:
            return "the NameNode has no key provider"
        try:
            found = parse_kms_uri(provider)
        except ConfigError:
            return f"the NameNode's key provider {provider} is no KMS"
        if self.uri is not None and not _is_same(self.uri, found):
            return f"the NameNode's key provider is {provider}"
        if self.tls and found.is_plain_http:
            return f"the NameNode's key provider {provider} is plain http"
        try:
            is_ringfence = ask(provider)
        except (KmsError, AuthenticationError) as error:
            return f"the KMS does not serve: {error.message}"
        if self.word == RINGFENCE and not is_ringfence:
            return f"the KMS at {provider} is not Ringfence's"
        return None


def parse_expected_kms(word: str, *, tls: bool) -> ExpectedKms:
    """Raises InputError naming what can be expected."""
    if word in (RINGFENCE, EXISTING):
        return ExpectedKms(word, None, tls)
    try:
        uri = parse_kms_uri(word)
    except ConfigError:
        raise InputError(
            f"--kms {word!r} is no KMS to expect",
            hint=f"give {RINGFENCE}, {EXISTING}, or the address that the NameNode has to name: kms://https@HOST:9600/kms",
        ) from None
    if tls and uri.is_plain_http:
        raise InputError("--tls, and --kms names a plain http address", hint="give kms://https@...")
    return ExpectedKms(word, uri, tls)


def asking(user: str, access: HttpAccess) -> AskKms:
    """Asks as the user who will apply the policy."""

    def ask(provider: str) -> bool:
        with closing(KmsClient(provider, user, access=access)) as client:
            if client.find_ringfence_status() is not None:
                return True
            # Another KMS has no status; that it answers at all is what is wanted of it.
            client.find_keys(["ringfence-probe"])
            return False

    return ask


def _is_same(one: KmsUri, other: KmsUri) -> bool:
    hosts = {host.lower() for host in one.hosts}, {host.lower() for host in other.hosts}
    return (one.scheme, one.port, one.path) == (other.scheme, other.port, other.path) and hosts[0] == hosts[1]
