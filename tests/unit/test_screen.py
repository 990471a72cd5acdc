import numpy as np
import pytest

from server.catalog import Safety
from server.workers.screen import screened, warnings_of


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)


@pytest.mark.parametrize("safety", list(Safety))
@pytest.mark.parametrize("nsfw", [False, None])
def test_what_is_not_flagged_is_not_changed(picture, safety, nsfw):
    assert screened(picture, nsfw, safety) is picture
    assert warnings_of([nsfw], safety) == ()


def test_a_flag_alone_changes_nothing(picture):
    assert screened(picture, True, Safety.FLAG) is picture
    assert warnings_of([True], Safety.FLAG) == ()


def test_blurred_it_has_no_detail_left():
    stripes = np.zeros((64, 96, 3), np.uint8)
    stripes[:, ::2] = 255
    shown = screened(stripes, True, Safety.BLUR)
    assert shown.shape == stripes.shape
    assert np.abs(np.diff(shown.astype(int), axis=1)).max() < 10


def test_blocked_it_is_black(picture):
    shown = screened(picture, True, Safety.BLOCK)
    assert shown.shape == picture.shape
    assert not shown.any()
    assert picture.any()


def test_it_says_which_pictures_and_what_was_done():
    [warn] = warnings_of([False, True, None], Safety.BLUR)
    assert warn.code == "nsfw_blurred"
    assert "image 1" in warn.message
    assert [w.code for w in warnings_of([True, True], Safety.BLOCK)] == ["nsfw_blocked"] * 2
