import io
import threading
import time
from dataclasses import dataclass, replace
from queue import Queue

import pytest
from obstore.store import MemoryStore
from PIL import Image
from prometheus_client import CollectorRegistry

from server.catalog import Safety
from server.errors import DeviceLost, NotFinite, NotFound, OutOfMemory, Unavailable
from server.forecast import Load, Speed
from server.metrics import WorkerMetrics
from server.spec import Enlarged, GenerationState, Progress, Warn
from server.storage import ObjectImageStore
from server.workers.engine import Engine
from server.workers.publish import hand_on
from server.workers.simulated import FlatLatents, FlatPicture, SimulatedDenoiser, SimulatedState
from server.workers.stage import Drawn, Ended, Handed, Past, Pulse
from server.workers.studio import EngineStudio
from tests.builders import (
    a_claim,
    a_claim_of,
    a_hires,
    a_refiner,
    a_spec,
    an_image_to_image,
    an_upscaler,
)

SECONDS = 10


class GatedDenoiser(SimulatedDenoiser):
    """Each UNet call waits until the test lets it pass."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Semaphore(0)
        self.stepping = threading.Semaphore(0)

    def predict(self, states):
        self.stepping.release()
        assert self.gate.acquire(timeout=SECONDS)
        return super().predict(states)

    def open(self):
        self.gate.release(10**6)


@pytest.fixture
def studio():
    made = []

    def make(denoiser=None, capacity=4, store=None, safety=Safety.OFF, show=None, speed=None):
        registry = CollectorRegistry()
        studio = EngineStudio(
            Engine(denoiser or SimulatedDenoiser(), max_step_pixels=10**9),
            store or ObjectImageStore(MemoryStore()),
            capacity=capacity,
            safety=safety,
            show=show,
            speed=speed,
            worker="w",
            version="1",
            metrics=WorkerMetrics(registry),
            peak_memory_bytes=lambda: 42,
        )
        studio.count = registry.get_sample_value
        results = Queue()
        studio.start(lambda claim, result: results.put((claim.id, result)))
        studio.results = results
        made.append(studio)
        return studio

    yield make
    for each in made:
        assert each.close(SECONDS)


def test_a_claim_comes_back_drawn_with_what_it_cost(studio):
    studio = studio()
    studio.admit(a_claim("a", num_images=3))
    id, result = studio.results.get(timeout=SECONDS)
    assert id == "a"
    assert isinstance(result, Drawn)
    assert [i.seed for i in result.images] == [1, 2, 3]
    assert result.metrics.steps == 12
    assert result.metrics.mean_batch_rows == 6
    assert result.metrics.peak_memory_bytes == 42
    assert studio.room() == 5
    assert studio.progress() == {}


def test_what_is_drawn_is_shown_meanwhile(studio):
    shown = Queue()
    studio = studio(show=lambda *what: shown.put(what))
    claim = a_claim("a", num_images=2, previews=1)
    studio.admit(claim)
    told = sorted((shown.get(timeout=SECONDS) for _ in range(2)), key=lambda what: what[3])
    assert isinstance(studio.results.get(timeout=SECONDS)[1], Drawn)
    assert [(id, execution, index, number) for id, execution, _, index, number in told] == [
        ("a", claim.execution, 0, 1),
        ("a", claim.execution, 1, 1),
    ]
    assert Image.open(io.BytesIO(told[0][2])).size == (128, 128)


@pytest.mark.parametrize("safety", [Safety.BLUR, Safety.BLOCK])
def test_nothing_is_shown_that_a_safety_checker_may_hide(studio, safety):
    class Checked(SimulatedDenoiser):
        def preview(self, states):
            shown.put("made")
            return super().preview(states)

    shown = Queue()
    studio = studio(Checked(), safety=safety, show=lambda *what: shown.put(what))
    studio.admit(a_claim("a", previews=3))
    assert isinstance(studio.results.get(timeout=SECONDS)[1], Drawn)
    assert studio.close(SECONDS)
    assert shown.empty()


def test_a_picture_does_not_wait_for_its_previews(studio):
    over = threading.Event()
    studio = studio(show=lambda *what: over.wait(SECONDS))
    studio.admit(a_claim("a", previews=3))
    assert isinstance(studio.results.get(timeout=SECONDS)[1], Drawn)
    over.set()


def test_progress_and_room_follow_the_steps(studio):
    denoiser = GatedDenoiser()
    studio = studio(denoiser)
    studio.admit(a_claim("a", num_images=2))
    assert denoiser.stepping.acquire(timeout=SECONDS)
    assert studio.room() == 3
    assert studio.progress() == {"a": Progress(steps_done=0, steps_total=8)}
    denoiser.gate.release()
    assert denoiser.stepping.acquire(timeout=SECONDS)
    assert studio.progress() == {"a": Progress(steps_done=2, steps_total=8)}
    assert studio.step_age() > 0
    denoiser.open()
    studio.results.get(timeout=SECONDS)


def test_a_canceled_claim_ends_between_two_steps_and_its_neighbour_goes_on(studio):
    denoiser = GatedDenoiser()
    studio = studio(denoiser)
    claim = a_claim("a")
    studio.admit(claim)
    studio.admit(a_claim("b"))
    studio.cancel(claim)
    studio.cancel(claim)
    denoiser.open()
    results = dict(studio.results.get(timeout=SECONDS) for _ in range(2))
    assert results["a"] == Ended(GenerationState.CANCELED)
    assert isinstance(results["b"], Drawn)


def test_a_claim_canceled_while_it_is_prepared_ends_canceled(studio):
    class Slow(SimulatedDenoiser):
        def prepare(self, stage, index, inputs):
            studio.cancel(claim)
            return super().prepare(stage, index, inputs)

    claim = a_claim("a")
    studio = studio(Slow())
    studio.admit(claim)
    assert studio.results.get(timeout=SECONDS)[1] == Ended(GenerationState.CANCELED)
    assert studio.results.empty()
    assert studio.room() == 5


def test_the_other_images_of_a_claim_canceled_meanwhile_are_not_prepared(studio):
    prepared = []

    class Slow(SimulatedDenoiser):
        def prepare(self, stage, index, inputs):
            prepared.append(index)
            studio.cancel(claim)
            results.append(studio.results.get(timeout=SECONDS)[1])
            return super().prepare(stage, index, inputs)

    claim, results = a_claim("a", num_images=4), []
    studio = studio(Slow())
    studio.admit(claim)
    assert studio.close(SECONDS)
    assert results == [Ended(GenerationState.CANCELED)]
    assert prepared == [0]


def test_preparing_many_images_is_not_taken_for_one_call_that_hangs(studio):
    ages = []

    class Slow(SimulatedDenoiser):
        def prepare(self, stage, index, inputs):
            ages.append(studio.step_age())
            time.sleep(0.2)
            return super().prepare(stage, index, inputs)

    studio = studio(Slow())
    studio.admit(a_claim("a", num_images=3))
    studio.results.get(timeout=SECONDS)
    assert max(ages) < 0.2


def test_an_abandoned_claim_ends_in_silence(studio):
    denoiser = GatedDenoiser()
    studio = studio(denoiser)
    claim = a_claim("a")
    studio.admit(claim)
    studio.admit(a_claim("b"))
    studio.abandon(claim)
    denoiser.open()
    assert studio.results.get(timeout=SECONDS)[0] == "b"
    assert studio.results.empty()
    assert studio.room() == 5


def test_a_generation_that_comes_back_is_drawn_while_its_old_claim_still_leaves(studio):
    denoiser = GatedDenoiser()
    studio = studio(denoiser)
    old = a_claim("a")
    studio.admit(old)
    assert denoiser.stepping.acquire(timeout=SECONDS)
    studio.abandon(old)
    studio.admit(a_claim("a", seed=9))
    studio.cancel(old)
    denoiser.open()
    _, result = studio.results.get(timeout=SECONDS)
    assert [image.seed for image in result.images] == [9]
    assert studio.results.empty()
    assert studio.room() == 5


def test_canceling_what_is_not_there_does_nothing(studio):
    studio = studio()
    studio.cancel(a_claim("nobody"))
    studio.admit(a_claim("a"))
    assert studio.results.get(timeout=SECONDS)[0] == "a"


def test_a_claim_past_its_deadline_expires(studio):
    studio = studio()
    studio.admit(a_claim("a", deadline_seconds=1e-6))
    _, result = studio.results.get(timeout=SECONDS)
    assert result.state is GenerationState.EXPIRED
    assert result.error.code == "deadline_exceeded"


class Cramped(SimulatedDenoiser):
    """Prepares nothing until room is made; `enough` says whether that helps."""

    def __init__(self, *, enough):
        super().__init__()
        self.enough, self.tried, self.full = enough, 0, True

    def make_room(self):
        self.full = not self.enough

    def prepare(self, stage, index, inputs):
        self.tried += 1
        if self.full:
            raise OutOfMemory("the device is out of memory")
        return super().prepare(stage, index, inputs)


def test_what_does_not_fit_beside_what_is_kept_is_prepared_without_it(studio):
    denoiser = Cramped(enough=True)
    studio = studio(denoiser)
    studio.admit(a_claim("a", num_images=2))
    assert isinstance(studio.results.get(timeout=SECONDS)[1], Drawn)
    assert denoiser.tried == 3


def test_what_does_not_fit_even_so_fails_after_one_more_try(studio):
    denoiser = Cramped(enough=False)
    studio = studio(denoiser)
    studio.admit(a_claim("a"))
    error = studio.results.get(timeout=SECONDS)[1].error
    assert error.code == "out_of_memory"
    assert "128 x 128" in error.message
    assert denoiser.tried == 2


def test_what_does_not_fit_its_step_fails_alone_and_in_words_that_name_its_size(studio):
    class Small(SimulatedDenoiser):
        def predict(self, states):
            if len(states) > 1 or states[0].spec.width > 128:
                raise OutOfMemory("GPU 0 has 1 GiB, of which process 7 has 3")
            return super().predict(states)

    studio = studio(Small())
    studio.admit(a_claim("large", width=256))
    studio.admit(a_claim("small", num_images=2))
    results = dict(studio.results.get(timeout=SECONDS) for _ in range(2))
    assert isinstance(results["small"], Drawn)
    error = results["large"].error
    assert error.code == "out_of_memory"
    assert "256 x 128" in error.message
    assert "GiB" not in error.message, "what else is on the device is not the caller's affair"
    for remedy in ("retried", "split", "failed"):
        assert studio.count("darkroom_out_of_memory_total", {"remedy": remedy}) >= 1


def test_what_cannot_be_prepared_fails_alone_and_says_nothing_private(studio):
    denoiser = SimulatedDenoiser()
    prepare = denoiser.prepare

    class Refusing(SimulatedDenoiser):
        def prepare(self, stage, index, inputs):
            if stage.spec.prompt == "bad":
                raise OSError("/secret/path")
            return prepare(stage, index, inputs)

    studio = studio(Refusing())
    studio.admit(a_claim("bad", prompt="bad"))
    studio.admit(a_claim("good"))
    results = dict(studio.results.get(timeout=SECONDS) for _ in range(2))
    assert results["bad"].error.code == "generation_failed"
    assert "secret" not in results["bad"].error.message
    assert isinstance(results["good"], Drawn)


def test_a_picture_that_is_not_finite_fails_its_generation(studio):
    class Broken(FlatPicture):
        def array(self):
            raise NotFinite("NaN")

    class BrokenDenoiser(SimulatedDenoiser):
        def decode(self, states):
            return [Broken(8, 8, 1) for _ in states]

    studio = studio(BrokenDenoiser())
    studio.admit(a_claim("a"))
    _, result = studio.results.get(timeout=SECONDS)
    assert result.error.code == "not_finite"
    assert studio.count("darkroom_decoded_again_total", {"found": "not_finite"}) == 1


@pytest.mark.parametrize("upscaler", [None, an_upscaler()])
def test_a_picture_that_was_mended_is_told_wherever_it_goes(studio, upscaler):
    class Broken(FlatPicture):
        def array(self):
            raise NotFinite("NaN")

    class Overflowing(SimulatedDenoiser):
        def decode(self, states):
            return [Broken(8, 8, s.seed) if s.seed == 2 else FlatPicture(8, 8, 1) for s in states]

        def decode_again(self, state):
            return FlatPicture(8, 8, state.seed)

    studio = studio(Overflowing())
    studio.admit(a_claim_of(a_spec(num_images=2, seed=1, strict=True, upscaler=upscaler)))
    _, result = studio.results.get(timeout=SECONDS)
    assert isinstance(result, Handed if upscaler else Drawn)
    [warning] = result.warnings
    assert (warning.code, "image 1" in warning.message) == ("decoded_in_float32", True)


def test_one_bad_image_ends_the_generation_once(studio):
    class HalfBroken(SimulatedDenoiser):
        def advance(self, state, prediction):
            if state.seed % 2:
                raise ValueError("odd")
            super().advance(state, prediction)

    studio = studio(HalfBroken())
    studio.admit(a_claim("a", num_images=4, seed=0))
    _, result = studio.results.get(timeout=SECONDS)
    assert result.state is GenerationState.FAILED
    studio.admit(a_claim("b", seed=0))
    assert studio.results.get(timeout=SECONDS)[0] == "b"
    assert studio.results.empty()


def test_a_device_lost_while_a_picture_is_copied_is_reported_too(studio):
    copying = threading.Event()

    class Broken(FlatPicture):
        def array(self):
            copying.set()
            raise DeviceLost("gone")

    class BrokenDenoiser(SimulatedDenoiser):
        def decode(self, states):
            return [Broken(8, 8, 1) for _ in states]

    studio = studio(BrokenDenoiser())
    studio.admit(a_claim("a"))
    assert copying.wait(SECONDS)
    assert studio.close(SECONDS)
    assert isinstance(studio.lost(), DeviceLost)


def test_a_hung_device_call_is_seen_wherever_it_is(studio):
    hung, release = threading.Event(), threading.Event()

    class Hung(FlatPicture):
        def array(self):
            hung.set()
            assert release.wait(SECONDS)
            return super().array()

    class HungDenoiser(SimulatedDenoiser):
        def decode(self, states):
            return [Hung(8, 8, 1) for _ in states]

    studio = studio(HungDenoiser())
    studio.admit(a_claim("a"))
    assert hung.wait(SECONDS)
    assert studio.step_age() > 0
    assert not studio.close(0.01)
    release.set()


def test_a_store_that_comes_back_gets_the_picture(studio, monkeypatch):
    put, refusals = ObjectImageStore.put, [Unavailable("full"), Unavailable("full")]

    def sometimes(self, key, data):
        if refusals:
            raise refusals.pop()
        put(self, key, data)

    monkeypatch.setattr(ObjectImageStore, "put", sometimes)
    monkeypatch.setattr("server.workers.archive.SHORTEST_PAUSE_SECONDS", 0.001)
    studio = studio()
    studio.admit(a_claim("a"))
    assert isinstance(studio.results.get(timeout=SECONDS)[1], Drawn)


def test_what_waits_for_the_store_holds_back_claims_and_stands_at_its_last_step(
    studio, monkeypatch
):
    release = threading.Event()
    put = ObjectImageStore.put

    def slow(self, key, data):
        assert release.wait(SECONDS)
        put(self, key, data)

    monkeypatch.setattr(ObjectImageStore, "put", slow)
    studio = studio()
    # The device goes on with as many as it holds, and no more wait to be stored than that.
    for id, room in (("a", 5), ("b", 5), ("c", 4), ("d", 2), ("e", 0)):
        studio.admit(a_claim(id, num_images=2))
        deadline = time.monotonic() + SECONDS
        while studio.room() != room and time.monotonic() < deadline:
            time.sleep(0.001)
        assert studio.room() == room
    assert studio.progress()["a"] == Progress(steps_done=8, steps_total=8)
    release.set()
    for _ in range(5):
        studio.results.get(timeout=SECONDS)


def test_a_strict_generation_fails_where_another_would_warn(studio):
    class Cutting(SimulatedDenoiser):
        def prepare(self, stage, index, inputs):
            state = super().prepare(stage, index, inputs)
            cut = Warn(code="prompt_truncated", message="these words are lost", field="prompt")
            return Warned(state.spec, state.seed, warned=(cut,))

    @dataclass(slots=True)
    class Warned(SimulatedState):
        warned: tuple[Warn, ...] = ()
        warnings = property(lambda self: self.warned)

    studio = studio(Cutting())
    studio.admit(a_claim("lenient"))
    _, result = studio.results.get(timeout=SECONDS)
    assert [warn.code for warn in result.warnings] == ["prompt_truncated"]
    studio.admit(a_claim("strict", strict=True))
    _, result = studio.results.get(timeout=SECONDS)
    assert result.error.code == "invalid_spec"
    assert "these words are lost" in result.error.message


def test_a_lost_device_is_reported_not_hidden(studio):
    class LostDenoiser(SimulatedDenoiser):
        def predict(self, states):
            raise DeviceLost("gone")

    studio = studio(LostDenoiser())
    studio.admit(a_claim("a"))
    studio._thread.join(SECONDS)
    assert isinstance(studio.lost(), DeviceLost)
    assert studio.results.empty()


def test_each_kind_of_thread_begins_as_it_was_told():
    began = []
    note = lambda what: lambda: began.append((what, threading.current_thread().name))  # noqa: E731
    studio = EngineStudio(
        Engine(SimulatedDenoiser(), max_step_pixels=10**9),
        ObjectImageStore(MemoryStore()),
        capacity=1,
        worker="w",
        version="1",
        metrics=WorkerMetrics(CollectorRegistry()),
        peak_memory_bytes=lambda: 0,
        begin_engine=note("engine"),
        begin_publisher=note("publisher"),
    )
    results = Queue()
    studio.start(lambda *result: results.put(result))
    studio.admit(a_claim("a"))
    results.get(timeout=SECONDS)
    assert studio.close(SECONDS)
    assert began[-1] == ("publisher", "publish_0")
    assert sorted(began) == [
        ("engine", "engine"),
        ("publisher", "prepare_0"),
        ("publisher", "publish_0"),
    ]


@pytest.fixture
def store():
    return ObjectImageStore(MemoryStore())


def ensemble(store, **changes):
    """A claim of the second stage of an ensemble, with what the first has made in the store."""
    spec = a_spec(refiner=a_refiner(), **changes)
    made = [FlatLatents(128, 128, i).array() for i in range(spec.num_images)]
    keys = hand_on(a_claim_of(spec), made, store)
    return a_claim_of(spec, past=Past(handed=[keys]))


def test_a_stage_that_is_not_the_last_is_handed_on(studio, store):
    studio = studio(store=store)
    studio.admit(a_claim_of(a_spec(refiner=a_refiner(), num_images=2)))
    _, result = studio.results.get(timeout=SECONDS)
    assert isinstance(result, Handed)
    assert result.metrics.steps == 8
    assert [len(store.read(key)) > 0 for key in result.keys] == [True, True]


def test_a_later_stage_starts_from_what_it_was_handed(studio, store):
    given = []

    class Watching(SimulatedDenoiser):
        def prepare(self, stage, index, inputs):
            given.append(inputs.latents)
            return super().prepare(stage, index, inputs)

    studio = studio(Watching(), store=store)
    studio.admit(ensemble(store, num_images=2))
    _, result = studio.results.get(timeout=SECONDS)
    assert isinstance(result, Drawn)
    assert [float(latents.mean()) for latents in given] == [0, 1]


def test_what_was_handed_on_is_removed_when_nobody_needs_it_any_more(studio, store):
    studio = studio(store=store)
    claim = ensemble(store)
    studio.admit(claim)
    _, result = studio.results.get(timeout=SECONDS)
    assert store.read(claim.handed[0])
    studio.discard(claim.handed)
    assert studio.close(SECONDS)
    with pytest.raises(NotFound):
        store.read(claim.handed[0])
    assert store.read(result.images[0].key)
    studio.discard(claim.handed)  # late: nothing happens


def test_a_store_that_cannot_remove_them_stops_nothing(studio, store, monkeypatch):
    def refuse(self, *keys):
        raise Unavailable("read-only")

    monkeypatch.setattr(ObjectImageStore, "discard", refuse)
    studio = studio(store=store)
    studio.discard(ensemble(store).handed)
    studio.admit(a_claim("a"))
    assert isinstance(studio.results.get(timeout=SECONDS)[1], Drawn)
    assert studio.lost() is None


def test_a_picture_that_is_gone_fails_its_generation_in_words(studio):
    studio = studio()
    studio.admit(a_claim_of(an_image_to_image(), "a"))
    _, result = studio.results.get(timeout=SECONDS)
    assert result.error.code == "generation_failed"
    assert "sent as image" in result.error.message


class Away(ObjectImageStore):
    """Cannot be read until it is back."""

    def __init__(self):
        super().__init__(MemoryStore())
        self.asked, self.back = threading.Event(), False

    def read(self, key):
        self.asked.set()
        if not self.back:
            raise Unavailable("the image store cannot be read")
        return super().read(key)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("server.workers.archive.SHORTEST_PAUSE_SECONDS", 0.001)


def test_a_store_that_comes_back_is_waited_for_before_drawing_too(studio, impatient):
    store = Away()
    studio = studio(store=store)
    studio.admit(ensemble(store))
    assert store.asked.wait(SECONDS)
    assert studio.results.empty()
    store.back = True
    assert isinstance(studio.results.get(timeout=SECONDS)[1], Drawn)


def test_what_waits_for_the_store_until_its_deadline_expires_then(studio):
    store = Away()
    studio = studio(store=store)
    claim = ensemble(store, deadline_seconds=0.2)
    studio.admit(claim)
    _, result = studio.results.get(timeout=SECONDS)
    assert claim.deadline <= time.time() < claim.deadline + 1
    assert (result.state, result.error.code) == (GenerationState.EXPIRED, "deadline_exceeded")
    assert "the image store cannot be read" in result.error.message


def test_what_waits_for_the_store_can_be_canceled_and_keeps_nobody(studio, impatient):
    store = Away()
    studio = studio(store=store)
    claim = ensemble(store)
    studio.admit(claim)
    assert store.asked.wait(SECONDS)
    studio.admit(a_claim("b"))
    assert studio.results.get(timeout=SECONDS)[0] == "b"
    studio.cancel(claim)
    assert studio.results.get(timeout=SECONDS)[1] == Ended(GenerationState.CANCELED)
    assert studio.room() == 5
    assert studio.close(1)


def test_what_waits_for_the_store_does_not_keep_the_studio_open(studio):
    store = Away()
    studio = studio(store=store)
    studio.admit(ensemble(store))
    assert store.asked.wait(SECONDS)
    assert studio.close(2)


class Prudish(SimulatedDenoiser):
    """Flags the pictures of odd seeds, told by their colour."""

    def unsafe(self, pixels):
        return bool((pixels[0, 0] == FlatPicture(1, 1, 1).array()[0, 0]).all())


@pytest.mark.parametrize(
    ("safety", "nsfw", "codes"),
    [
        (Safety.OFF, [None, None], []),
        (Safety.FLAG, [True, False], []),
        (Safety.BLUR, [True, False], ["nsfw_blurred"]),
        (Safety.BLOCK, [True, False], ["nsfw_blocked"]),
    ],
)
def test_pictures_are_checked_as_the_card_says(studio, safety, nsfw, codes):
    studio = studio(Prudish(), safety=safety)
    studio.admit(a_claim("a", seed=1, num_images=2))
    _, result = studio.results.get(timeout=SECONDS)
    assert [image.nsfw for image in result.images] == nsfw
    assert [warn.code for warn in result.warnings] == codes


def test_where_nothing_can_check_it_is_not_said_to_be_safe(studio):
    studio = studio(safety=Safety.BLOCK)
    studio.admit(a_claim("a"))
    _, result = studio.results.get(timeout=SECONDS)
    assert result.images[0].nsfw is None
    assert result.warnings == ()


def test_a_strict_generation_fails_where_its_picture_would_be_changed(studio):
    studio = studio(Prudish(), safety=Safety.BLUR)
    studio.admit(a_claim("a", strict=True))
    _, result = studio.results.get(timeout=SECONDS)
    assert "flagged image 0" in result.error.message


def test_what_goes_to_another_checkpoint_is_checked_before(studio, store):
    studio = studio(Prudish(), store=store, safety=Safety.BLOCK)
    studio.admit(a_claim_of(a_spec(upscaler=an_upscaler(), seed=1, num_images=2)))
    _, result = studio.results.get(timeout=SECONDS)
    blocked, harmless = (Image.open(io.BytesIO(store.read(key))) for key in result.keys)
    assert [warn.code for warn in result.warnings] == ["nsfw_blocked"]
    assert not blocked.getbbox()
    assert harmless.getbbox()


def test_what_the_same_checkpoint_goes_on_with_is_checked_at_the_end(studio, store):
    hires = a_hires(enlarged=Enlarged.PICTURE)
    studio = studio(Prudish(), store=store, safety=Safety.BLOCK)
    studio.admit(a_claim_of(a_spec(hires=hires, seed=1)))
    _, result = studio.results.get(timeout=SECONDS)
    assert isinstance(result, Handed)
    assert result.warnings == ()


def test_only_pictures_are_checked(studio, store):
    class Shocked(SimulatedDenoiser):
        def unsafe(self, pixels):
            raise AssertionError("latents were checked")

    studio = studio(Shocked(), store=store, safety=Safety.BLOCK)
    studio.admit(a_claim_of(a_spec(refiner=a_refiner())))
    assert isinstance(studio.results.get(timeout=SECONDS)[1], Handed)


def test_the_pulse_tells_of_the_step_before_and_of_nothing_when_idle(studio):
    studio = studio(SimulatedDenoiser(step_seconds=lambda rows: 0.005))
    seen = []
    studio.admit(a_claim("a", num_inference_steps=40))
    while studio.results.empty():
        seen.append(studio.pulse())
    assert max(pulse.step_rows for pulse in seen) == 2
    assert max(pulse.images for pulse in seen) == 1
    assert max(pulse.step_seconds for pulse in seen) >= 0.005
    while studio.pulse() != Pulse():  # soon
        pass


def test_what_is_left_is_told_in_seconds_of_work(studio):
    speed = Speed(native_pixels=128 * 128, curve=((2, 0.005),), full_rows=2)
    studio = studio(SimulatedDenoiser(step_seconds=lambda rows: 0.005), speed=speed)
    assert studio.load().work_seconds == 0
    claim, approx = a_claim("a", num_inference_steps=40), pytest.approx(0.2)
    each = "2.0000/0.2000"
    assert studio.load(claim.stage) == Load(
        rows=2, held_seconds=approx, work_seconds=approx, each=each
    )
    studio.admit(claim)
    seen = [studio.load().work_seconds]
    while studio.results.empty():
        seen.append(studio.load().work_seconds)
    assert seen[0] == pytest.approx(0.2, rel=0.2)
    assert any(0 < left < 0.1 for left in seen)
    assert studio.load().work_seconds == 0
    assert studio.speed().drift > 0.5


def test_a_wait_is_never_negative_though_the_clock_of_the_gateway_is_ahead():
    claim = a_claim()
    assert replace(claim, started_at=claim.queued_at - 5).queue_seconds == 0
