"""Provider URIs as Hadoop writes them."""

from __future__ import annotations

import pytest

from ringfence_zones.errors import ConfigError
from ringfence_zones.kms_uri import parse_kms_uri


@pytest.mark.parametrize(
    ("text", "origins", "path"),
    [
        ("kms://http@localhost:9600/kms", ("http://localhost:9600",), "/kms"),
        ("kms://https@kms.example.com:9494/kms/", ("https://kms.example.com:9494",), "/kms"),
        ("kms://http@a;b;c:16000/kms", ("http://a:16000", "http://b:16000", "http://c:16000"), "/kms"),
        ("kms://https@kms/proxy/kms", ("https://kms:9600",), "/proxy/kms"),
        (" kms://http@10.0.0.1:9600 ", ("http://10.0.0.1:9600",), ""),
    ],
)
def test_hosts_port_and_path_are_read_as_hadoop_reads_them(text: str, origins: tuple[str, ...], path: str) -> None:
    uri = parse_kms_uri(text)
    assert uri.origins == origins
    assert uri.path == path
    assert uri.is_plain_http == text.strip().startswith("kms://http@")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "NONE",
        "http://localhost:9600/kms",
        "kms://localhost:9600/kms",
        "kms://ftp@localhost:9600/kms",
        "kms://http@:9600/kms",
        "kms://http@a;;b:9600/kms",
        "kms://http@localhost:0/kms",
        "kms://http@localhost:99999/kms",
        "kms://http@local host:9600/kms",
        "kms://http@user@localhost:9600/kms",
        "jceks://file/etc/kms.jceks",
    ],
)
def test_anything_else_is_refused_with_the_form_to_use(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_kms_uri(text)
    assert "kms://http@HOST:9600/kms" in (caught.value.hint or "")
