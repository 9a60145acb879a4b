"""`ringfence kms status`: how the key server on this machine is, on one screen, asked over its Unix socket.

The kernel tells the server who asks: root and the server's own user are told everything. Whom the socket does not
serve is shown what the server tells over HTTP (`kms_status_http`), and why it is no more. From other machines
`ringfence status` shows what every user may know.
"""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from typing import Any

import click

from ringfence_agent.cli.kms_options import admin_socket_option, config_option, keystore_option
from ringfence_agent.cli.kms_status_http import find_over_http
from ringfence_agent.kms.config import Options, Places, find_places
from ringfence_zones.cli.context import CommandContext, global_options, hadoop_conf_given
from ringfence_zones.cli.render import counted, print_json, shown
from ringfence_zones.errors import AccessDeniedError, KmsUnavailableError, RingfenceError
from ringfence_zones.unix_http import UnixHTTPConnection

STATUS_SCHEMA = 1
# Longer than the server's own deadline for a key store that does not answer.
_TIMEOUT_S = 15.0
_MAX_ANSWER_BYTES = 1024 * 1024
_PATH = "/ringfence/v1/status"
_SOON_DAYS = 14


@click.command()
@config_option
@keystore_option
@admin_socket_option
@global_options
def status(context: CommandContext, config: Path | None, keystore: str | None, admin_socket: Path | None) -> None:
    """Show how the key server on this machine is; exit 1 when it does not answer or is not ready."""
    options = Options(config=config, hadoop_conf=hadoop_conf_given(), keystore=keystore)
    # With its socket named, a key server is found without settings; they are needed to find its port.
    is_placed = admin_socket is None or options.config is not None or options.hadoop_conf is not None
    places = find_places(options) if is_placed else None
    socket = admin_socket or (places.admin_socket if places is not None else None)
    assert socket is not None, "one of the two names it"
    try:
        found = _ask(socket)
        lines = _lines(found)
    except _SocketClosedError as closed:
        found = _ask_over_http(places, context, closed.error)
        lines = _lines_over_http(found)
    if context.json:
        print_json({"schema": STATUS_SCHEMA, **found})
    else:
        for label, text in lines:
            click.echo(f"{label:<9}{shown(text)}")
    if not found["server"]["ready"]:
        click.get_current_context().exit(1)


def find_server(socket: Path) -> dict[str, Any] | None:
    """What the key server behind a socket says of itself; None when none says anything there."""
    try:
        return dict(_ask(socket)["server"])
    except (_SocketClosedError, KmsUnavailableError):
        return None


def _ask_over_http(places: Places | None, context: CommandContext, closed: RingfenceError) -> dict[str, Any]:
    """Raises `closed` when nobody answers there either."""
    told = None
    if places is not None:
        told = find_over_http(places.host, places.port, places.hadoop_conf or context.hadoop_conf, context.user)
    if told is None:
        raise closed
    return {**told, "limited": closed.message}


class _SocketClosedError(Exception):
    """The socket does not serve this user, or there is none: `error` says so to people."""

    def __init__(self, error: RingfenceError) -> None:
        self.error = error


def _ask(socket: Path) -> dict[str, Any]:
    """Raises _SocketClosedError, and KmsUnavailableError for a server that refuses."""
    try:
        with closing(UnixHTTPConnection(socket, _TIMEOUT_S)) as connection:
            connection.request("GET", _PATH, headers={"Host": "localhost"})
            answer = connection.getresponse()
            body = answer.read(_MAX_ANSWER_BYTES)
        found = json.loads(body) if answer.status == HTTPStatus.OK else {}
    except PermissionError as error:
        raise _SocketClosedError(_not_ours(socket)) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        nobody = KmsUnavailableError(
            f"no key server answers on {socket}",
            hint="start it, or name its settings with --config FILE or --hadoop-conf DIR, or its socket with"
            " --admin-socket PATH",
        )
        raise _SocketClosedError(nobody) from error
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise KmsUnavailableError(
            f"the key server on {socket} refuses: {_message(body)}", hint="see to what it names; its log says more"
        )
    if "server" not in found:
        raise _SocketClosedError(_not_ours(socket))
    return dict(found)


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["RemoteException"]["message"])
    except (ValueError, KeyError, TypeError):
        return "it does not say why"


