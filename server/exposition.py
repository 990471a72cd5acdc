"""What a process counts, as Prometheus' text, and how those of one machine tell it together.

A scrape reaches one process of several. So each shows what it counts on a unix socket, under a
name, and the one that Prometheus asks asks all sockets that lie beside its own. The label `process`
keeps them apart: who is started again begins at 0, as a counter of Prometheus may.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

log = logging.getLogger("darkroom.metrics")

PATIENCE_SECONDS = 1.0
"""With a process beside us that does not say what it counts."""
ENDING = ".sock"


class Exposition:
    """One per process. `place` is its socket, named after the process; None: it is told of alone,
    without the label."""

    def __init__(self, registry: CollectorRegistry, place: Path | None) -> None:
        self._registry = registry
        self._place = place
        self._listener: socket.socket | None = None

    def start(self) -> None:
        """Show it from now on, on a thread. What a process of this name has left is removed."""
        if self._place is None:
            return
        try:
            self._listener = _listening(self._place)
        except OSError as error:
            log.warning("others cannot tell what this process counts: %s: %s", self._place, error)
            return
        show = threading.Thread(target=self._show, args=(self._listener,), name="darkroom-metrics")
        show.daemon = True
        show.start()

    def stop(self) -> None:
        """Show it no more."""
        if self._place is None or self._listener is None:
            return
        self._place.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # or the thread would wait on
        self._listener.close()
        self._listener = None

    def text(self) -> str:
        """What this process counts."""
        if self._place is None:
            return _text(self._registry)
        return generate_latest(_Named(self._registry, self._place.stem)).decode()

    async def gathered(self, shared: CollectorRegistry) -> bytes:
        """What all of this machine count, and `shared`, which is the same whoever tells it."""
        own, common = self.text(), _text(shared)
        others = await _others(self._place) if self._place and _is_ours(self._place) else {}
        told = [text for text in others.values() if text is not None]
        return merged([own, common, *told, *_presence(self._place, others)]).encode()

    def _show(self, listener: socket.socket) -> None:
        while True:
            try:
                asker, _ = listener.accept()
            except OSError:  # it was stopped
                return
            with asker:
                self._tell(asker)

    def _tell(self, asker: socket.socket) -> None:
        asker.settimeout(PATIENCE_SECONDS)
        try:
            asker.sendall(self.text().encode())
        except OSError:  # it has gone
            return
        except Exception:  # without this thread nobody would ever hear of this process again
            log.exception("what this process counts cannot be told")


def _listening(place: Path) -> socket.socket:
    if not _is_ours(place):
        raise PermissionError("others than its owner may write to its folder")
    if place.is_socket():  # of a process of this name that was killed
        place.unlink()
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(place))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def _is_ours(place: Path) -> bool:
    """Whether nobody else can put a socket beside it."""
    with contextlib.suppress(OSError):
        folder = place.parent.stat()
        return folder.st_uid == os.geteuid() and not folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return False


def merged(texts: Iterable[str]) -> str:
    """One text of several: all samples of a metric must stand together."""
    heads: defaultdict[str, dict[str, str]] = defaultdict(dict)
    samples: defaultdict[str, list[str]] = defaultdict(list)
    for text in texts:
        name = ""
        for line in text.rstrip("\n").split(
            "\n"
        ):  # not at all that Unicode calls the end of a line
            if line.startswith("#"):
                _, kind, name, _ = line.split(" ", 3)
                heads[name].setdefault(kind, line)
            else:
                samples[name].append(line)
    lines = (line for name, head in heads.items() for line in (*head.values(), *samples[name]))
    return "".join(f"{line}\n" for line in lines)


class _Named:
    """A registry whose samples say which process they are of."""

    def __init__(self, registry: CollectorRegistry, process: str) -> None:
        self._registry = registry
        self._process = process

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            family.samples = [
                sample._replace(labels={"process": self._process, **sample.labels})
                for sample in family.samples
            ]
            yield family


def _text(registry: CollectorRegistry) -> str:
    return generate_latest(registry).decode()


def _presence(place: Path | None, others: dict[str, str | None]) -> Iterator[str]:
    """Who is told of; where there is a socket and nobody answers, that is told."""
    if place is None:
        return
    up = GaugeMetricFamily(
        "darkroom_process_up",
        "Whether a process of this machine says what it counts.",
        labels=["process"],
    )
    for name, text in sorted({place.stem: "", **others}.items()):
        up.add_metric([name], float(text is not None))
    registry = CollectorRegistry()
    registry.register(_Only(up))
    yield _text(registry)


class _Only:
    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family


async def _others(place: Path) -> dict[str, str | None]:
    """What each of those beside us says; None of one that says nothing."""
    found = sorted(path for path in place.parent.glob(f"*{ENDING}") if path != place)
    texts = await asyncio.gather(*map(_said, found))
    return {path.stem: text for path, text in zip(found, texts, strict=True)}


async def _said(place: Path) -> str | None:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            reader, writer = await asyncio.open_unix_connection(place)
            try:
                said = await reader.read()
                # Of one that was killed meanwhile a part may have come.
                return said.decode() if said.endswith(b"\n") else None
            finally:
                writer.close()
    except (OSError, TimeoutError, UnicodeDecodeError):
        return None
