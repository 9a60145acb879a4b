"""Check of the KDC: whether it answers, still has the keytab's key, and goes by the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from ringfence_agent.doctor.keytab import read_keytab
from ringfence_agent.doctor.krb5_library import ask_kdc
from ringfence_agent.doctor.proofs import keytab_of
from ringfence_agent.doctor.subject import Subject
from ringfence_zones import gssapi
from ringfence_zones.errors import AuthenticationError, ConfigError
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.named_checks import NotChecked, finding

T = TypeVar("T")

_PATIENCE_S = 20.0
# Kerberos refuses 300 s; a clock that is a minute off is on its way there.
_SKEW_WARN_S, _SKEW_ERROR_S = 60, 300


def check_kdc(subject: Subject) -> Iterator[Finding]:
    """Whether the keytab's first service principal gets a ticket, and how far the clocks are apart."""
    keytab, configured = keytab_of(subject)
    principal = _principal(keytab, configured)
    try:
        ahead_s = _within(_PATIENCE_S, lambda: ask_kdc(keytab, principal))
    except ConfigError as error:
        raise NotChecked(error.message) from error
    except AuthenticationError as error:
        message = f"the KDC gives no ticket for {principal}: {error.message}"
        hint = "this shows more; a key that was changed on the KDC must be exported again with ktadd"
        command = f"KRB5_TRACE=/dev/stderr kinit -k -t {keytab} {principal}"
        yield finding(Severity.ERROR, Rule.KDC, keytab, message, hint, command)
        return
    if abs(ahead_s) > _SKEW_WARN_S:
        severity = Severity.ERROR if abs(ahead_s) >= _SKEW_ERROR_S else Severity.WARN
        message = f"this machine's clock is {abs(ahead_s)} s {'behind' if ahead_s > 0 else 'ahead of'} the KDC's"
        hint = "run chrony or systemd-timesyncd on both: tickets are refused at 300 s"
        yield finding(severity, Rule.KDC, "this machine", message, hint)


def _principal(keytab: Path, configured: tuple[str, ...]) -> str:
    try:
        if configured:
            return gssapi.full_name(configured[0])
        services = [entry.principal for entry in read_keytab(keytab) if entry.principal.startswith("HTTP/")]
    except ConfigError as error:
        raise NotChecked(error.message) from error
    if not services:
        raise NotChecked("the keytab has no HTTP/ principal to ask with")
    return services[0]


def _within(patience_s: float, ask: Callable[[], T]) -> T:
    """What `ask` returns. The library tries every KDC for as long as it likes; after this nobody waits for it."""
    answers: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            answers.append(ask())
        except (AuthenticationError, ConfigError) as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="kdc", daemon=True)
    thread.start()
    thread.join(patience_s)
    if errors:
        raise errors[0]
    if not answers:
        raise AuthenticationError(f"no answer within {patience_s:g} s")
    return answers[0]
