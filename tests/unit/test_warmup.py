import pytest

from server.catalog import load_catalog
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


@pytest.mark.parametrize("card", load_catalog().values(), ids=lambda card: card.name)
def test_every_checkpoint_is_warmed_with_a_task_it_has(card):
    denoiser = ClockedDenoiser(lambda rows: 6.0)
    assert measure_cap(denoiser, card, 32, lambda: denoiser.now) == 2 * card.native_size**2
