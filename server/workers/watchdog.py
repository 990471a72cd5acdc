"""Ends a process that no longer runs Python at all, such as one whose native call holds the
interpreter's lock: no thread of Python's could."""

from __future__ import annotations

import faulthandler

STDERR = 2


class Watchdog:
    """Bites after so many seconds without `pet`: writes all stacks to stderr, and ends the process.
    Its leases run out, so that others take over what it held; a supervisor starts a new one."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def pet(self) -> None:
        """All is well so far. The first time starts it."""
        faulthandler.dump_traceback_later(self._seconds, exit=True, file=STDERR)

    def chain(self) -> None:
        """It watches no more."""
        faulthandler.cancel_dump_traceback_later()
