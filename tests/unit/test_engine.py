from dataclasses import dataclass, field

import pytest

from server.errors import DeadlineExceeded, DeviceLost, OutOfMemory
from server.forecast import Speed
from server.pixels import Inputs
from server.stages import Handover, Stage
from server.workers.engine import Engine, Ticket
from server.workers.ladder import RECOVERY_SECONDS, Remedy
from server.workers.simulated import SimulatedDenoiser, SimulatedState
from tests.builders import a_spec

FAR = 1e12


@dataclass
class CountingDenoiser(SimulatedDenoiser):
    """Notes the seeds of each UNet call, and fails where it is told to."""

    calls: list[list[int]] = field(default_factory=list)
    poison: int | None = None
    max_rows: int = 10**6
    error: BaseException = field(default_factory=lambda: RuntimeError("no"))

    def predict(self, states):
        self.calls.append([s.seed for s in states])
        if sum(s.rows for s in states) > self.max_rows:
            raise OutOfMemory("too many rows")
        if self.poison in self.calls[-1]:
            raise self.error
        return super().predict(states)


def a_ticket(denoiser, seed=1, deadline=FAR, priority=0, gives=Handover.PICTURES, **changes):
    stage = Stage(spec=a_spec(seed=seed, **changes), gives=gives)
    state = denoiser.prepare(stage, 0, Inputs())
    return Ticket(f"gen_{seed}", 0, state, priority, deadline)


def an_engine(denoiser, cap=10**9, **more):
    return Engine(denoiser, max_step_pixels=cap, **more)


def run(engine):
    outcomes = []
    while engine.busy:
        outcomes += engine.step().outcomes
    return {o.ticket.state.seed: o for o in outcomes}


def test_a_step_tells_the_rows_that_took_part_even_if_guidance_ends_with_it():
    denoiser = CountingDenoiser()
    engine = an_engine(denoiser)
    ticket = a_ticket(denoiser, 1, num_inference_steps=4, guidance_end=0.25)
    engine.admit(ticket)
    assert [engine.step().rows for _ in range(4)] == [2, 2, 1, 1]
    assert ticket.batch_rows == 6


def test_a_step_that_uses_features_again_is_shared_by_its_like_and_says_so():
    denoiser = CountingDenoiser()
    engine = an_engine(denoiser)
    engine.admit(a_ticket(denoiser, 1, num_inference_steps=4, cache_interval=2))
    engine.admit(a_ticket(denoiser, 2, num_inference_steps=2))
    assert [engine.step().shallow for _ in range(5)] == [False, True, False, True, False]
    assert list(map(sorted, denoiser.calls)) == [[1, 2], [1], [1, 2], [1]]


def test_one_takes_its_shallow_steps_between_the_whole_ones_of_others():
    denoiser = CountingDenoiser()
    engine = an_engine(denoiser)
    engine.admit(a_ticket(denoiser, 1, num_inference_steps=3))
    engine.admit(a_ticket(denoiser, 2, num_inference_steps=6, cache_interval=3))
    run(engine)
    assert list(map(sorted, denoiser.calls)) == [[1, 2], [2], [2], [1, 2], [2], [2], [1]]


def test_a_late_arrival_joins_between_two_steps_and_each_leaves_when_done():
    denoiser = CountingDenoiser()
    engine = an_engine(denoiser)
    engine.admit(a_ticket(denoiser, 1, num_inference_steps=3))
    engine.step()
    engine.admit(a_ticket(denoiser, 2, num_inference_steps=3))
    outcomes = run(engine)
    assert denoiser.calls == [[1], [1, 2], [1, 2], [2]]
    assert all(o.picture is not None for o in outcomes.values())


def test_different_samplers_steps_guidance_and_seeds_share_a_call():
    denoiser = CountingDenoiser()
    engine = an_engine(denoiser)
    engine.admit(a_ticket(denoiser, 1, sampler="ddim", guidance_scale=1.0))
    engine.admit(a_ticket(denoiser, 2, sampler="euler_a", num_inference_steps=9))
    assert engine.step().rows == 3


