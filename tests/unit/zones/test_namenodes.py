"""NameNode addresses from configuration, and the live value a daemon shows."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from ringfence_zones.errors import ConfigError
from ringfence_zones.namenodes import LiveValue, NameNodeAddress, find_live_value, namenode_addresses

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
    """A `/conf` as Hadoop 3.4 serves it; every answer has `status` unless that is 200."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = parse_qs(urlsplit(self.path).query)["name"][0]
            known = status == 200 and name in properties
            body = json.dumps({"property": {"key": name, "value": properties.get(name), "isFinal": False}}).encode()
            self.send_response(status if status != 200 else 200 if known else 404)
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
