"""`kms-acls.xml` on disk: read at the start, read again when it changed; what cannot be read changes nothing.

Source: `KMSACLs.run` and `KMSConfiguration.isACLsFileNewer`. A file that is broken or gone leaves the old ACLs in
force and says so once; a worker that starts on a broken file, or on none, does not start.
"""

from __future__ import annotations

import logging
from pathlib import Path

from ringfence_agent.kms.authorization.acls import FILE_NAME, KmsAcls, find_ineffective, read_acls
from ringfence_zones.errors import ConfigError
from ringfence_zones.hadoop_conf import HadoopConf, read_hadoop_conf

_log = logging.getLogger(__name__)


class AclFile:
    """Reads the file in one directory; None stands for no directory, so no ACLs but Hadoop's defaults. May block."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._seen: tuple[int, int, int] | None = None

    def load(self) -> KmsAcls:
        """The ACLs as they stand. Raises ConfigError for a file that cannot be used."""
        if self._directory is None:
            return read_acls(HadoopConf({}))
        self._seen = self._signature()
        if self._seen is None:
            raise ConfigError(
                f"there is no {FILE_NAME} in {self._directory}: who may do what would be a guess",
                hint="Hadoop's KMS does not start without one either; put it beside kms-site.xml. The shipped one opens"
                " everything; `<configuration/>` closes every key that no published policy names",
            )
        conf = read_hadoop_conf(self._directory, FILE_NAME)
        for problem in find_ineffective(conf).values():
            _log.warning("%s: %s", self._directory / FILE_NAME, problem)
        return read_acls(conf)

    def find_changed(self) -> KmsAcls | None:
        """The new ACLs when the file changed and can be used, None otherwise."""
        if self._directory is None or self._signature() == self._seen:
            return None
        if self._signature() is None:
            self._seen = None
            _log.error("%s is gone: the ACLs read before stay in force", self._directory / FILE_NAME)
            return None
        try:
            acls = self.load()
        except ConfigError as error:
            _log.error("the ACLs read before stay in force: %s", error.message)
            return None
        _log.info("%s was read again", self._directory / FILE_NAME)
        return acls

    def _signature(self) -> tuple[int, int, int] | None:
        assert self._directory is not None
        try:
            state = (self._directory / FILE_NAME).stat()
        except OSError:
            return None
        return state.st_mtime_ns, state.st_size, state.st_ino
