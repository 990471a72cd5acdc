"""What goes wrong, in an order that dice decide: one thing after the other, none announced."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from tests.chaos.house import CHECKPOINTS, Gate, Hand, House
from tests.chaos.places import PLACES, Needs

TICK_SECONDS = 0.02
STUBBORN_LEASES = 3.0
"""When the circumstances of a fail point are brought about once more."""


# What is done to it, and for how many leases: often for longer than one, so that it is robbed.
WORKER_TROUBLES: dict[str, tuple[Callable[[Hand], None], float, float]] = {
    "freeze_a_worker": (lambda hand: hand.send(signal.SIGSTOP), 1.2, 1.6),
    "cut_a_worker_off": (lambda hand: hand.link.cut(), 0.2, 1.5),
    "let_a_worker_hear_nothing": (lambda hand: hand.link.mute(), 0.2, 1.5),
    "lose_replies_to_a_worker": (lambda hand: hand.link.lose(), 0.5, 1.5),
    "slow_a_worker_down": (lambda hand: hand.link.delay(), 0.3, 1.5),
}
GATEWAY_TROUBLES: dict[str, Callable[[Gate], None]] = {
    "cut_a_gateway_off": lambda gate: gate.link.cut(),
    "let_a_gateway_hear_nothing": lambda gate: gate.link.mute(),
    "lose_replies_to_a_gateway": lambda gate: gate.link.lose(),
}


@dataclass(frozen=True, slots=True)
class Victim:
    """A generation that was in the hands of a worker when it was killed. Times since the epoch."""

    id: str
    killed_at: float


class Storm:
    """Each of `blows` as often as it says, and `rounds` deaths at each fail point.

    What is no trouble of somebody is the name of a method here.
    """

    def __init__(self, house: House, dice: random.Random, blows: Counter[str], rounds: int) -> None:
        self._house, self._dice = house, dice
        deck = [*blows.elements(), *(place for place in PLACES for _ in range(rounds))]
        dice.shuffle(deck)
        self._deck = deque(deck)
        self._armed: Hand | None = None
        self._armed_at = 0.0
        self._undo: list[tuple[float, Callable[[], Any]]] = []
        self._opening: list[Future[None]] = []
        self._began = time.monotonic()
        self._next_at = 0.0
        self._redis_up = True
        self.struck: Counter[str] = Counter()
        self.met: Counter[str] = Counter()
        self.victims: list[Victim] = []
        self.stranded: list[tuple[str, float]] = []
        """Ids that somebody had popped and not claimed yet when a worker died."""
        self.outages: list[tuple[float, float]] = []
        self.complaints: list[str] = []
        self.diary: list[str] = []

    def rage(self, seconds: float) -> None:
        """Until the deck is empty; a complaint if that takes too long."""
        deadline = time.monotonic() + seconds
        while self._deck or self._armed or self._undo or self._opening:
            if time.monotonic() > deadline:
                armed = self._armed.dies if self._armed else "nobody"
                self.complaints.append(f"not all was met: {armed} is armed, {list(self._deck)}")
                break
            self._tick()
            time.sleep(TICK_SECONDS)  # the pace of the storm
        self._calm()

    def _tick(self) -> None:
        now = time.monotonic()
        for due, action in list(self._undo):
            if now >= due:
                self._undo.remove((due, action))
                action()
        for future in list(self._opening):
            if future.done():
                self._opening.remove(future)
                future.result()
        self._tend()
        if self._armed and self._redis_up:
            self._press(self._armed, now)
        if self._deck and now >= self._next_at:
            self._next_at = now + self._dice.uniform(0.05, 0.5)
            self._strike(self._deck.popleft())

    def _note(self, what: str) -> None:
        self.diary.append(f"{time.monotonic() - self._began:7.2f} {what}")

    def _strike(self, name: str) -> None:
        if name not in PLACES:
            if self._blow(name):
                self.struck[name] += 1
                self._note(name)
            else:
                self._deck.append(name)
        elif self._armed or not self._redis_up:
            self._deck.append(name)
        else:
            hand = self._dice.choice(self._house.hands)
            self._kill(hand)
            hand.hire(name)
            self._note(f"{hand.name} is to die: {name}")
            self._armed = hand
            self._bring_about(hand)

    def _blow(self, name: str) -> bool:
        """Whether it could be done now."""
        if name in WORKER_TROUBLES:
            return self._trouble_a_worker(name)
        if name in GATEWAY_TROUBLES:
            return self._trouble_a_gateway(name)
        done: bool = getattr(self, f"_{name}")()
        return done

    def _press(self, hand: Hand, now: float) -> None:
        """Towards the place where it dies."""
        if now - self._armed_at > STUBBORN_LEASES * self._house.lease_seconds + 2:
            self._bring_about(hand)
        if PLACES[hand.dies].needs is Needs.A_GOODBYE and not hand.told and self._held(hand):
            hand.told = True
            for _ in range(2):
                hand.send(signal.SIGTERM)

    def _bring_about(self, hand: Hand) -> None:
        """What must happen to others before this one comes to the place where it dies."""
        self._armed_at = time.monotonic()
        needs = PLACES[hand.dies].needs
        other, third = self._dice.sample(
            [each for each in self._house.hands if each is not hand], 2
        )
        if needs is Needs.A_DEATH:
            self._kill(other)
            other.hire()
        elif needs is Needs.A_STRANDED_ID:
            self._kill(other)
            other.hire("popped")
            third.send(signal.SIGSTOP)  # or it would be as quick
            self._later(2 * self._house.lease_seconds, lambda: third.send(signal.SIGCONT))

    def _tend(self) -> None:
        """Whoever has died is replaced."""
        for hand in self._house.hands:
            if hand.alive:
                continue
            self._mourn(hand, time.time())
            self._look_into(hand)
            hand.hire()

    def _look_into(self, hand: Hand) -> None:
        status, dies = hand.process.exitcode, hand.dies
        self._note(f"{hand.name} has ended: {status} {dies}")
        if status == -signal.SIGKILL and dies:
            self.met[dies] += 1
        elif status != 0 or not hand.told:
            self.complaints.append(f"{hand.name} ended by itself: {status}")
        if hand is self._armed:
            self._armed = None
            if status == 0 and dies:  # it had nothing to lose, so it has left in good order
                self._deck.append(dies)

    def _kill(self, hand: Hand) -> None:
        """By the book: nobody has asked it."""
        if not hand.alive:
            self._tend()
        if hand is self._armed:
            self._armed = None
            self._deck.append(hand.dies)
        hand.link.heal()
        at = time.time()
        hand.kill()
        self._mourn(hand, at)

    def _mourn(self, hand: Hand, at: float) -> None:
        """Remember what it held."""
        try:
            self.victims += [Victim(id, at) for id in self._held(hand)]
            for checkpoint in CHECKPOINTS:
                popped: Any = self._house.direct.lrange(
                    f"rq:queue:{checkpoint}:intermediate", 0, -1
                )
                self.stranded += [(id.decode(), at) for id in popped]
        except RedisError:
            self.struck["deaths while Redis was away"] += 1

    def _held(self, hand: Hand) -> list[str]:
        """The generations that are in its hands."""
        redis: Any = self._house.direct
        held = []
        for checkpoint in CHECKPOINTS:
            for member in redis.zrange(f"rq:wip:{checkpoint}", 0, -1):
                id, _, execution = member.decode().partition(":")
                worker = redis.hget(f"rq:execution:{id}:{execution}", "worker_name") or b""
                if worker.decode() == f"{hand.name}-{checkpoint}":
                    held.append(id)
        return held

    def _later(self, seconds: float, action: Callable[[], Any]) -> None:
        self._undo.append((time.monotonic() + seconds, action))

    def _calm(self) -> None:
        for _, action in self._undo:
            action()
        self._undo.clear()
        for future in self._opening:
            future.result()
        self._house.heal()
        self._tend()

    def _kill_a_worker(self) -> bool:
        hand = self._dice.choice(self._house.hands)
        self._kill(hand)
        hand.hire()
        return True

    def _kill_all_workers(self) -> bool:
        for hand in self._house.hands:
            self._kill(hand)
        for hand in self._house.hands:
            hand.hire()
        return True

    def _send_a_worker_home(self) -> bool:
        hand = self._dice.choice(self._house.hands)
        if hand is self._armed or hand.link.troubled or not self._redis_up:
            return False
        hand.told = True
        hand.send(signal.SIGTERM)
        return True

    def _trouble_a_worker(self, name: str) -> bool:
        """For a while, one at a time, and never the one that is armed."""
        hands = self._house.hands
        if any(hand.link.troubled for hand in hands):
            return False
        hand = self._dice.choice([each for each in hands if each is not self._armed])
        begin, least, most = WORKER_TROUBLES[name]
        hand.link.troubled = True
        begin(hand)

        def over() -> None:
            hand.send(signal.SIGCONT)
            hand.link.heal()

        self._later(self._dice.uniform(least, most) * self._house.lease_seconds, over)
        return True

    def _trouble_a_gateway(self, name: str) -> bool:
        gates = self._house.gates
        if any(gate.link.troubled for gate in gates):
            return False
        gate = self._dice.choice(gates)
        gate.link.troubled = True
        GATEWAY_TROUBLES[name](gate)
        self._later(self._dice.uniform(0.5, 1.5), gate.link.heal)
        return True

    def _kill_a_gateway(self) -> bool:
        if self._opening:
            return False
        gate = self._dice.choice(self._house.gates)
        gate.kill()
        self._opening.append(self._house.soon(gate.open))
        return True

    def _kill_redis(self) -> bool:
        """And start it again, with what it has written."""
        if not self._redis_up:
            return False
        self._redis_up, down_at = False, time.time()
        self._house.redis.kill()

        def up() -> None:
            self._house.redis.start()
            self.outages.append((down_at, time.time()))
            self._redis_up = True

        self._later(self._dice.uniform(0.1, 1.5), up)
        return True
