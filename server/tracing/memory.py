"""Which trace a generation belongs to, as far as this process has met it: so each line of the log
that names a generation names its trace, too, whoever writes it."""

from __future__ import annotations

import logging
import threading

MOST = 10_000


class Memory(logging.Filter):
    """A filter that lets everything pass. Forgets those that were met longest ago."""

    def __init__(self, most: int = MOST) -> None:
        super().__init__()
        self._most = most
        self._lock = threading.Lock()
        self._traces: dict[str, str] = {}

    def keep(self, generation: str, trace: str) -> None:
        """From now on."""
        with self._lock:
            self._traces.pop(generation, None)
            self._traces[generation] = trace
            if len(self._traces) > self._most:
                del self._traces[next(iter(self._traces))]

    def filter(self, record: logging.LogRecord) -> bool:
        """Say the trace, where the line does not say one itself."""
        trace = self._traces.get(getattr(record, "generation", ""))
        if trace is not None and not hasattr(record, "trace"):
            vars(record)["trace"] = trace
        return True

    def begin(self) -> None:
        """In all that the process logs."""
        for handler in logging.getLogger().handlers:
            handler.addFilter(self)

    def end(self) -> None:
        """No more."""
        for handler in logging.getLogger().handlers:
            handler.removeFilter(self)
