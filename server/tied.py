"""A process that does not outlive the one that started it, where the system can do that."""

from __future__ import annotations

import os
import sys

# Runs in a fresh interpreter and then becomes the command, so nothing of ours runs after a fork.
_TIE = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


def tied(*command: str) -> list[str]:
    """The command, made to get SIGTERM when the thread that starts it dies, however it dies.

    Only Linux can do that; elsewhere a child may outlive a parent that was killed with SIGKILL.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _TIE, str(os.getpid()), *command]
