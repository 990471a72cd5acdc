from typing import Any

import numpy as np
import pytest

from server.spec import Axis, Sweep
from server.workers.grid import MAX_SIDE, PAPER, draw_grid

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255)]


def a_sweep(*axes: tuple[str, tuple[Any, ...]]) -> Sweep:
    return Sweep(axes=tuple(Axis(field=field, values=values) for field, values in axes))


def flat(width: int, height: int, count: int) -> list[np.ndarray]:
    return [np.full((height, width, 3), COLOURS[i % 6], np.uint8) for i in range(count)]


def places(grid: np.ndarray, count: int) -> list[tuple[float, float]]:
    """The middle of each picture, x and y."""
    found = []
    for colour in COLOURS[:count]:
        ys, xs = np.nonzero((grid == colour).all(-1))
        found.append((float(xs.mean()), float(ys.mean())))
    return found


def test_the_last_axis_runs_along_the_columns_and_the_first_down_the_rows():
    sweep = a_sweep(("seed", (1, 2)), ("guidance_scale", (1.0, 2.5, 7.0)))
    a, b, c, d, e, f = places(draw_grid(flat(128, 96, 6), sweep), 6)
    assert a[1] == b[1] == c[1] < d[1] == e[1] == f[1]
    assert a[0] == d[0] < b[0] == e[0] < c[0] == f[0]


def test_pictures_that_fit_are_not_changed():
    grid = draw_grid(flat(128, 96, 2), a_sweep(("seed", (1, 2))))
    assert [(grid == colour).all(-1).sum() for colour in COLOURS[:2]] == [128 * 96] * 2


def test_every_row_and_column_is_labelled():
    sweep = a_sweep(("sampler", ("euler", "ddim")), ("seed", (1, 2)))
    grid = draw_grid(flat(128, 128, 4), sweep)
    ink = grid.max(-1) < 90
    for x, _ in places(grid, 2):
        assert ink[:40, int(x) - 40 : int(x) + 40].any()
    (first, top), *_, (_, bottom) = places(grid, 4)
    for y in (top, bottom):
        assert ink[int(y) - 30 : int(y) + 30, : int(first) - 70].any()


def test_values_make_different_labels():
    heads = [
        draw_grid(flat(128, 128, 1), a_sweep(("guidance_scale", (value,))))[:24]
        for value in (7.5, 7.0)
    ]
    assert not np.array_equal(*heads)


@pytest.mark.parametrize(("width", "height"), [(1024, 1536), (2048, 512), (512, 4096)])
def test_a_large_grid_is_made_smaller_as_a_whole(width, height):
    sweep = a_sweep(("num_inference_steps", (1, 2, 3, 4)), ("strength", (0.1, 0.2, 0.3, 0.4)))
    others = 15 * [np.full((height, width, 3), 128, np.uint8)]
    grid = draw_grid(flat(width, height, 1) + others, sweep)
    assert 0.9 * MAX_SIDE < max(grid.shape) <= MAX_SIDE
    area = (grid == COLOURS[0]).all(-1)
    tall, wide = area.any(1).sum(), area.any(0).sum()
    assert wide / tall == pytest.approx(width / height, rel=0.02)


def test_labels_wider_than_their_pictures_do_not_overlap():
    grid = draw_grid(flat(64, 64, 3), a_sweep(("num_inference_steps", (1, 2, 3))))
    (a, _), (b, _), _ = places(grid, 3)
    assert b - a > 100
    gap = int((a + b) / 2)
    assert (grid[:, gap - 1 : gap + 1] == PAPER).all()


def test_more_values_than_fit_still_make_a_grid():
    many = a_sweep(("num_inference_steps", tuple(range(1, 81))))
    assert max(draw_grid(flat(16, 16, 80), many).shape) <= MAX_SIDE
