"""Pinning is carried out on every NameNode, and believed only when the running NameNodes follow."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_namenode import FakeNameNode

from ringfence_agent.act import Pinner
from ringfence_agent.pins import PinMemory, PinPlan, merge_pins, read_pin_file
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


def _pin(hdfs: FakeNameNode, conf_dir: Path, roots: list[str], timeout_s: float = 5.0) -> None:
    memory = _memory(conf_dir)
    file = read_pin_file(conf_dir)
    owned = memory.load()
    plan = merge_pins(file.entries, roots, owned, hdfs.protected_directories())
    Pinner(hdfs, memory, timeout_s=timeout_s, pause=lambda _: None).carry_out(plan, file, owned)


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


def test_a_crash_at_any_step_is_completed_by_the_next_attempt(conf_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hdfs = FakeNameNode(conf_dir)
    steps = ["memory", "edit", "reload", "verify", "forget"]
    for step in steps:
        (conf_dir / "core-site.xml").write_text(CORE_SITE)
        hdfs.restart()
        _memory(conf_dir).save([])
        with monkeypatch.context() as broken, pytest.raises(_KilledError):
            _break(broken, step, hdfs)
            _pin(hdfs, conf_dir, ["/z"])
        _pin(hdfs, conf_dir, ["/z"])
        assert hdfs.protected_directories() == ("/apps", "/z"), step
        assert _memory(conf_dir).load() == {"/z"}, step
        _pin(hdfs, conf_dir, [])
        assert hdfs.protected_directories() == ("/apps",), step
        assert (conf_dir / "core-site.xml").read_text() == CORE_SITE, step


class _KilledError(BaseException):
    pass


def _break(patch: pytest.MonkeyPatch, step: str, hdfs: FakeNameNode) -> None:
    import ringfence_agent.act as act

    saves = 0
    real_save = PinMemory.save

    def killed(*_arguments: object, **_options: object) -> None:
        raise _KilledError

    def killed_after_first(memory: PinMemory, owned: object) -> None:
        nonlocal saves
        saves += 1
        if saves == 2:
            raise _KilledError
        real_save(memory, owned)  # type: ignore[arg-type]

    if step == "memory":
        patch.setattr(PinMemory, "save", killed)
    elif step == "edit":
        patch.setattr(act, "edit_pin_file", killed)
    elif step == "reload":
        patch.setattr(hdfs, "start_reconfiguration", killed)
    elif step == "verify":
        patch.setattr(Pinner, "_verify", killed)
    else:
        patch.setattr(PinMemory, "save", killed_after_first)


def test_an_unwritable_state_directory_stops_before_anything_changed(conf_dir: Path) -> None:
    hdfs = FakeNameNode(conf_dir)
    (conf_dir.parent / "state").write_text("in the way")
    file = read_pin_file(conf_dir)
    plan = merge_pins(file.entries, ["/z"], [], hdfs.protected_directories())
    with pytest.raises(ConfigError, match="state"):
        Pinner(hdfs, _memory(conf_dir), timeout_s=5).carry_out(plan, file, frozenset())
    assert (conf_dir / "core-site.xml").read_text() == CORE_SITE
    assert hdfs.reloads == []
