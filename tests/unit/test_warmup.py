import pytest

from server.catalog import load_catalog
from server.errors import OutOfMemory
from server.workers.simulated import SimulatedDenoiser
from server.workers.warmup import WarmUp

NATIVE = 128 * 128


class NoGauge:
    """Of memory nobody knows anything."""

    needed, free = 0, 0

    def begin(self):
        pass

    def grown_bytes(self):
        return self.needed

    def free_bytes(self):
        return self.free


def warmed(denoiser, card="demo", gauge=None, full_rows=None):
    clock = lambda: denoiser.now  # noqa: E731
    card = load_catalog()[card]
    return WarmUp(denoiser, card, 32, gauge or NoGauge(), full_rows, clock).run()


class ClockedDenoiser(SimulatedDenoiser):
    """Its calls take no time but move a clock."""

    def __init__(self, curve):
        super().__init__()
        self.now = 0.0
        self.curve = curve
        self.rows = []

    def predict(self, states):
        rows = sum(s.rows for s in states)
        self.rows.append(rows)
        self.now += self.curve(rows)
        return [s.seed for s in states]


@pytest.mark.parametrize(
    ("curve", "rows"),
    [
        (lambda rows: 1e-3, 32),
        (lambda rows: 1e-3 * rows, 2),
        (lambda rows: 1e-3 * max(rows, 8), 8),
    ],
)
def test_the_cap_is_where_another_row_no_longer_pays(curve, rows):
    denoiser = ClockedDenoiser(curve)
    assert warmed(denoiser).full_rows == rows


def test_warming_up_a_slow_device_keeps_to_its_budget_and_says_what_that_means(caplog):
    denoiser = ClockedDenoiser(lambda rows: 6.0)
    assert warmed(denoiser).full_rows == 2
    assert set(denoiser.rows) == {2}
    assert "DARKROOM_MAX_STEP_PIXELS" in caplog.text


def test_the_cap_is_among_what_fits():
    class Small(ClockedDenoiser):
        def predict(self, states):
            if len(states) > 4:
                raise OutOfMemory("too many rows")
            return super().predict(states)

    denoiser = Small(lambda rows: 1e-3)
    assert warmed(denoiser).full_rows == 8


def test_a_checkpoint_of_which_not_one_picture_fits_is_not_served():
    class Tiny(ClockedDenoiser):
        def predict(self, states):
            raise OutOfMemory("not even one")

    with pytest.raises(OutOfMemory, match="not even one"):
        warmed(Tiny(lambda rows: 1e-3))


def test_no_more_pictures_are_prepared_than_are_measured():
    prepared = []

    class Slow(ClockedDenoiser):
        def prepare(self, stage, index, inputs):
            prepared.append(index)
            return super().prepare(stage, index, inputs)

    denoiser = Slow(lambda rows: 6.0)
    warmed(denoiser)
    assert prepared == [0, 0]  # of the native size, and of a quarter of its pixels


@pytest.mark.parametrize("card", load_catalog().values(), ids=lambda card: card.name)
def test_every_checkpoint_is_warmed_with_a_task_it_has(card):
    denoiser = ClockedDenoiser(lambda rows: 6.0)
    speed = warmed(denoiser, card.name)
    assert (speed.full_rows, speed.native_pixels) == (2, card.native_size**2)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.6])
def test_how_a_step_grows_with_its_pixels_is_measured(exponent):
    class Sized(ClockedDenoiser):
        def predict(self, states):
            self.now += (states[0].pixels / NATIVE) ** exponent
            return [s.seed for s in states]

    assert warmed(Sized(None)).exponent == exponent


