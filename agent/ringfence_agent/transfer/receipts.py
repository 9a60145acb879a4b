"""What a receipt says of a transfer, from the ledger alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ringfence_agent.transfer.config import NEVER_KEPT
from ringfence_agent.transfer.record import Item, Transfer, Zone
from ringfence_zones.receipt import (
    Receipt,
    ReceiptEnd,
    ReceiptFile,
    ReceiptGrant,
    ReceiptPolicy,
    ReceiptZone,
    files_digest,
)

_ATTRIBUTES = ("mode", "times", "owner", "group")


def receipt_of(transfer: Transfer, items: Sequence[Item], *, cluster: str, finished_ms: int, signer: str) -> Receipt:
    """The body to sign. Every file of the transfer was verified."""
    request, grant = transfer.request, transfer.grant
    files = [_file(item) for item in items if not item.is_directory]
    return Receipt(
        transfer=transfer.id,
        cluster=cluster,
        source=_end(request.source, request.source_zones, (item.key_version for item in items)),
        target=_end(
            request.target,
            () if request.target_zone is None else (request.target_zone,),
            (item.copy_key_version for item in items),
        ),
        requested_by=request.user,
        copied_as=request.copy_as,
        purpose=request.purpose,
        policy=ReceiptPolicy(revision=transfer.allowed.revision, sha256=transfer.allowed.digest),
        grant=None if grant is None else ReceiptGrant(id=grant.id, approver=grant.approver, purpose=grant.purpose),
        submitted_ms=transfer.submitted_ms,
        finished_ms=finished_ms,
        kept=sorted(request.keep),
        not_kept=sorted({*NEVER_KEPT, *(each for each in _ATTRIBUTES if each not in request.keep)}),
        source_removed=transfer.source_removed,
        file_count=len(files),
        bytes=sum(file.bytes for file in files),
        files=files,
        files_sha256=files_digest(files),
        signer=signer,
    )


def _file(item: Item) -> ReceiptFile:
    assert item.sha256 is not None
    return ReceiptFile(path=item.path, bytes=item.bytes, sha256=item.sha256)


def _end(path: str, zones: Iterable[Zone], versions: Iterable[str | None]) -> ReceiptEnd:
    return ReceiptEnd(
        path=path,
        zones=[ReceiptZone(path=zone.path, key=zone.key) for zone in zones],
        key_versions=sorted({version for version in versions if version is not None}),
    )
