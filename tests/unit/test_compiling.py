import contextlib
import logging

import pytest

from server.catalog import load_catalog
from server.errors import OutOfMemory
from server.workers.compiling import MEETINGS, Compiling
from server.workers.simulated import SimulatedDenoiser


class Blocks:
    """Three of them, each of which takes as long to compile."""

    def __init__(self):
        self.told = None
        self.learning = False

    def __len__(self):
        return 3

    @contextlib.contextmanager
    def learn(self, told):
        self.told, self.learning = told, True
        yield
        self.learning = False


class Denoiser(SimulatedDenoiser):
    """Its calls take no time but move a clock, block by block."""

    def __init__(self, blocks, full_rows=10**6):
        super().__init__()
        self.now = 0.0
        self.calls = []
        self.blocks = blocks
        self.full_rows = full_rows

    def predict(self, states):
        assert self.blocks.learning
        rows = sum(each.rows for each in states)
        if rows > self.full_rows:
            raise OutOfMemory("full")
        self.calls.append((rows, states[0].pixels))
        for _ in range(len(self.blocks)):
            self.now += 4.0
            self.blocks.told()
        return [each.seed for each in states]


def compiling(record, max_rows=32, **changes):
    blocks = Blocks()
    denoiser = Denoiser(blocks, **changes)
    card = load_catalog()["demo"]
    return denoiser, Compiling(denoiser, blocks, card, max_rows, record, lambda: denoiser.now)


def test_it_meets_any_number_of_rows_one_alone_and_other_sizes(tmp_path):
    denoiser, one = compiling(tmp_path / "seconds")
    one.run()
    native = 128 * 128
    assert denoiser.calls == [(5, native), (1, native), (17, native // 4), (1, native * 9 // 4)]


def test_more_rows_than_are_ever_drawn_together_are_not_met(tmp_path):
    denoiser, one = compiling(tmp_path / "seconds", max_rows=2)
    one.run()
    assert {rows for rows, _ in denoiser.calls} == {1}


def test_it_says_how_far_it_is_and_the_next_time_how_long_it_takes(tmp_path, caplog):
    caplog.set_level(logging.INFO, "darkroom.warmup")
    record = tmp_path / "seconds"
    compiling(record)[1].run()
    first = caplog.messages
    assert first[0] == "compiling the UNet's blocks; this may take minutes"
    assert "compiling, 4 of 12 after 16 s" in first
    assert first[-1] == "compiled after 48.0 s"
    caplog.clear()
    compiling(record)[1].run()
    assert caplog.messages[0] == "compiling the UNet's blocks; it took 48 s the last time"
    assert "compiling, 4 of 12 after 16 s, 32 s to go" in caplog.messages


def test_what_does_not_fit_is_left_out(tmp_path, caplog):
    denoiser, one = compiling(tmp_path / "seconds", full_rows=8)
    one.run()
    assert [rows for rows, _ in denoiser.calls] == [5, 1, 1]
    assert "nothing compiled for 17 rows: full" in caplog.messages


@pytest.mark.parametrize("written", ["", "soon", "nan nan"])
def test_a_record_that_says_nothing_is_as_none(tmp_path, caplog, written):
    caplog.set_level(logging.INFO, "darkroom.warmup")
    record = tmp_path / "seconds"
    record.write_text(written)
    compiling(record)[1].run()
    assert "this may take minutes" in caplog.messages[0]
    assert record.read_text() == "48.0\n"


def test_a_record_that_cannot_be_kept_is_told_and_no_more(tmp_path, caplog):
    compiling(tmp_path / "nowhere" / "seconds")[1].run()
    assert any("how long it took cannot be kept" in each for each in caplog.messages)


def test_the_rows_of_all_meetings_differ_from_each_other_or_their_sizes_do():
    assert len({(each.rows, each.share) for each in MEETINGS}) == len(MEETINGS)
