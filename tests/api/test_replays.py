"""Drawing again over HTTP: what may be sent, what is refused, and what the record says."""

from __future__ import annotations

import io
import json
from typing import Any

import httpx
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from server.infotext import infotext
from server.recipe import looks_of
from server.spec import SPEC, Quantization
from tests.api.house import Hands
from tests.api.pictures import body, mask, picture, text

REPLAY = "/v1/generations/replay"
PLAIN = {"Content-Type": "text/plain"}
PNG = {"Content-Type": "image/png"}
INFOTEXT = "a red circle\nSteps: 9, Sampler: Euler, CFG scale: 3, Seed: 11, Size: 128x128"


def carrying(**texts: str) -> bytes:
    """A PNG that says these of itself."""
    about, out = PngInfo(), io.BytesIO()
    for name, said in texts.items():
        about.add_text(name, said)
    Image.new("RGB", (128, 128), (9, 9, 9)).save(out, "PNG", pnginfo=about)
    return out.getvalue()


@pytest.fixture
def manifest(client: httpx.Client, hands: Hands) -> dict[str, Any]:
    """Of the second of two pictures."""
    sent = {"prompt": "a red circle", "num_images": 2, "seed": 6, "num_inference_steps": 9}
    id = client.post("/v1/generations", json=sent).json()["id"]
    hands.begin(id)
    hands.succeed(id, b"one", b"two", pixels_sha256="ab" * 32, thumbnail="AAAA")
    answer = client.get(f"/v1/generations/{id}/images/1/manifest")
    assert answer.headers["content-type"] == "application/json"
    found: dict[str, Any] = answer.json()
    return found


def again(client: httpx.Client, **sent: Any) -> dict[str, Any]:
    answer = client.post(REPLAY, **sent)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == answer.json()["urls"]["self"]
    record: dict[str, Any] = answer.json()
    return record


def refused(client: httpx.Client, status: int = 422, **sent: Any) -> dict[str, Any]:
    answer = client.post(REPLAY, **sent)
    assert answer.status_code == status, answer.text
    problem: dict[str, Any] = answer.json()
    return problem


def test_a_manifest_says_all_of_one_picture(manifest: dict[str, Any]) -> None:
    assert manifest["darkroom"] == 1
    assert manifest["spec"]["seed"] == 7
    assert manifest["spec"]["num_images"] == 1
    assert manifest["pixels_sha256"] == "ab" * 32


def test_a_manifest_is_queued_as_it_was_drawn(
    client: httpx.Client, hands: Hands, manifest: dict[str, Any]
) -> None:
    record = again(client, json=manifest)
    assert record["status"] == "queued"
    assert record["spec"] | {"deadline_seconds": 1} == manifest["spec"] | {
        "deadline_seconds": 1,
        "previews": 0,
    }
    assert record["warnings"] == []
    assert record["replay"] == {
        "expected": {"sha256": manifest["sha256"], "pixels_sha256": "ab" * 32},
        "equal": None,
        "alike": None,
    }


@pytest.mark.parametrize(
    ("about", "equal", "alike"),
    [
        ({"pixels_sha256": "ab" * 32, "thumbnail": "AAAA"}, True, True),
        ({"pixels_sha256": "cd" * 32, "thumbnail": "AAEC"}, False, True),
        ({"pixels_sha256": "cd" * 32, "thumbnail": "AAAF"}, False, False),
        ({}, None, None),
    ],
)
def test_the_record_says_whether_it_is_the_same(
    client: httpx.Client,
    hands: Hands,
    manifest: dict[str, Any],
    about: dict[str, str],
    equal: bool | None,
    alike: bool | None,
) -> None:
    record = again(client, json=manifest)
    hands.begin(record["id"])
    hands.succeed(record["id"], b"new", **about)
    ended = client.get(record["urls"]["self"]).json()["replay"]
    assert (ended["equal"], ended["alike"]) == (equal, alike)


def test_the_same_file_is_the_same_picture(client: httpx.Client, hands: Hands) -> None:
    manifest = {"spec": client.post("/v1/generations", json={"prompt": "a"}).json()["spec"]}
    import hashlib

    record = again(client, json=manifest | {"sha256": hashlib.sha256(b"same").hexdigest()})
    hands.begin(record["id"])
    hands.succeed(record["id"], b"same")
    assert client.get(record["urls"]["self"]).json()["replay"]["equal"] is True


def test_other_generations_are_no_replay(client: httpx.Client) -> None:
    assert client.post("/v1/generations", json={"prompt": "a"}).json()["replay"] is None


