"""The labelled overview of a sweep: its pictures in rows and columns. Pure: arrays in and out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from server.spec import Axis, Sweep

MAX_SIDE = 4096
PAPER, INK, FRAME = (250, 250, 248), (38, 38, 42), (214, 214, 208)
SMALLEST_TEXT, LARGEST_TEXT = 11, 36
SMALLEST_CELL = 16

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes in pixels of the finished grid."""

    cell: tuple[int, int]
    column: int
    """Width of a column: that of its picture, or of its label where that is wider."""
    margin: int
    gap: int
    head: int
    """Height of the labels above the columns."""
    side: int
    """Width of the labels before the rows; 0 for one row without a label."""
    rows: int
    columns: int

    @property
    def size(self) -> tuple[int, int]:
        """Of the whole."""
        return self.left(self.columns) - self.gap + self.margin, (
            self.top(self.rows) - self.gap + self.margin
        )

    def left(self, column: int) -> int:
        """Where a column begins."""
        return self.margin + self.side + column * (self.column + self.gap)

    def top(self, row: int) -> int:
        """Where a row begins."""
        return self.margin + self.head + row * (self.cell[1] + self.gap)


def draw_grid(pictures: Sequence[NDArray[np.uint8]], sweep: Sweep) -> NDArray[np.uint8]:
    """All pictures of a sweep, of (height, width, 3) and one size, in the order of its
    combinations. The last axis runs along the columns, the first of two down the rows.

    No side is longer than `MAX_SIDE`: pictures are made smaller until they fit.
    """
    columns, rows = sweep.axes[-1], sweep.axes[0] if len(sweep.axes) > 1 else None
    layout = _fitting(pictures[0].shape[1], pictures[0].shape[0], columns, rows)
    grid = Image.new("RGB", layout.size, PAPER)
    draw = ImageDraw.Draw(grid)
    _label(draw, layout, columns, rows)
    for index, pixels in enumerate(pictures):
        row, column = divmod(index, layout.columns)
        left = layout.left(column) + (layout.column - layout.cell[0]) // 2
        place = left, layout.top(row)
        _frame(draw, place, layout.cell)
        picture = Image.fromarray(pixels)
        if picture.size != layout.cell:
            picture = picture.resize(layout.cell, Image.Resampling.LANCZOS)
        grid.paste(picture, place)
    grid.thumbnail((MAX_SIDE, MAX_SIDE))  # where the labels alone are too much
    return np.asarray(grid)


def _fitting(width: int, height: int, columns: Axis, rows: Axis | None) -> Layout:
    scale = 1.0
    layout = _layout(width, height, scale, columns, rows)
    while max(layout.size) > MAX_SIDE and min(layout.cell) > SMALLEST_CELL:
        scale *= min(0.98, MAX_SIDE / max(layout.size))
        layout = _layout(width, height, scale, columns, rows)
    return layout


def _layout(width: int, height: int, scale: float, columns: Axis, rows: Axis | None) -> Layout:
    cell = max(1, round(width * scale)), max(1, round(height * scale))
    font = _font(cell)
    gap = max(4, min(cell) // 24)
    line = _line_height(font)
    labels = _labels(columns, cell[0], font)
    side = _widest(_labels(rows, 0, font), font) + 2 * gap if rows else 0
    return Layout(
        cell=cell,
        column=max(cell[0], _widest(labels, font)),
        margin=2 * gap,
        gap=gap,
        head=line * max(map(len, labels)) + gap,
        side=side,
        rows=len(rows.values) if rows else 1,
        columns=len(columns.values),
    )


def _widest(labels: list[list[str]], font: Font) -> int:
    return round(max(font.getlength(line) for label in labels for line in label))


def _label(draw: ImageDraw.ImageDraw, layout: Layout, columns: Axis, rows: Axis | None) -> None:
    font = _font(layout.cell)
    for column, lines in enumerate(_labels(columns, layout.cell[0], font)):
        middle = layout.left(column) + layout.column // 2
        bottom = layout.margin + layout.head - layout.gap
        text = "\n".join(lines)
        draw.multiline_text((middle, bottom), text, INK, font, anchor="md", align="center")
    for row, lines in enumerate(_labels(rows, 0, font) if rows else ()):
        right = layout.margin + layout.side - 2 * layout.gap
        middle = layout.top(row) + layout.cell[1] // 2
        text = "\n".join(lines)
        draw.multiline_text((right, middle), text, INK, font, anchor="rm", align="right")


def _labels(axis: Axis, width: int, font: Font) -> list[list[str]]:
    """For each value its name and itself: on one line where `width` has room for all of them."""
    values = [f"{value:g}" if isinstance(value, float) else str(value) for value in axis.values]
    single = [[f"{axis.field} {value}"] for value in values]
    if all(font.getlength(line) <= width for [line] in single):
        return single
    return [[axis.field, value] for value in values]


def _frame(draw: ImageDraw.ImageDraw, place: tuple[int, int], cell: tuple[int, int]) -> None:
    (left, top), (width, height) = place, cell
    draw.rectangle((left - 1, top - 1, left + width, top + height), outline=FRAME)


def _font(cell: tuple[int, int]) -> Font:
    return ImageFont.load_default(min(LARGEST_TEXT, max(SMALLEST_TEXT, min(cell) // 14)))


def _line_height(font: Font) -> int:
    _, top, _, bottom = font.getbbox("Ag")
    return round((bottom - top) * 1.4)
