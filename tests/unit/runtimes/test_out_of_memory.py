"""Telling the kernel's out-of-memory killer from somebody's ``kill -9``."""

from __future__ import annotations

from pathlib import Path

from guactors.runtimes.process import OutOfMemoryWatch


def test_it_rises_once_for_each_rise(tmp_path: Path) -> None:
    events, vmstat = tmp_path / "memory.events", tmp_path / "vmstat"
    events.write_text("low 0\noom 1\noom_kill 1\noom_group_kill 0\n")
    vmstat.write_text("nr_free_pages 7\noom_kill 4\n")
    watch = OutOfMemoryWatch([(str(events), "oom_kill"), (str(vmstat), "oom_kill")])
    assert not watch.rose()
    vmstat.write_text("nr_free_pages 8\noom_kill 5\n")
    assert watch.rose()
    assert not watch.rose()
    events.write_text("oom_kill 2\n")
    assert watch.rose()


def test_missing_or_strange_counters_are_passed_over(tmp_path: Path) -> None:
    strange = tmp_path / "strange"
    strange.write_text("oom_kill\noom_kill many\n")
    watch = OutOfMemoryWatch([(str(strange), "oom_kill"), (str(tmp_path / "none"), "oom_kill")])
    assert not watch.rose()


def test_a_counter_that_appears_later_is_no_rise(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    watch = OutOfMemoryWatch([(str(counter), "oom_kill")])
    counter.write_text("oom_kill 3\n")
    assert not watch.rose()
