"""Security configurations in the account: made, looked at, removed.

One is never changed: EMR has no call for it, and clusters that ran with it would not follow. So the same document under
the same name is nothing to do, and another document needs another name; a cluster takes it when it is created.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Sequence

from ringfence_bootstrap.account.emr_calls import AccountCluster, EmrCalls, StoredConfiguration
from ringfence_bootstrap.releases import Release
from ringfence_bootstrap.security_configuration.compare import differences, is_same, told
from ringfence_bootstrap.security_configuration.document import SecurityConfiguration
from ringfence_bootstrap.security_configuration.reading import parse_document
from ringfence_zones.cli.render import counted
from ringfence_zones.errors import DocumentError, RingfenceError

_SHOWN = 3


def create(calls: EmrCalls, name: str, document: SecurityConfiguration, release: Release) -> bool:
    """Stores the document; False when the account has this very document under this name already.

    Raises RingfenceError when it has another one there, and AwsError. The document was linted for the release before.
    """
    found = calls.find_security_configuration(name)
    if found is None:
        if calls.create_security_configuration(name, document.text()):
            return True
        # Somebody was faster, or an answer was lost and the SDK asked again.
        found = get(calls, name)
    _require_same(found, document, release)
    return False


def get(calls: EmrCalls, name: str) -> StoredConfiguration:
    """The one of this name. Raises RingfenceError that names the nearest."""
    found = calls.find_security_configuration(name)
    if found is None:
        names = [each.name for each in calls.list_security_configurations()]
        near = difflib.get_close_matches(name, names, n=1)
        raise RingfenceError(
            f"there is no security configuration {name!r} in {calls.region}"
            + (f": did you mean {near[0]!r}?" if near else ""),
            hint="names are of one region and account" if names else "this account has none in this region",
            command=f"ringfence emr security-config list --region {calls.region}",
        )
    return found


def delete(
    calls: EmrCalls, name: str, *, used_too: bool, before: Callable[[StoredConfiguration], None] | None = None
) -> tuple[StoredConfiguration, list[AccountCluster]]:
    """Removes it; what it was, and the clusters that were made with it. What `before` raises keeps it.

    Raises RingfenceError when clusters that are not down name it and not `used_too`.
    """
    found = get(calls, name)
    users = users_of(calls.active_clusters(), name)
    if users and not used_too:
        names = ", ".join(each.label for each in users[:_SHOWN])
        more = f" and {len(users) - _SHOWN} more" if len(users) > _SHOWN else ""
        raise RingfenceError(
            f"{counted(len(users), 'cluster')} that {'is' if len(users) == 1 else 'are'} not down"
            f" {'was' if len(users) == 1 else 'were'} made with {name!r}: {names}{more}",
            hint="they would go on as they are, but nobody could read any more what they encrypt, nor make one like"
            " them; keep it until they are gone, or give --yes",
        )
    if before is not None:
        before(found)
    calls.delete_security_configuration(name)
    return found, users


def users_of(clusters: Sequence[AccountCluster], name: str) -> list[AccountCluster]:
    """Those that were made with the configuration of this name."""
    return [each for each in clusters if each.security_configuration == name]


def document_of(stored: StoredConfiguration) -> SecurityConfiguration:
    """The document as the account has it. Raises DocumentError for one that cannot be read."""
    return parse_document(stored.text, f"security configuration {stored.name}")


def _require_same(found: StoredConfiguration, document: SecurityConfiguration, release: Release) -> None:
    try:
        stored = document_of(found)
    except DocumentError:
        what = "what cannot be read as a security configuration"
    else:
        if is_same(stored, document):
            return
        what = told(differences(stored, document))
    since = f" since {found.created:%Y-%m-%d}" if found.created is not None else ""
    new_name = following_name(found.name)
    raise RingfenceError(
        f"the account has another document under {found.name!r}{since}: {what}",
        hint="a security configuration cannot be changed, and clusters that run keep theirs: store this one under a new"
        " name and create clusters with that",
        command=f"ringfence emr security-config create {shlex.quote(new_name)} {shlex.quote(document.name)}"
        f" --release {release}",
    )


def following_name(name: str) -> str:
    """`analytics-2` after `analytics`, `analytics-3` after that."""
    match = re.fullmatch(r"(.*?)(-?)(\d{1,6})", name)
    return f"{match[1]}{match[2]}{int(match[3]) + 1:0{len(match[3])}d}" if match is not None else f"{name}-2"