def test_pictures_of_another_size_take_turns_instead():
    denoiser = CountingDenoiser()
    engine = an_engine(denoiser)
    engine.admit(a_ticket(denoiser, 1))
    engine.admit(a_ticket(denoiser, 2, width=256))
    run(engine)
    assert all(len(call) == 1 for call in denoiser.calls)


def test_a_failing_call_is_halved_until_the_ticket_at_fault_is_alone():
    denoiser = CountingDenoiser(poison=3)
    engine = an_engine(denoiser)
    for seed in range(8):
        engine.admit(a_ticket(denoiser, seed))
    outcomes = run(engine)
    assert isinstance(outcomes[3].error, RuntimeError)
    assert [s for s, o in outcomes.items() if o.picture is None] == [3]
    assert [3] in denoiser.calls


def test_a_failing_sampler_fails_its_ticket_alone(monkeypatch):
    denoiser = CountingDenoiser()
    engine = an_engine(denoiser)
    for seed in (1, 2):
        engine.admit(a_ticket(denoiser, seed))
    advance = SimulatedDenoiser.advance

    def refuse_two(self, state, prediction):
        if state.seed == 2:
            raise ValueError("sampler")
        advance(self, state, prediction)

    monkeypatch.setattr(CountingDenoiser, "advance", refuse_two)
    outcomes = run(engine)
    assert isinstance(outcomes[2].error, ValueError)
    assert outcomes[1].picture is not None


def test_a_failing_decode_fails_its_ticket_alone(monkeypatch):
    denoiser = CountingDenoiser()
    engine = an_engine(denoiser)
    for seed in (1, 2, 3):
        engine.admit(a_ticket(denoiser, seed))
    decode = SimulatedDenoiser.decode

    def refuse_two(self, states):
        if any(s.seed == 2 for s in states):
            raise ValueError("decoder")
        return decode(self, states)

    monkeypatch.setattr(CountingDenoiser, "decode", refuse_two)
    outcomes = run(engine)
    assert [s for s, o in outcomes.items() if o.error] == [2]


def test_out_of_memory_lowers_the_cap_and_loses_nothing():
    denoiser = CountingDenoiser(max_rows=4)
    engine = an_engine(denoiser)
    for seed in range(8):
        engine.admit(a_ticket(denoiser, seed))
    outcomes = run(engine)
    assert all(o.picture is not None for o in outcomes.values())
    assert engine.max_step_pixels <= 4 * 128 * 128
    assert max(map(len, denoiser.calls[-8:])) <= 2


def test_a_decode_out_of_memory_bounds_decoding_and_not_the_steps():
    denoiser = CountingDenoiser()
    decode, sizes = denoiser.decode, []

    def tight(states):
        sizes.append(len(states))
        if len(states) > 2:
            raise OutOfMemory("too many")
        return decode(states)

    denoiser.decode = tight
    engine = an_engine(denoiser)
    for seed in range(8):
        engine.admit(a_ticket(denoiser, seed))
    assert all(o.picture is not None for o in run(engine).values())
    assert engine.max_decode_pixels == 2 * 128 * 128
    assert engine.max_step_pixels == 10**9


def test_a_picture_that_does_not_even_fit_alone_fails_in_words():
    denoiser = CountingDenoiser(max_rows=1)
    engine = an_engine(denoiser)
    engine.admit(a_ticket(denoiser, 1))
    assert isinstance(run(engine)[1].error, OutOfMemory)
    assert engine.max_step_pixels == 10**9


def test_the_smallest_that_did_not_fit_alone_is_told_until_it_is_long_ago():
    now = 0.0
    denoiser = CountingDenoiser(max_rows=1)
    engine = an_engine(denoiser, clock=lambda: now)
    assert engine.too_large is None
    for seed, width in enumerate((256, 128, 192)):
        engine.admit(a_ticket(denoiser, seed, width=width))
    run(engine)
    assert engine.too_large == 128 * 128
    now = RECOVERY_SECONDS
    assert engine.too_large is None


