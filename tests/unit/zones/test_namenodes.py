"""NameNode addresses from configuration, and the live value a daemon shows."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from ringfence_zones.errors import ConfigError
from ringfence_zones.namenodes import (
    LiveValue,
    NameNodeAddress,
    find_listed_by_all,
    find_live_value,
    is_down,
    namenode_addresses,
)

HA = {
    "fs.defaultFS": "hdfs://cluster",
    "dfs.nameservices": "cluster, other",
    "dfs.ha.namenodes.cluster": "nn1, nn2",
    "dfs.namenode.rpc-address.cluster.nn1": "host1:8020",
    "dfs.namenode.rpc-address.cluster.nn2": "host2:8020",
    "dfs.namenode.http-address.cluster.nn1": "host1:9870",
    "dfs.namenode.http-address.cluster.nn2": "0.0.0.0:19870",
}


@pytest.mark.parametrize(
    ("conf", "addresses"),
    [
        ({"fs.defaultFS": "hdfs://nn"}, [("nn:8020", "http://nn:9870")]),
        ({"fs.defaultFS": "hdfs://nn:9000"}, [("nn:9000", "http://nn:9870")]),
        (
            {"fs.defaultFS": "hdfs://nn:9000", "dfs.namenode.http-address": "0.0.0.0:50070"},
            [("nn:9000", "http://nn:50070")],
        ),
        (
            {"fs.defaultFS": "hdfs://nn:9000", "dfs.http.policy": "HTTPS_ONLY"},
            [("nn:9000", "https://nn:9871")],
        ),
        (
            {"fs.defaultFS": "hdfs://nn:9000", "dfs.namenode.rpc-address": "nn.internal:8020"},
            [("nn.internal:8020", "http://nn.internal:9870")],
        ),
        (HA, [("host1:8020", "http://host1:9870"), ("host2:8020", "http://host2:19870")]),
    ],
)
def test_every_namenode_is_found(conf: dict[str, str], addresses: list[tuple[str, str]]) -> None:
    assert namenode_addresses(conf) == tuple(NameNodeAddress(*address) for address in addresses)


@pytest.mark.parametrize("uri", [None, "file:///", "s3://bucket", "hdfs:///"])
def test_a_default_file_system_that_is_no_hdfs_is_refused(uri: str | None) -> None:
    with pytest.raises(ConfigError, match=r"fs\.defaultFS"):
        namenode_addresses({} if uri is None else {"fs.defaultFS": uri})


def test_a_namenode_without_an_address_is_named() -> None:
    conf = {name: value for name, value in HA.items() if name != "dfs.namenode.rpc-address.cluster.nn2"}
    with pytest.raises(ConfigError, match=r"dfs\.namenode\.rpc-address\.cluster\.nn2"):
        namenode_addresses(conf)


@contextmanager
def conf_servlet(status: int, properties: dict[str, str]) -> Iterator[NameNodeAddress]:
    """A `/conf` as Hadoop 3.4 serves it; every answer has `status` unless that is 200.

    It keeps a connection open, and hangs up on a second request on it, as the NameNode's Jetty does now and then.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        answered = False

        def do_GET(self) -> None:
            if self.answered:
                self.close_connection = True
                return
            self.answered = True
            name = parse_qs(urlsplit(self.path).query)["name"][0]
            known = status == 200 and name in properties
            body = json.dumps({"property": {"key": name, "value": properties.get(name), "isFinal": False}}).encode()
            self.send_response(status if status != 200 else 200 if known else 404)
            self.send_header("Content-Length", str(len(body) if known else 0))
            self.end_headers()
            if known:
                self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield NameNodeAddress("localhost:8020", f"http://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_live_value_is_read() -> None:
    with conf_servlet(200, {"fs.defaultFS": "hdfs://nn", "p": "/a, /b"}) as address:
        assert find_live_value(address, "p") == LiveValue(known=True, value="/a, /b")


def test_a_property_that_is_not_set_is_told_from_a_servlet_that_is_not_there() -> None:
    with conf_servlet(200, {"fs.defaultFS": "hdfs://nn"}) as address:
        assert find_live_value(address, "p") == LiveValue(known=False, value="")
    with conf_servlet(200, {}) as address:
        assert find_live_value(address, "p") is None


@pytest.mark.parametrize("status", [301, 401, 403, 404, 500])
def test_a_closed_web_interface_is_none_and_no_guess(status: int) -> None:
    with conf_servlet(status, {}) as address:
        assert find_live_value(address, "p") is None


def test_a_daemon_that_is_down_is_none() -> None:
    with conf_servlet(200, {}) as address:
        pass
    assert find_live_value(address, "p") is None


def closed_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def test_a_list_is_what_every_namenode_holds() -> None:
    with (
        conf_servlet(200, {"fs.defaultFS": "hdfs://nn", "p": "/a, /b"}) as one,
        conf_servlet(200, {"fs.defaultFS": "hdfs://nn", "p": "/b,/c"}) as other,
        conf_servlet(403, {}) as closed,
    ):
        assert find_listed_by_all([one, other], "p") == ("/b",)
        assert find_listed_by_all([one, closed], "p") is None, "it runs, and may hold another list"


def test_a_namenode_that_does_not_run_is_left_out_while_another_one_tells() -> None:
    down = NameNodeAddress(f"127.0.0.1:{closed_port()}", f"http://127.0.0.1:{closed_port()}")
    with conf_servlet(200, {"fs.defaultFS": "hdfs://nn", "p": "/a"}) as one:
        assert find_listed_by_all([down, one], "p") == ("/a",)
        assert find_listed_by_all([one, down], "p") == ("/a",)
        # Its RPC port listens: it runs, and its web interface is what is closed.
        half = NameNodeAddress(f"127.0.0.1:{urlsplit(one.web).port}", down.web)
        assert not is_down(half)
        assert find_listed_by_all([one, half], "p") is None
    assert find_listed_by_all([down], "p") is None, "nobody tells"


def test_a_host_that_cannot_be_reached_is_not_known_to_be_down() -> None:
    assert not is_down(NameNodeAddress("nowhere.invalid:8020", "http://nowhere.invalid:9870"))
