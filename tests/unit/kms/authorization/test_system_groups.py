"""What the operating system says of users and groups, and what is made of its not saying anything."""

from __future__ import annotations

import ctypes
import errno
import grp
import os
import pwd
from typing import Any

import pytest

from ringfence_agent.kms.authorization import system_groups
from ringfence_agent.kms.authorization.system_groups import look_up_system_groups
from ringfence_zones.errors import StoreUnavailableError

KNOWN = [entry.pw_name for entry in pwd.getpwall()][:20]


@pytest.mark.parametrize("user", KNOWN)
def test_groups_are_those_that_the_system_lists(user: str) -> None:
    ids = os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
    assert look_up_system_groups(user) == {grp.getgrgid(group_id).gr_name for group_id in ids}


@pytest.mark.parametrize("user", ["no-such-user-here", "", "a\0b", "ä" * 50, "\udcff"])
def test_a_user_that_is_not_there_is_in_no_group(user: str) -> None:
    assert look_up_system_groups(user) == frozenset()


def test_a_group_without_a_name_is_left_out() -> None:
    assert system_groups._find_group_name(3_999_999_999) is None


@pytest.mark.parametrize("problem", [errno.EIO, errno.EAGAIN, errno.ECONNREFUSED, errno.ENOENT, errno.ENOMEM])
def test_a_directory_that_is_down_is_no_answer(problem: int) -> None:
    with pytest.raises(StoreUnavailableError, match="could not look up alice"):
        system_groups._find_primary_group(b"alice", lambda *_: problem)
    with pytest.raises(StoreUnavailableError, match="could not look up group 7"):
        system_groups._find_group_name(7, lambda *_: problem)


def test_an_entry_that_does_not_fit_is_asked_for_again_with_more_room_and_not_without_end() -> None:
    lengths: list[int] = []

    def too_small(_key: Any, _entry: Any, _buffer: Any, length: ctypes.c_size_t, _result: Any) -> int:
        lengths.append(length.value)
        return errno.ERANGE

    with pytest.raises(StoreUnavailableError):
        system_groups._find_group_name(7, too_small)
    assert lengths == sorted(set(lengths)) and lengths[-1] <= 16 * 1024 * 1024


def test_an_interrupted_question_is_asked_again() -> None:
    answers = iter([errno.EINTR, errno.EINTR, 0])
    assert system_groups._find_primary_group(b"alice", lambda *_: next(answers)) is None