def test_a_small_picture_by_itself_is_measured_too():
    class Sized(ClockedDenoiser):
        def predict(self, states):
            rows = sum(s.rows for s in states)
            self.now += 1e-3 * (1 + rows * states[0].pixels / NATIVE)
            return [s.seed for s in states]

    speed = warmed(Sized(None))
    rows, seconds = speed.smallest
    assert rows == pytest.approx(speed.native_rows(2, NATIVE // 4))
    assert speed.step_seconds(rows) == seconds == pytest.approx(1.5e-3)
    assert warmed(ClockedDenoiser(lambda rows: 1e-3)).smallest is None


def test_the_largest_picture_is_what_the_free_memory_holds():
    class Gauge(NoGauge):
        needed, free = 2**20, 10 * 2**20

    assert warmed(ClockedDenoiser(lambda rows: 1e-3), gauge=Gauge()).largest_pixels == 9 * NATIVE
    assert warmed(ClockedDenoiser(lambda rows: 1e-3)).largest_pixels == 0


def test_a_worker_that_is_told_its_cap_measures_little():
    denoiser = ClockedDenoiser(lambda rows: 1e-3 * rows)
    speed = warmed(denoiser, full_rows=12)
    assert speed.full_rows == 12
    assert [rows for rows, _ in speed.curve] == [2, 12]
    assert len(denoiser.rows) == 6


class Decoding(ClockedDenoiser):
    """Whose decode takes so long by its pixels, in native pictures, and which notes them."""

    def __init__(self, seconds, most=1000, step=0.1):
        super().__init__(lambda rows: step)
        self.seconds, self.most, self.decoded = seconds, most, []

    def decode(self, states):
        if len(states) > self.most:
            raise OutOfMemory("too many pictures")
        pictures = sum(s.pixels for s in states) / NATIVE
        self.decoded.append(pictures)
        self.now += self.seconds(pictures)
        return super().decode(states)


def test_decoding_is_measured_by_its_pixels_until_more_of_them_gain_nothing():
    speed = warmed(Decoding(lambda pictures: 0.001 + 0.002 * max(pictures, 2)))
    assert speed.decode_seconds == pytest.approx(0.005)
    sizes = [pixels / NATIVE for pixels, _ in speed.decode_curve]
    assert sizes == [0.25, 1, 2, 4, 8, 16]
    assert speed.decoding_seconds(1, NATIVE) == pytest.approx(0.005)
    assert speed.decode_pixels == 8 * NATIVE, "sixteen at once are not 5 % cheaper each"


def test_a_device_that_gains_nothing_decodes_one_picture_at_a_time():
    denoiser = Decoding(lambda pictures: 0.010 * pictures)
    speed = warmed(denoiser)
    assert max(denoiser.decoded) == 2
    assert speed.decode_pixels == NATIVE / 4, "which four small ones share"
    assert speed.decoding_seconds(3, NATIVE) == pytest.approx(0.030)


def test_a_decode_holds_up_those_who_step_no_longer_than_a_full_step_does():
    speed = warmed(Decoding(lambda pictures: 0.040 + 0.001 * pictures, step=0.045))
    assert speed.decode_pixels == 4 * NATIVE
    slower = warmed(Decoding(lambda pictures: 0.040 + 0.001 * pictures, step=0.002))
    assert slower.decode_pixels == NATIVE, "but for a picture itself"


def test_decodes_that_do_not_fit_are_not_tried_again():
    speed = warmed(Decoding(lambda pictures: 0.010, most=2))
    assert speed.decode_pixels == 2 * NATIVE


def test_a_slow_autoencoder_is_measured_in_its_budget():
    denoiser = Decoding(lambda pictures: 4.0 * pictures)
    speed = warmed(denoiser)
    assert denoiser.decoded == [1, 1, 0.25, 0.25]
    assert speed.decode_seconds == pytest.approx(4.0)


def test_a_busy_machine_does_not_hold_a_worker_to_few_rows():
    denoiser = ClockedDenoiser(lambda rows: 0.6 + 0.05 * rows)
    assert [rows for rows, _ in warmed(denoiser).curve] == [2, 4]
    assert warmed(denoiser).full_rows == 32


def doubts(denoiser):
    warm_up = WarmUp(denoiser, load_catalog()["demo"], 8, NoGauge(), clock=lambda: denoiser.now)
    warm_up.run()
    return warm_up.doubts


@pytest.mark.parametrize(
    "curve",
    [lambda rows: 1e-3, lambda rows: 1e-3 * rows, lambda rows: 1e-3 * rows**1.4],
    ids=["all rows in one", "row by row", "short of cache"],
)
def test_what_undisturbed_devices_show_is_not_doubted(curve):
    assert doubts(ClockedDenoiser(curve)) == []


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        ({2: 1e-3, 4: 1e-4, 8: 1e-4}, "4 rows took 0.1 times as long as 2"),
        ({2: 1e-3, 4: 2e-3, 8: 9e-3}, "8 rows took 4.5 times as long as 4"),
    ],
    ids=["more rows in less time", "dearer rows"],
)
def test_a_curve_that_no_device_has_is_doubted(seconds, said):
    assert doubts(ClockedDenoiser(seconds.get)) == [said]


def test_a_step_that_takes_another_time_each_time_is_doubted():
    times = iter([1, 7e-3, 1e-3, 4e-3, *[1e-3] * 100])
    assert doubts(ClockedDenoiser(lambda rows: next(times))) == [
        "one step took 1.0 ms, and the same again 7.0 ms"
    ]


def test_one_slow_try_of_three_is_nothing_special():
    times = iter([1, 7e-3, 1e-3, 1e-3, *[1e-3] * 100])
    assert doubts(ClockedDenoiser(lambda rows: next(times))) == []


@pytest.mark.parametrize(("exponent", "doubted"), [(-0.5, 1), (0.0, 0), (1.0, 0), (2.5, 1)])
def test_a_size_that_costs_what_no_size_costs_is_doubted(exponent, doubted):
    class Sized(ClockedDenoiser):
        def predict(self, states):
            self.now += (states[0].pixels / NATIVE) ** exponent
            return [s.seed for s in states]

    found = doubts(Sized(None))
    assert len(found) == doubted
    assert all("4 times the pixels took" in doubt for doubt in found)
