"""The editor changes one value and not one byte more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence_zones.errors import ConfigError
from ringfence_zones.hadoop_conf import read_hadoop_conf
from ringfence_zones.hadoop_xml import read_property, remove_properties, replace_document, set_property

NAME = "fs.protected.directories"

# What administrators and cluster managers really write: each keeps its quirks around the edited value.
HEAD = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<?xml-stylesheet type="text/xsl" href="configuration.xsl"?>\n'
    b"<!-- managed by hand: <value>not this</value> -->\n<configuration>\n"
    b"\t<property>\r\n\t\t<name>fs.defaultFS</name><value>hdfs://nn:8020</value></property>\n\n"
)
TAIL = b"  <!-- last -->\n</configuration>\n<!-- after -->\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(b"  <property><name>%s</name>\n<value>" % NAME.encode(), b"</value></property>\n", id="plain"),
        pytest.param(
            b'<property\n  x="a>b"><description>d</description><name> %s </name><value\t>' % NAME.encode(),
            b"</value ><final>true</final></property>",
            id="blanks-quotes-and-final",
        ),
    ],
)
def test_only_the_value_changes(before: bytes, after: bytes) -> None:
    document = HEAD + before + b"/old,/older" + after + TAIL
    assert set_property(document, NAME, "/data/a,/data/b") == HEAD + before + b"/data/a,/data/b" + after + TAIL


def test_an_absent_property_is_added_after_the_last_in_its_style() -> None:
    document = b"<configuration>\r\n\t<property>\r\n\t\t<name>a</name>\r\n\t</property>\r\n</configuration>\r\n"
    assert set_property(document, NAME, "/z") == (
        b"<configuration>\r\n\t<property>\r\n\t\t<name>a</name>\r\n\t</property>"
        b"\r\n\t<property>\r\n\t\t<name>fs.protected.directories</name>\r\n\t\t<value>/z</value>\r\n\t</property>"
        b"\r\n</configuration>\r\n"
    )


@pytest.mark.parametrize(
    "document", [b"<configuration/>", b"<configuration></configuration>", b"<configuration>\n</configuration>\n"]
)
def test_an_empty_configuration_takes_a_property(document: bytes) -> None:
    edited = set_property(document, NAME, "/z")
    assert edited.count(b"<property>") == 1
    assert read_property(edited, NAME) is not None


@pytest.mark.parametrize(
    "value", [b"<value/>", b"<value />", b"<value></value>", b"", b"<value><![CDATA[/a]]></value>"]
)
def test_every_way_of_writing_a_value_is_replaced(value: bytes) -> None:
    document = b"<configuration><property><name>%s</name>%s</property></configuration>" % (NAME.encode(), value)
    edited = set_property(document, NAME, "/z")
    assert edited == document.replace(b"</name>" + value, b"</name><value>/z</value>")


def _two(first: bytes, second: bytes, extra: bytes = b"") -> bytes:
    one = b"<property><name>%s</name><value>%s</value>%s</property>"
    return (
        b"<configuration>"
        + one % (NAME.encode(), first, extra)
        + one % (NAME.encode(), second, b"")
        + b"</configuration>"
    )


def test_of_two_with_the_name_the_last_counts_as_in_hadoop() -> None:
    assert set_property(_two(b"/1", b"/2"), NAME, "/z") == _two(b"/1", b"/z")


def test_a_final_one_counts_over_a_later_one_as_in_hadoop() -> None:
    final = b"<final>true</final>"
    assert set_property(_two(b"/1", b"/2", final), NAME, "/z") == _two(b"/z", b"/2", final)


@given(
    values=st.lists(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\ufffe\uffff")), min_size=1),
    encoding=st.sampled_from(["UTF-8", "US-ASCII", "ISO-8859-1"]),
)
def test_what_is_written_is_read_back_or_refused(values: list[str], encoding: str) -> None:
    document = f'<?xml version="1.0" encoding="{encoding}"?><configuration></configuration>'.encode("ascii")
    for value in values:
        try:
            document = set_property(document, NAME, value)
        except ConfigError:
            assert any(ord(character) < 32 or ord(character) in (0xFFFE, 0xFFFF) for character in value)
            continue
        written = read_property(document, NAME)
        assert written is not None
        assert written.value == value


def test_the_reader_of_hadoop_conf_agrees(tmp_path: Path) -> None:
    document = set_property(HEAD + TAIL, NAME, "/Zonenwürzel,/a & b,/<c>")
    (tmp_path / "core-site.xml").write_bytes(document)
    conf = read_hadoop_conf(tmp_path, "core-site.xml")
    assert conf.get_list(NAME) == ["/Zonenwürzel", "/a & b", "/<c>"]
    assert conf["fs.defaultFS"] == "hdfs://nn:8020"


@pytest.mark.parametrize(
    ("document", "because"),
    [
        (b"<configuration>", "well-formed"),
        (b"", "well-formed"),
        (b"<conf/>", "top element"),
        (b'<!DOCTYPE c [<!ENTITY a "b">]><configuration/>', "document type"),
        (b'<configuration xmlns:xi="x"><xi:include href="y.xml"/></configuration>', "XInclude"),
        (b'<?xml version="1.0" encoding="windows-1252"?><configuration/>', "encoding"),
        ("<configuration/>".encode("utf-16"), "UTF-16"),
        (b'<configuration><property name="%s" value="/a"/></configuration>' % NAME.encode(), "attribute"),
        (
            b"<configuration><property><name>n</name><value>1</value><value>2</value></property></configuration>",
            "two values",
        ),
    ],
)
def test_a_file_that_could_be_misread_is_refused(document: bytes, because: str) -> None:
    with pytest.raises(ConfigError, match=because):
        set_property(document, NAME, "/z")


def test_replacing_keeps_mode_and_link_and_leaves_nothing_beside(tmp_path: Path) -> None:
    real = tmp_path / "real.xml"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link = tmp_path / "core-site.xml"
    link.symlink_to(real)
    replace_document(link, b"new", expected=b"old")
    assert real.read_bytes() == b"new"
    assert link.is_symlink()
    assert real.stat().st_mode & 0o7777 == 0o640
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["core-site.xml", "real.xml"]


def test_replacing_keeps_the_owner(tmp_path: Path) -> None:
    # Only root can give a file away; anybody else can at least not lose their own.
    owner = (1234, 2345) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    path = tmp_path / "core-site.xml"
    path.write_bytes(b"old")
    os.chown(path, *owner)
    replace_document(path, b"new", expected=b"old")
    assert (path.stat().st_uid, path.stat().st_gid) == owner


def test_a_file_changed_in_between_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "core-site.xml"
    path.write_bytes(b"somebody else's")
    with pytest.raises(ConfigError, match="changed while"):
        replace_document(path, b"new", expected=b"old")
    assert path.read_bytes() == b"somebody else's"
    assert [entry.name for entry in tmp_path.iterdir()] == ["core-site.xml"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.xml"):
        replace_document(tmp_path / "nothing.xml", b"new", expected=b"old")


def _property(value: str, more: str = "") -> str:
    return f"<property><name>{NAME}</name><value>{value}</value>{more}</property>"


# What Configuration.getRaw of Hadoop 3.4.2 says for each of these.
@pytest.mark.parametrize(
    ("properties", "seen_by_hadoop"),
    [
        (_property("/a", "<final>true</final>") + _property("/b"), "/a"),
        (_property("/a", "<final>TRUE</final>") + _property("/b"), "/b"),
        (_property("/a", "<final> true </final>") + _property("/b"), "/b"),
        (f'<property name="{NAME}" final="True"><value>/a</value></property>' + _property("/b"), "/b"),
        (_property("/a") + _property(""), "/a"),
        (_property("/a") + f"<property><name>{NAME}</name></property>", "/a"),
        (f"<property><name>x</name><name>{NAME}</name><value>/a</value></property>", "/a"),
    ],
)
def test_reader_and_editor_take_the_value_that_hadoop_takes(
    tmp_path: Path, properties: str, seen_by_hadoop: str
) -> None:
    document = f"<configuration>{properties}</configuration>".encode()
    (tmp_path / "core-site.xml").write_bytes(document)
    assert read_hadoop_conf(tmp_path, "core-site.xml")[NAME] == seen_by_hadoop
    found = read_property(document, NAME)
    assert found is not None and found.value == seen_by_hadoop
    (tmp_path / "core-site.xml").write_bytes(set_property(document, NAME, "/z"))
    assert read_hadoop_conf(tmp_path, "core-site.xml")[NAME] == "/z"


@pytest.mark.parametrize(
    "content",
    [
        f"<extra>{_property('/n')}</extra>",
        _property("/a<b>/c</b>,/d"),
        _property("/a", "<description><value>/q</value></description>"),
        _property("/a", "<description><final>true</final></description>"),
        '<property><i:include xmlns:i="http://www.w3.org/2001/XInclude" href="more.xml"/></property>',
    ],
)
def test_what_hadoop_reads_where_nobody_looks_is_refused(tmp_path: Path, content: str) -> None:
    document = f"<configuration>{content}</configuration>".encode()
    (tmp_path / "core-site.xml").write_bytes(document)
    with pytest.raises(ConfigError):
        read_hadoop_conf(tmp_path, "core-site.xml")
    with pytest.raises(ConfigError):
        read_property(document, NAME)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_a_property_that_was_added_is_taken_out_without_a_trace(line_end: bytes) -> None:
    document = (HEAD + TAIL).replace(b"\r", b"").replace(b"\n", line_end)
    assert remove_properties(set_property(document, NAME, "/z"), [NAME]) == document


def test_a_property_that_shares_its_line_leaves_the_rest_of_it() -> None:
    document = b"<configuration><property><name>a</name><value>1</value></property> <property><name>b</name></property>"
    assert remove_properties(document + b"</configuration>", ["a", "c"]) == (
        b"<configuration> <property><name>b</name></property></configuration>"
    )
