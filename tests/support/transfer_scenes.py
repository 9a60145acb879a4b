"""A transfer on a `LocalHdfs`, ready to be run, killed and run again."""

from __future__ import annotations

import threading
from pathlib import Path

from local_hdfs import LocalHdfs
from local_yarn import LocalYarn

from ringfence_agent.transfer.engine import Engine
from ringfence_agent.transfer.job import JobCopier
from ringfence_agent.transfer.ledger import Ledger
from ringfence_agent.transfer.progress import Meter
from ringfence_agent.transfer.receipts import receipt_of
from ringfence_agent.transfer.record import Allowed, Request, State, Transfer, Zone
from ringfence_agent.transfer.signing import open_signer
from ringfence_agent.transfer.streams import Streams

SOURCE, TARGET = "/data/pii/export", "/data/masked/export"
ID = "0123456789abcdef" * 2
FILES = {"a": b"first" * 1000, "b": b"", "sub/c": b"third" * 300}


class Scene:
    """A state directory and a file system, both in `directory`."""

    def __init__(
        self,
        directory: Path,
        *,
        remove_source: bool = False,
        keep: tuple[str, ...] = ("mode", "times"),
        target: str = TARGET,
    ) -> None:
        self.directory = directory
        self.remove_source = remove_source
        self.keep = keep
        self.target = target
        self.hdfs = LocalHdfs(directory)
        self.stop = threading.Event()
        self.refused: Exception | None = None
        self.max_bytes = 1 << 40
        self.yarn = LocalYarn(self.hdfs, directory)
        self.job_above: int | None = None
        self.ungranted: Zone | None = None
        self.meter = Meter()

    def make_source(self) -> None:
        """The files, and one empty directory."""
        for name, content in FILES.items():
            self.hdfs.write(f"{SOURCE}/{name}", content)
        self.hdfs.local(f"{SOURCE}/empty").mkdir()

    def open_ledger(self) -> Ledger:
        return Ledger(self.directory / "transfers.sqlite")

    def request(self) -> Request:
        return Request(
            user="masker",
            copy_as="masker",
            source=SOURCE,
            target=self.target,
            source_zones=(Zone(path="/data/pii", key="k-pii"),),
            target_zone=Zone(path="/data/masked", key="k-masked"),
            remove_source=self.remove_source,
            keep=self.keep,
        )

    def submit(self, ledger: Ledger) -> None:
        """The transfer, unless it is there."""
        if ledger.find_repeated("masker", "once") is None:
            ledger.add(ID, self.request(), Allowed(revision=7, digest="a" * 64), 1000, State.QUEUED, "once")

    def engine(self, ledger: Ledger) -> Engine:
        signer = open_signer(self.directory)

        def check_allowed(_transfer: Transfer) -> None:
            if self.refused is not None:
                raise self.refused

        return Engine(
            ID,
            ledger,
            self.hdfs,
            self.hdfs,
            check_allowed=check_allowed,
            make_receipt=lambda transfer, items, at_ms: signer.sign(
                receipt_of(transfer, items, cluster="hdfs://nn:8020", finished_ms=at_ms, signer=signer.name)
            ),
            # One after the other, so that a crash point is the same one each time.
            streams=Streams(self.hdfs, self.meter, 1),
            job=self.job(ledger),
            job_above=self.job_above,
            max_nodes=100,
            max_bytes=self.max_bytes,
            stop=self.stop,
            clock_ms=lambda: 2000,
        )

    def job(self, ledger: Ledger) -> JobCopier:
        return JobCopier(
            ledger,
            self.hdfs,
            self.yarn,
            self.meter,
            find_ungranted=lambda _transfer: self.ungranted,
            queue=None,
            at_least=3,
            stop=self.stop,
            poll_s=0.0,
        )

    def run(self) -> Transfer:
        """Submits it if need be, and goes on until it is over."""
        ledger = self.open_ledger()
        try:
            self.submit(ledger)
            self.engine(ledger).run()
            return ledger.get(ID)
        finally:
            ledger.close()

    def receipt(self) -> bytes:
        ledger = self.open_ledger()
        try:
            found = ledger.find_receipt(ID)
        finally:
            ledger.close()
        assert found is not None
        return found

    def leftovers(self) -> list[str]:
        """What a transfer makes for itself and has to take away."""
        return [str(path) for path in self.hdfs.root.rglob("_ringfence_*")]
