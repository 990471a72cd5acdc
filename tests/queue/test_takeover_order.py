"""In which order what workers have let go of is drawn: the oldest first, before all that waits."""

import signal

import pytest

from server.broker import keys
from server.workers.ledger import Refusal, Taken
from tests.queue.crew import ThreadWorker, short, until
from tests.queue.scripted import ScriptedStudio

MANY = 20
"""More than are looked at to find who is next."""


@pytest.fixture
def hire(server, redis):
    """Workers that do only what they are told to."""
    return lambda: ThreadWorker(short(server.url), ScriptedStudio(), redis)


def submitted(desk, count, **changes):
    """The oldest first, as far as ids tell: those of one millisecond are of one age."""
    return sorted(desk.submit(**changes) for _ in range(count))


def claim(worker):
    """The next in line, by this worker."""
    taken = worker._ledger.claim(worker._ledger.pop(1.0), room=4, empty=True)
    assert isinstance(taken, Taken)
    return taken.claim


def rescue(desk, worker, claims):
    """The leases of these have ended, and the worker has put them back."""
    desk.redis.delete(*(keys.lease(claim.execution) for claim in claims))
    ids = [claim.id for claim in claims]
    until(lambda: worker._takeover.look() or desk.all_ended(ids, "queued"))


def test_what_a_dead_worker_held_is_claimed_oldest_first_and_before_all_that_waits(desk, hire):
    ids, victim, rescuer = submitted(desk, MANY), hire(), hire()
    claims = [claim(victim) for _ in ids]
    waiting = [desk.submit(priority=2), desk.submit()]
    rescue(desk, rescuer, claims)
    assert desk.queue.get_job_ids() == ids + waiting
    assert [claim(rescuer).id for _ in range(MANY + 2)] == ids + waiting


def test_so_it_is_when_two_workers_die_one_after_the_other(desk, hire):
    ids, first, second, rescuer = submitted(desk, MANY), hire(), hire(), hire()
    claims = [[claim(each) for each in (first, second)] for _ in range(MANY // 2)]
    waiting = desk.submit()
    for held in zip(*claims, strict=True):
        rescue(desk, rescuer, held)
    assert [claim(rescuer).id for _ in range(MANY + 1)] == [*ids, waiting]


def test_so_it_is_when_a_rescuer_dies_too_and_looks_see_a_part_each(desk, hire):
    ids, victim, rescuer, heir = submitted(desk, 6), hire(), hire(), hire()
    claims = [claim(victim) for _ in ids]
    for part in (claims[4:], claims[:1], claims[1:4]):
        rescue(desk, rescuer, part)
    again = [claim(rescuer) for _ in ids[:3]]
    rescue(desk, heir, again)
    assert [claim(heir).id for _ in ids] == ids


def test_a_worker_that_has_nothing_to_do_gets_the_oldest_first_too(desk, crew):
    ids = submitted(desk, 8)
    victim = crew.process(studio={"capacity": 8})
    until(lambda: desk.all_ended(ids, "running"))
    idle = crew.thread(ScriptedStudio(capacity=8))
    until(lambda: desk.redis.exists(keys.worker(idle.name)))
    victim.send_signal(signal.SIGKILL)
    until(lambda: len(idle.studio.admitted) == 8)
    assert [claim.id for claim in idle.studio.admitted] == ids


def test_what_is_refused_for_want_of_room_keeps_its_place(desk, hire):
    ids, victim, rescuer = submitted(desk, 3, num_images=2), hire(), hire()
    rescue(desk, rescuer, [claim(victim) for _ in ids])
    waiting = desk.submit()
    popped = [rescuer._ledger.pop(1.0) for _ in range(3)]
    for id in popped:
        assert rescuer._ledger.claim(id, room=1, empty=False) is Refusal.NO_ROOM
    assert desk.queue.get_job_ids() == [*ids, waiting]


def test_what_never_was_in_a_workers_hands_goes_behind_it(desk, hire):
    ids, victim, rescuer = submitted(desk, 2), hire(), hire()
    rescue(desk, rescuer, [claim(victim) for _ in ids])
    stranded = [desk.submit(), desk.submit()]
    desk.redis.lmove(desk.queue.key, desk.queue.intermediate_queue_key, "RIGHT")
    assert rescuer._ledger.restore(stranded[1])
    assert desk.queue.get_job_ids() == [*ids, stranded[1], stranded[0]]
    assert [claim(rescuer).id for _ in range(4)] == ids + stranded
