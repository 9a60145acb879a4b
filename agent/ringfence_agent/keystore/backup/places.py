"""Where backups go and come from, as it is written in a setting or on a command line.

FILE                 that file, which must not be there (`directory`)
DIR                  a file in that directory, named after the store, its change number and the time
s3://BUCKET/PREFIX   an object under that prefix, named likewise (`s3`, with the extra `aws`)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ringfence_agent.keystore.backup.directory import DirectoryPlace, FilePlace
from ringfence_agent.keystore.backup.file_format import BackupFile
from ringfence_agent.keystore.backup.place import BackupPlace, S3Options
from ringfence_zones.errors import InputError

S3_SCHEME = "s3://"


def parse_place(text: str, options: S3Options) -> BackupPlace:
    """The place that a text names. Raises InputError, MissingExtraError without the extra `aws` for S3."""
    if text.startswith(S3_SCHEME):
        from ringfence_agent.keystore.backup.s3 import S3Place  # noqa: PLC0415 -- the extra `aws`

        return S3Place(text, options)
    if options != S3Options():
        raise InputError(f"{text} is no S3 prefix: it takes no SSE-KMS key and no Object Lock", hint="name s3://...")
    if "://" in text or not text:
        raise InputError(f"backups cannot go to {text!r}", hint="name a file, a directory or s3://BUCKET/PREFIX")
    path = Path(text).absolute()
    return DirectoryPlace(path) if path.is_dir() or text.endswith("/") else FilePlace(path)


@contextmanager
def opened_backup(text: str) -> Iterator[BackupFile]:
    """The backup in a file or an S3 object. Raises BackupError."""
    if text.startswith(S3_SCHEME):
        from ringfence_agent.keystore.backup.s3 import fetched_object  # noqa: PLC0415 -- the extra `aws`

        with fetched_object(text) as stream:
            yield BackupFile(stream, text)
        return
    backup = BackupFile.open(Path(text).absolute())
    try:
        yield backup
    finally:
        backup.close()


def find_change_beside(text: str, store_id: str) -> int | None:
    """The highest change number of the store known where the backup `text` is; None when nothing is."""
    if text.startswith(S3_SCHEME):
        from ringfence_agent.keystore.backup.s3 import S3Place  # noqa: PLC0415 -- the extra `aws`

        return S3Place(text.rpartition("/")[0] + "/", S3Options()).find_newest_change(store_id)
    return DirectoryPlace(Path(text).absolute().parent).find_newest_change(store_id)
