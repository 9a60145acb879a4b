"""`ringfence receipt verify`: whether a receipt is what an agent signed. Reads two files and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from ringfence_zones.cli.command_group import CommandGroup
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.render import counted, print_json, shown
from ringfence_zones.errors import InputError
from ringfence_zones.receipt import MAX_RECEIPT_BYTES, Receipt, read_public_key, verify_receipt


@click.group(cls=CommandGroup)
def receipt() -> None:
    """Receipts of transfers: verify them anywhere, from the receipt and the agent's public key alone."""


@receipt.command()
@click.argument("receipt_file", metavar="RECEIPT", type=click.Path(path_type=Path))
@click.option(
    "--key", "key_file", required=True, type=click.Path(path_type=Path), metavar="PUB", help="the agent's public key"
)
@global_options
def verify(context: CommandContext, receipt_file: Path, key_file: Path) -> None:
    """Verify that RECEIPT is what the holder of the key PUB signed, to the last byte.

    Exit code 0 when it is, 1 when it is not, 2 when one of the files cannot be used. Needs no network, no configuration
    and no Hadoop.
    """
    public_key = read_public_key(_read(key_file), str(key_file))
    verified = verify_receipt(_read(receipt_file), public_key)
    if context.json:
        print_json(verified.model_dump())
    else:
        click.echo("\n".join(_lines(verified)))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_RECEIPT_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _lines(receipt: Receipt) -> list[str]:
    revision = receipt.policy.revision
    allowed = f"policy revision {revision}" if revision is not None else "a policy that was not published"
    if receipt.grant is not None:
        allowed = f"grant {receipt.grant.id} of {receipt.grant.approver} ({receipt.grant.purpose}), under {allowed}"
    finished = datetime.fromtimestamp(receipt.finished_ms / 1000, UTC).isoformat(timespec="seconds")
    facts = {
        "verified": f"transfer {receipt.transfer} on {receipt.cluster}",
        "from": _end(receipt.source.path, receipt.source.key_versions),
        "to": _end(receipt.target.path, receipt.target.key_versions),
        "moved": f"{counted(receipt.file_count, 'file')}, {receipt.bytes} bytes, SHA-256 {receipt.files_sha256}",
        "who": f"{receipt.requested_by}, copied as {receipt.copied_as}",
        "allowed by": allowed,
        "finished": finished,
        "source": "removed after verification" if receipt.source_removed else "left where it is",
        "signed by": receipt.signer,
    }
    return [f"{name:<11} {shown(value)}" for name, value in facts.items()]


def _end(path: str, key_versions: list[str]) -> str:
    return f"{path} ({', '.join(key_versions) or 'in clear text'})"
