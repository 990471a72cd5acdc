import asyncio

import pytest

from server.errors import NotFound, Unavailable
from server.storage import open_store


@pytest.fixture(params=["folder", "file url", "memory"])
def store(request, tmp_path):
    location = {
        "folder": "",
        "file url": (tmp_path / "by-url").as_uri(),
        "memory": "memory://",
    }[request.param]
    (tmp_path / "by-url").mkdir()
    return open_store(location, tmp_path)


def test_what_is_put_is_what_is_got(store):
    store.put("gen_1/0-e.png", b"picture")
    assert asyncio.run(store.get("gen_1/0-e.png")) == b"picture"


def test_what_is_deleted_is_gone_and_deleting_twice_is_fine(store):
    store.put("gen_1/0-e.png", b"picture")
    asyncio.run(store.delete("gen_1/0-e.png", "gen_1/none.png"))
    asyncio.run(store.delete("gen_1/0-e.png"))
    with pytest.raises(NotFound):
        asyncio.run(store.get("gen_1/0-e.png"))


def test_what_is_put_is_read_on_the_callers_thread_too_until_it_is_discarded(store):
    store.put("gen_1/stage-0-0-e.png", b"latents")
    assert store.read("gen_1/stage-0-0-e.png") == b"latents"
    store.discard("gen_1/stage-0-0-e.png", "gen_1/none.png")
    with pytest.raises(NotFound):
        store.read("gen_1/stage-0-0-e.png")


def test_a_folder_is_cleared_of_everything_and_no_other(store):
    for key in ("gen_1/0-e.png", "gen_1/left-by-a-dead-worker.png", "gen_10/0-e.png"):
        store.put(key, b"picture")
    asyncio.run(store.clear("gen_1"))
    asyncio.run(store.clear("gen_none"))
    assert store.read("gen_10/0-e.png") == b"picture"
    for key in ("gen_1/0-e.png", "gen_1/left-by-a-dead-worker.png"):
        with pytest.raises(NotFound):
            store.read(key)


def test_an_empty_folder_does_not_stay(tmp_path):
    store = open_store("", tmp_path)
    for key in ("gen_1/0-e.png", "gen_1/1-e.png"):
        store.put(key, b"picture")
    store.discard("gen_1/0-e.png")
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["gen_1"]
    asyncio.run(store.clear("gen_1"))
    assert list((tmp_path / "images").iterdir()) == []
    store.put("gen_2/0-e.png", b"picture")


def test_a_folder_that_cannot_be_written_is_said_without_its_path(tmp_path, caplog):
    store = open_store("", tmp_path)
    (tmp_path / "images" / "gen_1").write_text("a file where a folder must be")
    with pytest.raises(Unavailable) as refused:
        store.put("gen_1/0-e.png", b"picture")
    assert refused.value.message == "the image store cannot be written"
    [record] = caplog.records
    assert record.name == "darkroom.storage"
    assert str(tmp_path) in record.getMessage()
