"""What YARN's ResourceManager says of applications: whether one still runs, and which carry a tag.

Source: ResourceManager REST API, `GET /ws/v1/cluster/apps/{appid}` and `GET /ws/v1/cluster/apps`, of Hadoop 3. A
standby ResourceManager answers with a redirect, which is not followed: the next one is asked.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

import requests

from ringfence_zones.errors import AuthenticationError
from ringfence_zones.hadoop_conf import split_list
from ringfence_zones.http_session import PLAIN_ACCESS, DaemonSession, HttpAccess

APPLICATION = re.compile(r"application_[0-9]{1,20}_[0-9]{1,10}")
"""`ApplicationId.toString`: the cluster's start and a number."""

_WEB = "yarn.resourcemanager.webapp."
_PORTS = {"http": 8088, "https": 8090}  # yarn-default.xml
_ENDED = frozenset({"FINISHED", "FAILED", "KILLED"})  # YarnApplicationState
_CONNECT_TIMEOUT_S = 5.0
_READ_TIMEOUT_S = 10.0
_MAX_ANSWER_BYTES = 1024 * 1024
_SHOWN_CHARACTERS = 300
_NO_SENSE = (ValueError, KeyError, TypeError, AttributeError)

_Told = TypeVar("_Told")


class Life(enum.Enum):
    """Of an application. FORGOTTEN: the ResourceManager knows none of that number, or not any more."""

    RUNNING = "running"
    ENDED = "ended"
    FORGOTTEN = "forgotten"


def resource_managers(conf: Mapping[str, str]) -> tuple[str, ...]:
    """The web addresses of every ResourceManager of yarn-site.xml; none when it names none."""
    scheme = "https" if conf.get("yarn.http.policy", "").upper() == "HTTPS_ONLY" else "http"
    name = f"{_WEB}{'https.' if scheme == 'https' else ''}address"
    members = split_list(conf.get("yarn.resourcemanager.ha.rm-ids", "")) or [""]
    found = []
    for member in members:
        suffix = f".{member}" if member else ""
        host = conf.get(f"yarn.resourcemanager.hostname{suffix}")
        address = conf.get(name + suffix) or (f"{host}:{_PORTS[scheme]}" if host else None)
        if address:
            found.append(f"{scheme}://{address}")
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Application:
    """An application as the ResourceManager lists it. `says` is what YARN tells of its end, printable and cut."""

    id: str
    user: str
    name: str
    is_over: bool
    has_succeeded: bool
    says: str


def find_life(managers: Sequence[str], application: str, access: HttpAccess = PLAIN_ACCESS) -> Life | None:
    """Whether an application runs; None when no ResourceManager tells. Raises ConfigError for trust it cannot read."""
    assert APPLICATION.fullmatch(application), "it becomes part of a URL"
    return _ask_each(
        managers, f"/ws/v1/cluster/apps/{application}", access, lambda *told: _read_life(application, *told)
    )


def find_tagged(managers: Sequence[str], tag: str, access: HttpAccess = PLAIN_ACCESS) -> list[Application] | None:
    """Every application with this tag that the ResourceManager remembers, by id; None when none tells. Whoever may
    submit to YARN chooses their tags: look at `user`. Raises ConfigError for trust it cannot read."""
    assert tag.islower() and tag.replace("-", "").isalnum(), "part of a URL; YARN keeps tags in lower case"
    return _ask_each(managers, f"/ws/v1/cluster/apps?applicationTags={tag}", access, _read_list)


def _ask_each(
    managers: Sequence[str], path: str, access: HttpAccess, read: Callable[[int, Any], _Told | None]
) -> _Told | None:
    """What the first ResourceManager says that says something which `read` (status, document) makes sense of."""
    with closing(DaemonSession(access)) as session:
        for manager in managers:
            try:
                answer = session.exchange(
                    "GET",
                    manager + path,
                    headers={"Accept": "application/json"},
                    timeout=(_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S),
                    max_bytes=_MAX_ANSWER_BYTES,
                )
                told = read(answer.status, json.loads(answer.body))
            except (requests.RequestException, AuthenticationError, *_NO_SENSE, OSError):
                continue
            if told is not None:
                return told
    return None


def _read_life(application: str, status: int, document: Any) -> Life | None:
    if status == HTTPStatus.NOT_FOUND:
        # Its own word: a wrong address answers 404 as well.
        return Life.FORGOTTEN if document["RemoteException"]["exception"] == "NotFoundException" else None
    if status != HTTPStatus.OK:
        return None
    app = document["app"]
    if app["id"] != application:
        return None
    return Life.ENDED if app["state"] in _ENDED else Life.RUNNING


def _read_list(status: int, document: Any) -> list[Application] | None:
    if status != HTTPStatus.OK:
        return None
    # {"apps": {"app": [...]}}; without any, {"apps": null} or {"apps": {}}, by release.
    listed = (document["apps"] or {}).get("app", [])
    return sorted((_read_application(app) for app in listed), key=lambda app: app.id)


def _read_application(app: Any) -> Application:
    if APPLICATION.fullmatch(app["id"]) is None:
        raise ValueError("no id of an application")
    said = " ".join(str(app.get("diagnostics", "")).split())
    return Application(
        id=app["id"],
        user=app["user"],
        name=app["name"],
        is_over=app["state"] in _ENDED,
        has_succeeded=app["state"] == "FINISHED" and app["finalStatus"] == "SUCCEEDED",
        says="".join(each if each.isprintable() else "?" for each in said)[:_SHOWN_CHARACTERS],
    )
