"""YARN as a transfer sees it, in a file beside the tests' HDFS: jobs that go on by one map with each look at them.

What it remembers outlives the process that submitted, as YARN does; it lies outside the directory whose changes are
crash points. The maps write what `copy_task` would, so that the engine's tests need no Java.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local_hdfs import LocalHdfs

from ringfence_agent.transfer.yarn_commands import JobOrder
from ringfence_zones.errors import TransferError, YarnUnavailableError
from ringfence_zones.yarn import Application


class LocalYarn:
    """`yarn_commands.Yarn` over a file. `alter` may change the records of a part before it is written; `fails` ends
    each job at its next map; `is_away` answers nobody; `forgets` lists no application that is over."""

    def __init__(self, hdfs: LocalHdfs, directory: Path, user: str = "masker") -> None:
        self._hdfs = hdfs
        self._path = directory.with_name(f"yarn-of-{directory.name}.json")
        self._user = user
        self.alter: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda records: records
        self.fails = self.is_away = self.forgets = False
        self.refuses: str | None = None
        self.most_alive = 0

    @property
    def apps(self) -> list[dict[str, Any]]:
        """Every application there ever was, oldest first."""
        return json.loads(self._path.read_text()) if self._path.exists() else []

    def _keep(self, apps: list[dict[str, Any]]) -> None:
        self._path.write_text(json.dumps(apps))

    def add(self, name: str, tag: str, user: str = "masker", state: str = "RUNNING", directory: str = "") -> str:
        """An application; its id."""
        apps = self.apps
        made = {"id": f"application_1_{len(apps):04}", "name": name, "tag": tag, "user": user, "state": state}
        self._keep([*apps, {**made, "directory": directory, "source": "", "maps": 0, "attempt": 0}])
        return str(made["id"])

    def check(self) -> None:
        if self.is_away:
            raise YarnUnavailableError("away")

    def submit(self, order: JobOrder) -> None:
        if self.refuses is not None:
            raise TransferError(self.refuses)
        self.add(order.name, order.tag, directory=order.directory)
        apps = self.apps
        apps[-1]["source"] = order.source
        self._keep(apps)

    def find(self, tag: str) -> list[Application]:
        if self.is_away:
            raise YarnUnavailableError("away")
        alive = [app for app in self.apps if app["state"] == "RUNNING"]
        self.most_alive = max(self.most_alive, len(alive))
        for app in alive:
            self._go_on(app["id"])
        return [_application(app) for app in self.apps if app["tag"] == tag and not (self.forgets and _is_over(app))]

    def kill(self, application: str) -> None:
        self._set(application, state="KILLED")

    def _go_on(self, application: str) -> None:
        app = next(app for app in self.apps if app["id"] == application)
        if not app["directory"]:
            return
        listing = self._hdfs.local(f"{app['directory']}/listing")
        if self.fails or not listing.exists():
            self._set(application, state="FAILED")
            return
        lines = listing.read_text().splitlines()
        self._set(application, attempt=app["attempt"] + 1)
        records = [
            self._copy(app, f"{app['maps']:06}_{app['attempt']}", file) for file in json.loads(lines[app["maps"]])
        ]
        out = self._hdfs.local(f"{app['directory']}/out")
        out.mkdir(exist_ok=True)
        (out / "_temporary").write_text("".join(json.dumps(record) + "\t\n" for record in self.alter(records)))
        (out / "_temporary").rename(out / f"part-{app['maps']:05}")
        done = app["maps"] + 1
        self._set(application, maps=done, state="SUCCEEDED" if done == len(lines) else "RUNNING")

    def _copy(self, app: dict[str, Any], attempt: str, file: dict[str, Any]) -> dict[str, Any]:
        source = self._hdfs.local(f"{app['source']}/{file['path']}".rstrip("/"))
        copy = f"{file['number']}.m_{attempt}"
        content = source.read_bytes()
        self._hdfs.write_new(f"{app['directory']}/copies/{copy}", content)
        digest = hashlib.sha256(content).hexdigest()
        read = {"bytes_read": len(content), "sha256_read": digest, "bytes_back": len(content), "sha256_back": digest}
        return {"path": file["path"], "copy": copy, **read}

    def _set(self, application: str, **values: Any) -> None:
        self._keep([{**app, **values} if app["id"] == application else app for app in self.apps])


def _is_over(app: dict[str, Any]) -> bool:
    return bool(app["state"] != "RUNNING")


def _application(app: dict[str, Any]) -> Application:
    said = "its last attempt failed" if app["state"] == "FAILED" else ""
    return Application(app["id"], app["user"], app["name"], _is_over(app), app["state"] == "SUCCEEDED", said)
