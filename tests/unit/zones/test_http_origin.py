"""An address in configuration is a scheme, a host and a port, or it is none."""

from __future__ import annotations

import pytest

from ringfence_zones.http_origin import HttpOrigin, find_origin


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://Vault1.example.com", HttpOrigin("https", "vault1.example.com", None)),
        ("https://vault_1.example.com.:8200/", HttpOrigin("https", "vault_1.example.com.", 8200)),
        ("http://127.0.0.1:1", HttpOrigin("http", "127.0.0.1", 1)),
        ("https://[2001:db8::1]:65535", HttpOrigin("https", "2001:db8::1", 65535)),
    ],
)
def test_the_parts_of_an_address(text: str, origin: HttpOrigin) -> None:
    assert find_origin(text) == origin


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert HttpOrigin("https", "::1", None).bracketed_host == "[::1]"
    assert HttpOrigin("https", "a", None).bracketed_host == "a"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "host:8200",
        "ftp://host",
        "https://",
        "https://host/path",
        "https://host?q",
        "https://host#f",
        "https://user@host",
        "https://@host",
        "https://user:word@host",
        "https://host:0",
        "https://host:65536",
        "https://host:x",
        "https://ho st",
        "https://ho\nst",
        "https://host\n",
        " https://host",
        "https://ho\x07st",
        "https://hóst",
        "https://[::1",
        "https://[zz::1]",
        "https://-host",
        "https://host-",
        "https://a..b",
        "https://.",
        "https://[::1%25eth0]",
        f"https://{'a' * 254}",
        "https://host\\x",
    ],
)
def test_what_is_no_address(text: str) -> None:
    assert find_origin(text) is None
