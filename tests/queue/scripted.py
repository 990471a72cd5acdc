"""A studio that draws nothing: it finishes when told, or after so many ticks."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from server.forecast import Load, Speed
from server.spec import GenerationState, ImageInfo, Metrics, Progress
from server.stages import Stage
from server.workers.stage import Claim, Drawn, Ended, Finish, Handed, Pulse, Result


def done(claim: Claim) -> Drawn | Handed:
    """What a claim comes to: its images, or what the next stage takes."""
    return handed(claim) if claim.following else drawn(claim)


def handed(claim: Claim) -> Handed:
    """What a claim gives to the next stage, under keys that hold its execution."""
    keys = [
        f"{claim.id}/stage-{claim.number}-{index}-{claim.execution}.png"
        for index in range(claim.spec.num_images)
    ]
    return Handed(keys=keys, metrics=metrics(claim), warnings=())


def drawn(claim: Claim) -> Drawn:
    """The images of a claim, as stored under a key that holds its execution."""
    spec = claim.spec
    images = [
        ImageInfo(
            key=f"{claim.id}/{index}-{claim.execution}.png",
            seed=spec.seed + index,
            width=spec.width,
            height=spec.height,
            sha256="0" * 64,
        )
        for index in range(spec.num_images)
    ]
    return Drawn(images=images, metrics=metrics(claim), warnings=())


def metrics(claim: Claim) -> Metrics:
    """A tenth of a second for all steps."""
    return Metrics(
        queue_seconds=0.0,
        encode_seconds=0.0,
        denoise_seconds=0.1,
        decode_seconds=0.0,
        publish_seconds=0.0,
        total_seconds=0.1,
        steps=claim.spec.num_inference_steps,
        mean_batch_rows=1.0,
        peak_memory_bytes=0,
        worker="scripted",
    )


class ScriptedStudio:
    """Remembers what it was told. `ticks`: finish each claim after so many; None: when told."""

    def __init__(self, *, capacity: int = 4, ticks: int | None = None, tick_seconds: float = 0.02):
        self.capacity = capacity
        self.ticks = ticks
        self.tick_seconds = tick_seconds
        self.admitted: list[Claim] = []
        self.canceled: list[str] = []
        self.abandoned: list[str] = []
        self.discarded: list[str] = []
        self.claims: dict[str, Claim] = {}
        self.steps: dict[str, int] = {}
        self.most_at_once = 0
        self._closed = threading.Event()
        self._lock = threading.RLock()

    def start(self, finish: Finish) -> None:
        self._finish = finish
        if self.ticks is not None:
            threading.Thread(target=self._run, daemon=True).start()

    def room(self) -> int:
        with self._lock:
            return self.capacity - sum(c.spec.num_images for c in self.claims.values())

    def admit(self, claim: Claim) -> None:
        with self._lock:
            self.admitted.append(claim)
            self.claims[claim.id] = claim
            self.steps[claim.id] = 0
            self.most_at_once = max(self.most_at_once, len(self.claims))

    def cancel(self, claim: Claim) -> None:
        if self._draws(claim):
            self.canceled.append(claim.id)
            self.end(claim.id, Ended(GenerationState.CANCELED))

    def abandon(self, claim: Claim) -> None:
        with self._lock:
            if self._draws(claim):
                self.abandoned.append(claim.id)
                del self.claims[claim.id]

    def discard(self, keys: Sequence[str]) -> None:
        self.discarded.extend(keys)

    def progress(self) -> dict[str, Progress]:
        with self._lock:
            return {
                id: Progress(steps_done=self.steps[id], steps_total=self.ticks or 10)
                for id in self.claims
            }

    def speed(self) -> Speed | None:
        return None

    def least_seconds(self, stage: Stage) -> float:
        return 0.0

    def load(self, more: Stage | None = None) -> Load:
        with self._lock:
            stages = [claim.stage for claim in self.claims.values()] + ([more] if more else [])
        images = sum(stage.spec.num_images for stage in stages)
        return Load(2.0 * images, 1.0 * images, 1.0 * images)

    def pulse(self) -> Pulse:
        return Pulse()

    def step_age(self) -> float:
        return 0.0

    def lost(self) -> BaseException | None:
        return None

    def close(self, seconds: float) -> bool:
        self._closed.set()
        return True

    def end(self, id: str, result: Result | None = None) -> None:
        """Finish one claim, by default with its images."""
        with self._lock:
            claim = self.claims.pop(id, None)
        if claim is not None:
            self._finish(claim, result or done(claim))

    def _draws(self, claim: Claim) -> bool:
        return self.claims.get(claim.id) == claim

    def _run(self) -> None:
        while not self._closed.wait(self.tick_seconds):
            for id in list(self.claims):
                self.steps[id] += 1
                if self.steps[id] >= (self.ticks or 0):
                    self.end(id)