def test_a_preview_that_does_not_fit_alone_says_nothing_of_its_ticket():
    class Blind(CountingDenoiser):
        def preview(self, states):
            raise OutOfMemory("full")

    denoiser = Blind()
    engine = an_engine(denoiser)
    engine.admit(a_ticket(denoiser, 1, previews=1))
    assert run(engine)[1].picture is not None
    assert engine.too_large is None


def test_what_is_kept_only_to_be_quicker_goes_before_a_batch_is_made_smaller():
    class Cramped(CountingDenoiser):
        def make_room(self):
            self.max_rows = 10**6

    denoiser = Cramped(max_rows=4)
    engine = an_engine(denoiser)
    for seed in range(8):
        engine.admit(a_ticket(denoiser, seed))
    step = engine.step()
    assert (step.rows, step.remedies) == (16, [Remedy.RETRIED])
    assert engine.step().remedies == []
    assert engine.max_step_pixels == 10**9


def test_a_step_may_grow_again_after_a_long_quiet():
    now = 0.0
    denoiser = CountingDenoiser(max_rows=4)
    engine = an_engine(denoiser, cap=16 * 128 * 128, clock=lambda: now)
    for seed in range(8):
        engine.admit(a_ticket(denoiser, seed, num_inference_steps=9))
    engine.step()
    engine.step()
    assert len(denoiser.calls[-1]) == 2
    denoiser.max_rows, now = 10**6, RECOVERY_SECONDS
    engine.step()
    assert len(denoiser.calls[-1]) == 4


def test_a_lost_device_is_nobodys_fault_and_passes_through():
    denoiser = CountingDenoiser(poison=1, error=DeviceLost("gone"))
    engine = an_engine(denoiser)
    engine.admit(a_ticket(denoiser, 1))
    engine.admit(a_ticket(denoiser, 2))
    with pytest.raises(DeviceLost):
        engine.step()


def test_a_passed_deadline_ends_a_ticket_between_two_steps():
    now = 0.0
    denoiser = CountingDenoiser()
    engine = an_engine(denoiser, clock=lambda: now)
    engine.admit(a_ticket(denoiser, 1, deadline=5.0))
    engine.admit(a_ticket(denoiser, 2))
    engine.step()
    now = 6.0
    outcomes = {o.ticket.state.seed: o.error for o in engine.step().outcomes}
    assert isinstance(outcomes[1], DeadlineExceeded)
    assert denoiser.calls[-1] == [2]


def test_a_dropped_generation_leaves_without_an_outcome():
    denoiser = CountingDenoiser()
    engine = an_engine(denoiser)
    ticket = a_ticket(denoiser, 1)
    engine.admit(ticket)
    engine.drop([ticket])
    assert not engine.busy
    assert engine.step().outcomes == []


def test_decoding_is_bounded_in_size():
    sizes = []
    denoiser = CountingDenoiser()
    decode = denoiser.decode
    denoiser.decode = lambda states: sizes.append(len(states)) or decode(states)
    engine = an_engine(denoiser, max_decode_pixels=3 * 128 * 128)
    for seed in range(8):
        engine.admit(a_ticket(denoiser, seed))
    run(engine)
    assert sizes == [3, 3, 2]


def measured(**more):
    """As a device that gains nothing by company."""
    curve = ((2, 0.01), (4, 0.02))
    known = {"native_pixels": 128 * 128, "curve": curve, "full_rows": 4, "decode_seconds": 0.01}
    return Speed(**(known | more))


def test_one_batch_is_decoded_between_two_steps_as_large_as_pays():
    events = []
    denoiser = CountingDenoiser()
    predict, decode = denoiser.predict, denoiser.decode
    denoiser.predict = lambda states: events.append("step") or predict(states)
    denoiser.decode = lambda states: events.append(len(states)) or decode(states)
    engine = an_engine(denoiser)
    engine.adopt(measured(decode_pixels=2 * 128 * 128))
    for seed in range(5):
        engine.admit(a_ticket(denoiser, seed, num_inference_steps=1))
    engine.admit(a_ticket(denoiser, 5, num_inference_steps=3))
    run(engine)
    assert events == ["step", 2, "step", 2, "step", 2]


