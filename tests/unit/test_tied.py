"""A child that is killed with its parent."""

from __future__ import annotations

import subprocess
import sys

import pytest

from server.tied import tied


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_a_tied_child_dies_with_a_parent_that_is_killed() -> None:
    script = (
        "import subprocess, sys, time; from server.tied import tied\n"
        "child = subprocess.Popen(tied(sys.executable, '-c',"
        " 'print(1, flush=True); import time; time.sleep(60)'))\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout as lines:
        said = {lines.readline(), lines.readline()}
        parent.kill()
        parent.wait()
        assert lines.read() == ""  # the end of file: nobody holds the pipe any more
    assert "1\n" in said


def test_elsewhere_a_command_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert tied("sleep", "1") == ["sleep", "1"]