@pytest.mark.parametrize(
    "sent",
    [
        {"content": INFOTEXT, "headers": PLAIN},
        {"json": {"infotext": INFOTEXT}},
        {"files": {"infotext": (None, INFOTEXT)}},
        {"content": carrying(parameters=INFOTEXT), "headers": PNG},
        {"files": {"image": ("a.png", carrying(parameters=INFOTEXT))}},
    ],
    ids=["text", "json", "form", "png", "png in a form"],
)
def test_an_infotext_comes_in_many_ways(client: httpx.Client, sent: dict[str, Any]) -> None:
    spec = again(client, **sent)["spec"]
    assert (spec["num_inference_steps"], spec["sampler"], spec["seed"]) == (9, "euler", 11)


def test_a_picture_without_a_digest_is_compared_with_its_own_pixels(
    client: httpx.Client, manifest: dict[str, Any]
) -> None:
    old = {"version": "0.0.1", "spec": manifest["spec"]}
    data = carrying(darkroom=json.dumps(old), parameters="ignored")
    record = again(client, content=data, headers=PNG)
    with Image.open(io.BytesIO(data)) as opened:
        assert record["replay"]["expected"]["pixels_sha256"] == looks_of(opened).pixels_sha256
    assert record["spec"]["seed"] == 7


@pytest.mark.parametrize("edited", [False, True])
def test_an_edited_infotext_beside_a_manifest_is_not_drawn_and_that_is_said(
    client: httpx.Client, manifest: dict[str, Any], edited: bool
) -> None:
    written = infotext(SPEC.validate_python(manifest["spec"], strict=False), "0.1.0")
    said = written.replace("a red circle", "a green star") if edited else written
    data = carrying(darkroom=json.dumps(manifest), parameters=said)
    record = again(client, content=data, headers=PNG)
    codes = {warning["code"] for warning in record["warnings"]} - {"picture_changed"}
    assert codes == ({"infotext_ignored"} if edited else set())
    assert record["spec"]["prompt"] == "a red circle"


def test_other_weights_are_warned_of_or_refused(
    client: httpx.Client, manifest: dict[str, Any]
) -> None:
    assert "quantization" not in manifest
    sent = manifest | {"quantization": "int8"}
    [warning] = again(client, json=sent)["warnings"]
    assert warning["code"] == "other_quantization"
    assert "drawn with int8, and is drawn again with none" in warning["message"]
    problem = refused(client, json=sent | {"strict": True})
    assert problem["errors"][0]["field"] == "quantization"


def test_a_manifest_names_the_weights_that_drew_it(client: httpx.Client, hands: Hands) -> None:
    id = client.post("/v1/generations", json={"prompt": "x"}).json()["id"]
    hands.begin(id)
    hands.succeed(id, b"one", quantization=Quantization.INT8)
    assert client.get(f"/v1/generations/{id}/images/0/manifest").json()["quantization"] == "int8"


def test_what_an_infotext_says_in_vain_is_warned_of_or_refused(client: httpx.Client) -> None:
    said = f"{INFOTEXT}, Model: dreamlike, Face restoration: GFPGAN"
    record = again(client, json={"infotext": said})
    codes = [warning["code"] for warning in record["warnings"]]
    assert codes == ["model_ignored", "face_restoration_ignored"]
    assert record["spec"]["checkpoint"] == "demo"
    for sent in (
        {"json": {"infotext": said, "strict": True}},
        {"content": said, "headers": PLAIN, "params": {"strict": True}},
    ):
        problem = refused(client, **sent)
        assert "dreamlike" in problem["detail"]
        assert [error["field"] for error in problem["errors"]] == ["infotext", "infotext"]


def test_what_it_was_drawn_from_is_sent_again_and_checked(
    atelier: httpx.Client, painter: Hands
) -> None:
    sent = body(task="inpainting", image=picture(), mask_image=mask(), strength=0.5)
    record = atelier.post("/v1/generations", json=sent).json()
    painter.begin(record["id"])
    painter.succeed(record["id"])
    manifest = atelier.get(f"{record['urls']['self']}/images/0/manifest").json()
    assert "key" not in manifest["spec"]["image"]
    problem = refused(atelier, json=manifest)
    assert [error["field"] for error in problem["errors"]] == ["input", "mask_image"]
    other = manifest | {"input": text(picture(96, 96)), "mask_image": text(mask())}
    assert "input: is another one" in refused(atelier, json=other)["detail"]
    given = {"input": text(picture()), "mask_image": text(mask())}
    assert again(atelier, json=manifest | given)["spec"] == record["spec"] | {"previews": 0}
    form = {
        "image": ("a.png", carrying(darkroom=json.dumps(manifest))),
        "input": ("b.png", picture()),
        "mask_image": ("c.png", mask()),
    }
    assert again(atelier, files=form)["spec"]["strength"] == 0.5