def _not_ours(socket: Path) -> AccessDeniedError:
    return AccessDeniedError(
        f"the key server on {socket} tells only root and its own user how it is",
        hint="run this as one of them; `ringfence status` shows what every user may know",
    )


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    server = found["server"]
    lines = [
        ("KMS", f"{server['address']}, Ringfence {found['version']}, up {_duration(server['uptime_s'])}"),
        ("ready", _ready(server)),
        *(("problem", problem) for problem in server["problems"]),
        ("workers", _workers(server)),
        ("store", f"{server['store']}, {'keys unknown' if server['keys'] is None else counted(server['keys'], 'key')}"),
        ("checked", _checked(server["store_check"])),
        ("backup", _backup(server["backup"])),
        ("policy", f"revision {found['revision']}" if found["revision"] else "none published"),
        *(("flows", text) for text in _flows(found)),
        ("users", _authentication(found["authentication"])),
        ("TLS", _certificate(server)),
        ("audit", _audit(server["audit"])),
        ("revoked", f"a key or right taken away is refused within {server['revocation_bound_s']:g} s"),
    ]
    return lines + [("risk", risk) for risk in server["risks"]]


def _lines_over_http(found: dict[str, Any]) -> list[tuple[str, str]]:
    server = found["server"]
    version = "" if found["version"] is None else f", Ringfence {found['version']}"
    lines = [("KMS", server["address"] + version), ("ready", "yes" if server["ready"] else "NO")]
    if found["revision"] is not None:
        lines.append(("policy", f"revision {found['revision']}" if found["revision"] else "none published"))
    return [*lines, ("TLS", _certificate(server)), ("limited", found["limited"])]


def _ready(server: dict[str, Any]) -> str:
    if not server["ready"]:
        return "NO"
    return "yes, but DEGRADED: some keys cannot be opened now" if server.get("degraded") else "yes"


def _workers(server: dict[str, Any]) -> str:
    each = ", ".join(
        f"pid {worker['pid']} ({counted(worker['connections'], 'connection')})" for worker in server["workers"]
    )
    return f"{len(server['workers'])}: {each}; {counted(server['worker_crashes'], 'sudden death')} since the start"


def _authentication(kind: str) -> str:
    return "simple: user names are claims that nobody proves" if kind == "simple" else f"proven by {kind}"


def _certificate(server: dict[str, Any]) -> str:
    certificate = server["certificate"]
    if certificate is None:
        return "off: plain HTTP"
    days = certificate["days_left"]
    warning = "" if days >= _SOON_DAYS else ": RENEW IT"
    return f"certificate until {certificate['not_after']}, {counted(days, 'day')} left{warning}"


def _checked(check: dict[str, Any]) -> str:
    if check["problem"] is not None:
        return f"NOT GENUINE: {check['problem']}"
    return "not yet" if check["genuine_at"] is None else f"all of the store was genuine at {check['genuine_at']}"


def _backup(backup: dict[str, Any] | None) -> str:
    if backup is None:
        return "none after changes: see backup in kms.yaml"
    newest = backup["newest"] or "none yet"
    text = f"{newest}, up to change {backup['change_number']}"
    if backup["age_s"] is not None:
        text += f", {_duration(int(backup['age_s']))} old"
    if backup["behind_s"]:
        text += f"; BEHIND for {_duration(int(backup['behind_s']))}"
    return text if backup["problem"] is None else f"{text}; FAILED: {backup['problem']}"


def _flows(found: dict[str, Any]) -> list[str]:
    """Nothing without flow rules, and of a server that is older than they are."""
    flows, memory = found.get("flows"), found["server"].get("flow_memory")
    if flows is None or memory is None:
        return []
    edges = counted(flows["edges"], "allowed flow")
    if flows["refuses"]:
        text = f"enforced, {edges}: {counted(memory['refusals'], 'opening')} refused"
    else:
        why = "recorded only" if flows["mode"] == "shadow" else "RECORDED ONLY, for callers only claim their names"
        text = f"{why}, {edges}: {counted(memory['shadow_refusals'], 'opening')} would have been refused"
    if memory["undecided"]:
        text += f", {memory['undecided']} could not be decided"
    return [text if memory["problem"] is None else f"{text}; CANNOT BE DECIDED NOW: {memory['problem']}"]


def _audit(audit: dict[str, Any]) -> str:
    text = f"{audit['directory']} ({audit['format']}), {audit['unsynced_ms']} ms not yet on disk"
    if audit["lost"]:
        text += f", {counted(audit['lost'], 'record')} LOST"
    return text if audit["required"] else text + ", not required"


def _duration(seconds: int) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
