"""A slot for a root key file, which is made when it is not there yet.

The file is on disk under its temporary name before the slot is committed, and gets its own name afterwards. A process
killed in between leaves a slot whose file has the temporary name: running the same again finishes, or begins anew when
no slot is of that file, which then may not even be whole.
"""

from __future__ import annotations

from pathlib import Path

from ringfence_agent.keystore.local_files import check_directory, directory_locked
from ringfence_agent.keystore.protected_store import StoreSlots
from ringfence_agent.keystore.protectors.file import FileProtector, new_root_key_text, read_root_key
from ringfence_agent.keystore.slots import Slot
from ringfence_zones.durable_file import install_durably, prepared_name, sync, write_new_file
from ringfence_zones.errors import StoreUnavailableError


def protect_with_file(slots: StoreSlots, path: Path) -> Slot:
    """The active slot afterwards, this file's. Raises ConfigError for a file or directory that cannot be trusted."""
    check_directory(path.parent, "root key file")
    prepared = prepared_name(path)
    try:
        with directory_locked(path.parent):
            if path.exists():
                if prepared.exists() and prepared.samefile(path):
                    prepared.unlink()  # a process died between the two names
                return slots.protect_with(FileProtector.from_file(path))
            if not (_is_whole(prepared) and slots.have_slot_of(_named(path, prepared))):
                prepared.unlink(missing_ok=True)
                write_new_file(prepared, new_root_key_text())
                sync(path.parent)
            slot = slots.protect_with(_named(path, prepared))
            install_durably(prepared, path)
            return slot
    except OSError as exc:
        raise StoreUnavailableError(
            f"root key file {path} could not be made: {exc.strerror}",
            hint="see to space and permissions, then repeat it",
        ) from exc


def _is_whole(prepared: Path) -> bool:
    """Whether it is there and was not cut short by a kill: no slot is of such a file, for one is made when the file is
    on disk. What is whole and cannot be read is an error: it may be the only way into a store.
    """
    return prepared.exists() and prepared.stat().st_size >= len(new_root_key_text())


def _named(path: Path, prepared: Path) -> FileProtector:
    """The file that is still under its temporary name, called by the name that it will have."""
    return FileProtector(read_root_key(prepared), path)