def test_what_pays_is_not_decoded_where_it_does_not_fit():
    sizes = []
    denoiser = CountingDenoiser()
    decode = denoiser.decode
    denoiser.decode = lambda states: sizes.append(len(states)) or decode(states)
    engine = an_engine(denoiser, max_decode_pixels=128 * 128)
    engine.adopt(measured(decode_pixels=8 * 128 * 128))
    for seed in range(2):
        engine.admit(a_ticket(denoiser, seed))
    run(engine)
    assert sizes == [1, 1]


def test_decoding_takes_what_it_takes_and_not_what_previews_took():
    now = 0.0

    class Clocked(CountingDenoiser):
        def preview(self, states):
            nonlocal now
            now += 5.0
            return super().preview(states)

        def decode(self, states):
            nonlocal now
            now += 2.0
            return super().decode(states)

    denoiser = Clocked()
    engine = an_engine(denoiser, clock=lambda: now)
    engine.admit(a_ticket(denoiser, 1, num_inference_steps=2, previews=1))
    seconds = []
    while engine.busy:
        seconds.append(engine.step().decode_seconds)
    assert seconds == [0.0, 2.0]


def test_a_small_picture_is_not_held_up_by_a_large_one_that_has_just_begun():
    now = 0.0

    class Clocked(CountingDenoiser):
        def predict(self, states):
            nonlocal now
            now += 0.01 * sum(s.rows for s in states) * states[0].pixels / 128**2
            return super().predict(states)

    denoiser = Clocked()
    engine = an_engine(denoiser, clock=lambda: now)
    engine.adopt(measured())
    engine.admit(a_ticket(denoiser, 1, width=512, height=512, num_inference_steps=20))
    for _ in range(5):
        engine.step()
    engine.admit(a_ticket(denoiser, 2, num_inference_steps=5))
    outcomes = []
    while not outcomes:
        outcomes = engine.step().outcomes
    assert outcomes[0].ticket.state.seed == 2
    assert denoiser.calls[5:] == [[1], [2], [2], [2], [2], [2]]


def test_latents_for_the_next_stage_are_not_decoded_with_pictures():
    decoded = []
    denoiser = CountingDenoiser()
    decode = denoiser.decode
    denoiser.decode = lambda states: decoded.append([s.seed for s in states]) or decode(states)
    engine = an_engine(denoiser)
    for seed in range(4):
        gives = Handover.LATENTS if seed % 2 else Handover.PICTURES
        engine.admit(a_ticket(denoiser, seed, gives=gives))
    outcomes = run(engine)
    assert denoiser.calls[0] == [0, 1, 2, 3]
    assert sorted(decoded) == [[0, 2], [1, 3]]
    assert [outcomes[seed].picture.array().ndim for seed in range(4)] == [3, 3, 3, 3]
    assert outcomes[1].picture.array().shape == (4, 16, 16)


def test_a_ticket_without_any_step_is_decoded_at_once_and_holds_nobody_up():
    class Idle(SimulatedState):
        steps_total = 0

    denoiser = CountingDenoiser()
    engine = an_engine(denoiser)
    busy, idle = a_ticket(denoiser, 1), a_ticket(denoiser, 2)
    idle.state = Idle(idle.state.spec, idle.state.seed)
    engine.admit(idle)
    assert engine.step().outcomes[0].ticket is idle
    assert not engine.busy
    engine.admit(busy)
    engine.admit(idle)
    assert [o.ticket for o in engine.step().outcomes] == [idle]
    assert denoiser.calls == [[1]]


def test_a_ticket_knows_how_full_its_steps_were():
    denoiser = CountingDenoiser()
    engine = an_engine(denoiser)
    first = a_ticket(denoiser, 1, num_inference_steps=2)
    engine.admit(first)
    engine.step()
    engine.admit(a_ticket(denoiser, 2))
    run(engine)
    assert first.batch_rows / first.steps_done == 3