def test_an_infotext_from_a_picture_needs_one(atelier: httpx.Client) -> None:
    said = {"infotext": f"{INFOTEXT}, Model: any, Denoising strength: 0.5"}
    assert refused(atelier, json=said)["errors"][0]["field"] == "input"
    broken = refused(atelier, json=said | {"input": text(b"no picture")})
    assert broken["detail"] == "input: is no PNG, JPEG or WebP"
    assert broken["errors"][0]["field"] == "input"
    spec = again(atelier, json=said | {"input": text(picture())})["spec"]
    assert (spec["task"], spec["strength"]) == ("image-to-image", 0.5)


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        ({"json": {}}, 422, "send a manifest, an infotext or a picture"),
        ({"json": {"infotext": "a", "spec": {}}}, 422, "not spec and infotext"),
        ({"json": {"spec": {"task": "text-to-image"}}}, 422, "spec.checkpoint: is required"),
        ({"json": {"darkroom": 2, "spec": {}}}, 422, "darkroom: must be 1"),
        ({"json": {"recipe": 1}}, 422, "no such field"),
        ({"json": {"infotext": "a", "input": "http://x/y"}}, 422, "addresses are not fetched"),
        ({"content": b"\xff", "headers": PLAIN}, 400, "UTF-8"),
        ({"content": b"PNG", "headers": PNG}, 422, "image: is no PNG, JPEG or WebP"),
        ({"content": picture(), "headers": PNG}, 422, "carries no recipe"),
        ({"content": carrying(darkroom="{"), "headers": PNG}, 422, "its manifest is not JSON"),
        ({"content": carrying(darkroom="[" * 5000), "headers": PNG}, 422, "is not JSON"),
        ({"content": carrying(darkroom="[]"), "headers": PNG}, 422, "the body"),
        ({"json": {"spec": {"task": "dream"}}}, 422, "spec"),
        ({"json": {"spec": [], "sha256": "x"}}, 422, "spec: must be"),
        ({"content": carrying(darkroom='{"sha256": "x"}'), "headers": PNG}, 422, "sha256: is not"),
        ({"content": b"x", "headers": {"Content-Type": "text/html"}}, 415, "text/plain"),
        ({"files": {"photo": ("a.png", picture())}}, 422, "photo: cannot be a file"),
        ({"content": "milk\nbread", "headers": PLAIN}, 422, "infotext: is no infotext"),
        ({"content": carrying(parameters="milk"), "headers": PNG}, 422, "image: is no infotext"),
        ({"json": {"infotext": "a\nSteps: 0, Seed: 1, Size: 8x8"}}, 422, "num_inference_steps"),
    ],
)
def test_what_is_no_recipe_is_refused_in_words(
    client: httpx.Client, hands: Hands, sent: dict[str, Any], status: int, words: str
) -> None:
    assert words in refused(client, status, **sent)["detail"]
    assert hands.queued() == 0


def test_a_checkpoint_that_is_not_here_is_named(
    client: httpx.Client, manifest: dict[str, Any]
) -> None:
    manifest["spec"]["checkpoint"] = "lost"
    assert refused(client, json=manifest)["code"] == "unknown_checkpoint"


def test_it_is_answered_as_any_submission(
    client: httpx.Client, hands: Hands, manifest: dict[str, Any]
) -> None:
    key = {"Idempotency-Key": "replay-1"}
    first = client.post(REPLAY, json=manifest, headers=key)
    second = client.post(REPLAY, json=manifest, headers=key)
    assert second.json()["id"] == first.json()["id"]
    assert second.headers["idempotent-replayed"] == "true"
    manifest["spec"]["seed"] += 1
    assert client.post(REPLAY, json=manifest, headers=key).status_code == 422
    waited = client.post(REPLAY, json=manifest, headers={"Prefer": "wait=0"})
    assert waited.headers["preference-applied"] == "wait=0"


def test_there_is_no_manifest_of_what_is_not_drawn(client: httpx.Client) -> None:
    record = client.post("/v1/generations", json={"prompt": "a"}).json()
    answer = client.get(f"{record['urls']['self']}/images/0/manifest")
    assert answer.status_code == 404


def test_text_that_is_none_is_refused(client: httpx.Client, manifest: dict[str, Any]) -> None:
    manifest["spec"]["prompt"] = "half \ud800 a pair"
    data = carrying(darkroom=json.dumps(manifest))
    assert client.post(REPLAY, content=data, headers=PNG).status_code in (400, 422)


def test_a_manifest_of_what_cannot_be_is_refused(
    client: httpx.Client, manifest: dict[str, Any]
) -> None:
    for name, value in (("width", 10**300), ("num_inference_steps", 10**9), ("seed", -1)):
        changed = manifest | {"spec": manifest["spec"] | {name: value}}
        problem = refused(client, json=changed)
        assert name in problem["errors"][0]["field"]
