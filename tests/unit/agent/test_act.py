"""Pinning is carried out on every NameNode, and believed only when the running NameNodes follow."""

from __future__ import annotations

import enum
from pathlib import Path

import pytest
from fake_namenode import FakeNameNode

from ringfence_agent.act import Pinner, PinStep
from ringfence_agent.pins import PinMemory, PinPlan, merge_pins, read_pin_file
from ringfence_agent.steps import OnStep, unheard
from ringfence_zones.errors import ConfigError, NameNodeUnavailableError, RingfenceError

CORE_SITE = (
    "<configuration>\n  <!-- ours -->\n  <property>\n    <name>fs.protected.directories</name>\n"
    "    <value>/apps</value>\n  </property>\n</configuration>\n"
)


@pytest.fixture
def conf_dir(tmp_path: Path) -> Path:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "core-site.xml").write_text(CORE_SITE)
    return tmp_path / "conf"


def _memory(conf_dir: Path) -> PinMemory:
    return PinMemory(conf_dir.parent / "state", conf_dir / "core-site.xml")


def _pin(hdfs: FakeNameNode, conf_dir: Path, roots: list[str], *, on_step: OnStep = unheard) -> None:
    memory = _memory(conf_dir)
    file = read_pin_file(conf_dir)
    owned = memory.load()
    plan = merge_pins(file.entries, roots, owned, hdfs.protected_directories())
    pinner = Pinner(hdfs, memory, timeout_s=5.0, pause=lambda _: None, on_step=on_step)
    pinner.carry_out(plan, file, owned)


def test_every_namenode_reloads_and_only_the_value_changes(conf_dir: Path) -> None:
    hdfs = FakeNameNode(conf_dir, namenodes=2)
    _pin(hdfs, conf_dir, ["/z"])
    assert hdfs.reloads == ["nn1:8020", "nn2:8020"]
    assert hdfs.protected_directories() == ("/apps", "/z")
    assert (conf_dir / "core-site.xml").read_text() == CORE_SITE.replace("/apps", "/apps,/z")
    assert _memory(conf_dir).load() == {"/z"}


def test_a_root_that_left_is_unpinned_and_the_administrators_entry_stays(conf_dir: Path) -> None:
    hdfs = FakeNameNode(conf_dir)
    _pin(hdfs, conf_dir, ["/z"])
    _pin(hdfs, conf_dir, [])
    assert hdfs.protected_directories() == ("/apps",)
    assert (conf_dir / "core-site.xml").read_text() == CORE_SITE
    assert _memory(conf_dir).load() == frozenset()


def test_one_namenode_down_does_not_keep_the_other_unpinned(conf_dir: Path) -> None:
    hdfs = FakeNameNode(conf_dir, namenodes=2)
    hdfs.fail_reload_of = {"nn1:8020": NameNodeUnavailableError("it is down")}
    with pytest.raises(RingfenceError, match=r"nn1:8020: it is down"):
        _pin(hdfs, conf_dir, ["/z"])
    assert hdfs.reloads == ["nn2:8020"]
    hdfs.fail_reload_of = {}
    _pin(hdfs, conf_dir, ["/z"])
    assert hdfs.protected_directories() == ("/apps", "/z")


def test_a_refused_value_is_an_error(conf_dir: Path) -> None:
    hdfs = FakeNameNode(conf_dir)
    hdfs.refuses_value = "Property fs.protected.directories is not reconfigurable"
    with pytest.raises(RingfenceError, match="not reconfigurable"):
        _pin(hdfs, conf_dir, ["/z"])


def test_a_namenode_that_reads_another_file_is_found_out(conf_dir: Path) -> None:
    hdfs = FakeNameNode(conf_dir)
    hdfs.reads_other_file = True
    with pytest.raises(RingfenceError, match="do not follow") as caught:
        _pin(hdfs, conf_dir, ["/z"])
    assert "namenode_conf_dir" in (caught.value.hint or "")


def test_a_reload_that_never_ends_has_a_deadline(conf_dir: Path) -> None:
    hdfs = FakeNameNode(conf_dir)
    hdfs._busy = 10**9
    clock = iter(range(10**6))
    plan = PinPlan(entries=("/z",), added=(), removed=(), owned=frozenset(), reload=True, forget=False)
    pinner = Pinner(hdfs, _memory(conf_dir), timeout_s=30, pause=lambda _: None, clock=lambda: float(next(clock)))
    with pytest.raises(RingfenceError, match="did not finish reloading within 30 s"):
        pinner.carry_out(plan, read_pin_file(conf_dir), frozenset())


@pytest.mark.parametrize("step", PinStep)
def test_a_crash_at_any_step_is_completed_by_the_next_attempt(conf_dir: Path, step: PinStep) -> None:
    hdfs = FakeNameNode(conf_dir)

    def kill(reached: enum.StrEnum) -> None:
        if reached is step:
            raise _KilledError

    with pytest.raises(_KilledError):
        _pin(hdfs, conf_dir, ["/z"], on_step=kill)
    listed = set(read_pin_file(conf_dir).entries)
    assert listed <= {"/apps"} | _memory(conf_dir).load(), "nothing is listed that is not remembered"
    _pin(hdfs, conf_dir, ["/z"])
    assert hdfs.protected_directories() == ("/apps", "/z")
    assert _memory(conf_dir).load() == {"/z"}
    with pytest.raises(_KilledError):
        _pin(hdfs, conf_dir, [], on_step=kill)
    _pin(hdfs, conf_dir, [])
    assert hdfs.protected_directories() == ("/apps",)
    assert _memory(conf_dir).load() == frozenset()
    assert (conf_dir / "core-site.xml").read_text() == CORE_SITE


class _KilledError(BaseException):
    pass


def test_an_unwritable_state_directory_stops_before_anything_changed(conf_dir: Path) -> None:
    hdfs = FakeNameNode(conf_dir)
    (conf_dir.parent / "state").write_text("in the way")
    file = read_pin_file(conf_dir)
    plan = merge_pins(file.entries, ["/z"], [], hdfs.protected_directories())
    with pytest.raises(ConfigError, match="state"):
        Pinner(hdfs, _memory(conf_dir), timeout_s=5).carry_out(plan, file, frozenset())
    assert (conf_dir / "core-site.xml").read_text() == CORE_SITE
    assert hdfs.reloads == []
