import pytest

from server.catalog import load_catalog
from server.errors import OutOfMemory
from server.workers.simulated import SimulatedDenoiser
from server.workers.warmup import measure_cap

NATIVE = 128 * 128


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
    cap = measure_cap(denoiser, load_catalog()["demo"], 32, lambda: denoiser.now)
    assert cap == rows * NATIVE


def test_warming_up_a_slow_device_keeps_to_its_budget_and_says_what_that_means(caplog):
    denoiser = ClockedDenoiser(lambda rows: 6.0)
    cap = measure_cap(denoiser, load_catalog()["demo"], 32, lambda: denoiser.now)
    assert set(denoiser.rows) == {2}
    assert cap == 2 * NATIVE
    assert "DARKROOM_MAX_STEP_PIXELS" in caplog.text


def test_the_cap_is_among_what_fits():
    class Small(ClockedDenoiser):
        def predict(self, states):
            if len(states) > 4:
                raise OutOfMemory("too many rows")
            return super().predict(states)

    denoiser = Small(lambda rows: 1e-3)
    assert measure_cap(denoiser, load_catalog()["demo"], 32, lambda: denoiser.now) == 8 * NATIVE


def test_a_checkpoint_of_which_not_one_picture_fits_is_not_served():
    class Tiny(SimulatedDenoiser):
        def predict(self, states):
            raise OutOfMemory("not even one")

    with pytest.raises(OutOfMemory, match="not even one"):
        measure_cap(Tiny(), load_catalog()["demo"], 32)


def test_no_more_pictures_are_prepared_than_are_measured():
    prepared = []

    class Slow(ClockedDenoiser):
        def prepare(self, stage, index, inputs):
            prepared.append(index)
            return super().prepare(stage, index, inputs)

    denoiser = Slow(lambda rows: 6.0)
    measure_cap(denoiser, load_catalog()["demo"], 32, lambda: denoiser.now)
    assert prepared == [0]


@pytest.mark.parametrize("card", load_catalog().values(), ids=lambda card: card.name)
def test_every_checkpoint_is_warmed_with_a_task_it_has(card):
    denoiser = ClockedDenoiser(lambda rows: 6.0)
    assert measure_cap(denoiser, card, 32, lambda: denoiser.now) == 2 * card.native_size**2
