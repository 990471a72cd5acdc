import asyncio

import pytest

from server.errors import NotFound, Unavailable
from server.storage import open_store


@pytest.fixture(params=["folder", "file url", "memory", "s3"])
def store(request, tmp_path):
    location = {
        "folder": lambda: "",
        "file url": lambda: (tmp_path / "by-url").as_uri(),
        "memory": lambda: "memory://",
        "s3": lambda: request.getfixturevalue("bucket"),
    }[request.param]()
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


def listed(store):
    async def all_of_it():
        return [(folder.name, sorted(folder.keys)) async for folder in store.folders()]

    return sorted(asyncio.run(all_of_it()))


def test_all_that_is_stored_is_listed_folder_by_folder(store):
    for key in ("gen_1/0-e.png", "gen_1/1-e.png", "gen_2/0-e.png"):
        store.put(key, b"picture")
    assert listed(store) == [
        ("gen_1", ["gen_1/0-e.png", "gen_1/1-e.png"]),
        ("gen_2", ["gen_2/0-e.png"]),
    ]


def test_more_folders_than_are_listed_at_once_are_all_listed(store, monkeypatch):
    monkeypatch.setattr("server.storage.LISTED", 2)
    for number in range(5):
        store.put(f"gen_{number}/0-e.png", b"picture")
    assert [name for name, _ in listed(store)] == [f"gen_{number}" for number in range(5)]


def test_what_a_killed_writer_left_unfinished_is_listed_and_removed(tmp_path):
    store, images = open_store("", tmp_path), tmp_path / "images"
    store.put("gen_1/0-e.png", b"picture")
    (images / "gen_1" / "1-e.png#1").write_bytes(b"half of a pict")
    (images / "gen_2").mkdir()
    assert listed(store) == [("gen_1", ["gen_1/0-e.png", "gen_1/1-e.png#1"]), ("gen_2", [])]
    asyncio.run(store.delete("gen_1/1-e.png#1"))
    asyncio.run(store.clear("gen_2"))
    assert listed(store) == [("gen_1", ["gen_1/0-e.png"])]


@pytest.mark.parametrize(
    "key", ["../kept", "gen_1/../kept", "gen_1/../../kept", "/etc/kept", "gen_1/", "kept", ""]
)
def test_nothing_outside_its_folders_is_ever_removed(tmp_path, key):
    store = open_store("", tmp_path)
    store.put("gen_1/kept", b"picture")
    for path in (tmp_path / "kept", tmp_path / "images" / "kept"):
        path.touch()
    store.discard(key)
    asyncio.run(store.clear(key))
    assert sorted(path.name for path in tmp_path.rglob("kept")) == 3 * ["kept"]


def test_a_store_knows_what_is_left_where_that_can_be_known(store, tmp_path):
    free = store.free_bytes()
    assert free is None or free > 0
    nowhere = open_store("", tmp_path / "a")
    (tmp_path / "a" / "images").rmdir()
    assert (nowhere.free_bytes() or 0) > 0, "of where it would be"


def test_each_refusal_is_counted(tmp_path):
    store, told = open_store("", tmp_path), []
    store.on_failure(lambda: told.append(1))
    (tmp_path / "images" / "gen_1").write_text("a file where a folder must be")
    for _ in range(2):
        with pytest.raises(Unavailable):
            store.put("gen_1/0-e.png", b"picture")
    with pytest.raises(NotFound):
        store.read("gen_2/0-e.png")
    assert len(told) == 2


def test_a_folder_that_cannot_be_written_is_said_without_its_path(tmp_path, caplog):
    store = open_store("", tmp_path)
    (tmp_path / "images" / "gen_1").write_text("a file where a folder must be")
    with pytest.raises(Unavailable) as refused:
        store.put("gen_1/0-e.png", b"picture")
    assert refused.value.message == "the image store cannot be written"
    [record] = caplog.records
    assert record.name == "darkroom.storage"
    assert str(tmp_path) in record.getMessage()
