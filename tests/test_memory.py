"""Freed memory is kept where the C library allows it."""

import platform

from setexp.memory import keep_freed_memory


def test_glibc_takes_the_settings_and_others_are_left_alone() -> None:
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
