from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from server.api.deps import Gateway
from server.api.tokenizers import TokenizeRequest, Tokenizers
from server.api.vocabularies import find_folders
from server.catalog import Card, load_catalog
from server.errors import Unavailable
from server.spec import Sampler, Task
from tests.api.house import Hands, wait_until
from tests.redis_server import RedisServer

Start = Callable[..., httpx.Client]
DEMO_TOKENIZER = Path(__file__).parents[2] / "server" / "models" / "demo" / "tokenizer"


GATEWAY = """
import sys, threading, time, urllib.request
from server.api.app import make_server
from server.catalog import load_catalog
from server.config import Settings
server = make_server(Settings(redis=sys.argv[1], data_dir=sys.argv[2], port=0), load_catalog())
thread = threading.Thread(target=server.run)
thread.start()
while not server.started:
    time.sleep(0.01)
port = server.servers[0].sockets[0].getsockname()[1]
for path in ("healthz", "openapi.json", "v1/checkpoints"):
    urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}").read()
server.should_exit = True
thread.join()
print([name for name in ("torch", "diffusers", "transformers") if name in sys.modules])
"""


def test_a_running_gateway_never_imports_torch(server: RedisServer, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", GATEWAY, server.url, str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_checkpoints_are_listed_with_their_limits(client: httpx.Client) -> None:
    listed = client.get("/v1/checkpoints").json()["checkpoints"]
    assert listed[0]["name"] == "demo"
    assert client.get("/v1/checkpoints/demo").json() == listed[0]
    assert listed[0]["limits"]["max_side"] == 512
    assert "source" not in listed[0], "it may be a path"


def test_an_unknown_checkpoint_is_404(client: httpx.Client) -> None:
    assert client.get("/v1/checkpoints/none").status_code == 404


def test_samplers_say_what_they_look_at(client: httpx.Client) -> None:
    samplers = {s["name"]: s for s in client.get("/v1/samplers").json()["samplers"]}
    assert set(samplers) == set(Sampler)
    assert (samplers["ddim"]["sigmas"], samplers["ddim"]["takes_eta"]) == (["default"], True)
    assert [name for name, each in samplers.items() if each["from_noise_only"]] == ["ipndm"]
    assert "karras" in samplers["euler"]["sigmas"]


def test_capabilities_name_the_bounds(client: httpx.Client) -> None:
    said = client.get("/v1/capabilities").json()
    assert said["default_checkpoint"] == "demo"
    assert said["tasks"] == list(Task)
    assert said["max_wait_seconds"] == 5.0


def test_capabilities_name_what_each_checkpoint_can_be_asked_for(client: httpx.Client) -> None:
    said = client.get("/v1/capabilities").json()
    found = {checkpoint["name"]: checkpoint for checkpoint in said["checkpoints"]}
    assert list(found) == list(load_catalog())
    assert (found["demo"]["served"], found["sd-v1-5"]["served"]) == (True, False)
    assert (found["demo"]["hires"], found["sd-v2-depth"]["hires"]) == (True, False)
    assert (found["sdxl-base"]["refiner"], found["sd-v1-5-inpainting"]["refiner"]) == (True, False)
    assert found["demo"]["limits"]["max_sweep"] == 64
    assert "sdxl-refiner" in said["refiners"]
    assert said["upscalers"] == ["sd-x4-upscaler"]
    assert (said["loras"], said["vaes"]) == (None, None)


def test_the_queue_tells_who_waits_and_how_long(client: httpx.Client) -> None:
    client.post("/v1/generations", json={"prompt": "x"})
    demo, *others = client.get("/v1/queue").json()["checkpoints"]
    assert (demo["queued"], demo["ready_workers"], demo["capacity"]) == (1, 1, 4)
    assert demo["wait_seconds"] == 2.0
    assert {other["wait_seconds"] for other in others} == {None}


def test_the_queue_tells_what_each_worker_does(client: httpx.Client, hands: Hands) -> None:
    hands.serve(images=3, step_rows=6, step_seconds=0.25)
    demo, *others = client.get("/v1/queue").json()["checkpoints"]
    assert demo["workers"] == [
        {
            "name": "hands",
            "device": "cpu",
            "state": "ready",
            "capacity": 4,
            "images": 3,
            "step_rows": 6,
            "step_seconds": 0.25,
            "speed": {
                "native_pixels": 128 * 128,
                "curve": [[2, 0.1]],
                "smallest": None,
                "full_rows": 2,
                "guided_rows": 2,
                "exponent": 1.0,
                "decode_seconds": 0.0,
                "decode_curve": [],
                "decode_pixels": 0,
                "drift": 1.0,
                "shallow": 1.0,
                "largest_pixels": 0,
            },
        }
    ]
    assert all(other["workers"] == [] for other in others)


def test_it_is_ready_with_a_worker_and_not_without(
    client: httpx.Client, hands: Hands, redis: Redis
) -> None:
    ready = {"ready": True, "reasons": [], "missing": []}
    assert client.get("/readyz").json() == ready | {"checkpoints": {"demo": {"ready_workers": 1}}}
    redis.flushall()
    hands.serve(state="draining")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    waiting = {"ready": False, "reasons": ["no worker is ready"], "missing": ["demo"]}
    assert answer.json() == waiting | {"checkpoints": {}}
    assert client.get("/healthz").status_code == 200


def test_readiness_names_what_ought_to_be_served_and_is_not(start: Start, hands: Hands) -> None:
    client = start(workers="demo sd-v1-5@cuda:0 sd-v1-5@cuda:1 sdxl-base")
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["missing"]) == (200, ["sd-v1-5", "sdxl-base"])
    hands.serve("sd-v1-5", name="late")
    assert client.get("/readyz").json()["missing"] == ["sdxl-base"]


def test_metrics_count_routes_and_not_addresses(start: Start) -> None:
    client = start()
    accepted = client.post("/v1/generations", json={"prompt": "x"}).json()
    client.post("/v1/generations", json={"prompt": "x", "width": 7})
    client.get(accepted["urls"]["self"])
    client.get("/v1/" + "a" * 50)
    text = client.get("/metrics").text
    assert 'route="/v1/generations/{id}"' in text
    assert 'route="unmatched"' in text
    assert accepted["id"] not in text
    for line in (
        'darkroom_generations_accepted_total{checkpoint="demo"} 1.0',
        'darkroom_generations_refused_total{code="invalid_spec"} 1.0',
        'darkroom_queue_depth{checkpoint="demo"} 1.0',
    ):
        assert line in text


def test_a_line_is_logged_for_each_request_and_no_prompt(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "darkroom.api"):
        client.post("/v1/generations", json={"prompt": "PLANTED", "width": 7})
        client.post("/v1/generations?secret=PLANTED", json={"prompt": "PLANTED"})
        wait_until(lambda: len(caplog.records) == 2)
    assert "PLANTED" not in caplog.text


def test_the_unexpected_is_500_and_leaks_nothing(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def burst(self: Gateway, name: str | None) -> None:
        raise RuntimeError("PLANTED")

    monkeypatch.setattr(Gateway, "card", burst)
    with caplog.at_level(logging.ERROR, "darkroom.api"):
        answer = client.post("/v1/generations", json={"prompt": "x"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "PLANTED" not in answer.text
    assert "PLANTED" in caplog.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def tokens(client: httpx.Client, prompt: str, **asked: str) -> dict[str, Any]:
    answer = client.post("/v1/tokenize", json={"prompt": prompt} | asked)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_prompt_is_shown_as_tokens(client: httpx.Client) -> None:
    found = tokens(client, "A  red circle")
    assert [token["text"] for token in found["tokens"]] == ["A", "red", "circle"]
    assert (found["count"], found["cut"]) == (3, None)
    (encoder,) = found["encoders"]
    assert encoder["name"] == "text_encoder"
    assert encoder["tokens"] == found["tokens"]
    assert (encoder["refused"], encoder["warnings"]) == (None, [])


def test_what_would_be_cut_is_shown(client: httpx.Client) -> None:
    found = tokens(client, "red " * 75 + "and blue")
    assert [(c["start"], c["end"]) for c in found["chunks"]] == [(0, 75), (75, found["count"])]
    assert found["cut"]["text"] == "and blue"


@pytest.mark.parametrize(
    ("long_prompts", "chunks", "cut", "refused", "codes"),
    [
        ("chunk", 2, None, None, ["prompt_chunked"]),
        ("truncate", 1, "and blue", None, ["prompt_truncated"]),
        ("reject", 2, None, "prompt has 78 tokens, and 75 fit into one window; ", []),
    ],
)
def test_what_becomes_of_a_long_prompt_is_told(
    client: httpx.Client,
    long_prompts: str,
    chunks: int,
    cut: str | None,
    refused: str | None,
    codes: list[str],
) -> None:
    found = tokens(client, "red " * 75 + "and blue", long_prompts=long_prompts)
    (encoder,) = found["encoders"]
    assert found["long_prompts"] == long_prompts
    assert len(encoder["chunks"]) == chunks
    assert (encoder["cut"] and encoder["cut"]["text"]) == cut
    assert (encoder["refused"] or "").startswith(refused or "")
    assert [warning["code"] for warning in encoder["warnings"]] == codes
    assert {warning["field"] for warning in encoder["warnings"]} <= {"prompt"}


def test_emphasis_is_shown_where_it_is_asked_for(client: httpx.Client) -> None:
    prompt = "a (red:1.5) circle BREAK on [blue] AND"
    found = tokens(client, prompt, prompt_syntax="a1111")
    shown = [(prompt[t["start"] : t["end"]], round(t["weight"], 3)) for t in found["tokens"]]
    assert shown[:5] == [("a", 1), ("red", 1.5), ("circle", 1), ("on", 1), ("blue", 0.909)]
    assert [(c["start"], c["end"]) for c in found["chunks"]] == [(0, 3), (3, found["count"])]
    assert [w["code"] for w in found["encoders"][0]["warnings"]] == ["prompt_and_ignored"]
    plain = tokens(client, prompt)
    assert plain["prompt_syntax"] == "plain"
    assert {token["weight"] for token in plain["tokens"]} == {1.0}
    assert "(" in [token["text"] for token in plain["tokens"]]


def test_brackets_that_cannot_be_weighed_are_422(client: httpx.Client) -> None:
    asked = {"prompt": "(a:1000)", "prompt_syntax": "a1111"}
    answer = client.post("/v1/tokenize", json=asked)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_spec")
    assert answer.json()["errors"][0]["field"] == "prompt"


def test_an_empty_prompt_has_no_tokens(client: httpx.Client) -> None:
    assert tokens(client, "")["chunks"] == []


def demo(**changes: Any) -> Card:
    return load_catalog()["demo"].model_copy(update=changes)


def tokenizer_in(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "tokenizer.json"):
        (folder / name).write_bytes((DEMO_TOKENIZER / name).read_bytes())


def test_each_text_encoder_is_shown(tmp_path: Path) -> None:
    asked = TokenizeRequest(prompt="a red circle")
    for folder in ("tokenizer_2", "tokenizer"):
        tokenizer_in(tmp_path / folder)
        found = Tokenizers().tokenize(demo(source=str(tmp_path)), asked)
        names = [encoder.name for encoder in found.encoders]
        both = ["text_encoder", "text_encoder_2"]
        assert names == (both if folder == "tokenizer" else both[1:])
        assert {encoder.count for encoder in found.encoders} == {3}


@pytest.mark.parametrize(
    ("card", "encoders"),
    [
        ({"source": "nobody/never-downloaded"}, ["text_encoder"]),
        ({"source": "/somewhere/v1.safetensors"}, ["text_encoder"]),
        ({"source": "/x/xl.ckpt", "family": "sdxl"}, ["text_encoder", "text_encoder_2"]),
        ({"source": "/x/r.ckpt", "family": "sdxl", "tasks": ()}, ["text_encoder_2"]),
        (
            {"source": "/x/fill.ckpt", "family": "sdxl", "tasks": ("inpainting",)},
            ["text_encoder", "text_encoder_2"],
        ),
    ],
)
def test_without_files_of_its_own_a_checkpoint_reads_as_clip(
    card: dict[str, Any], encoders: list[str]
) -> None:
    found = Tokenizers().tokenize(demo(**card), TokenizeRequest(prompt="a photo of an astronaut"))
    assert [encoder.name for encoder in found.encoders] == encoders
    assert [token.id for token in found.tokens] == [320, 1125, 539, 550, 18376]


def test_a_tokenizer_that_is_not_here_is_503(tmp_path: Path) -> None:
    for source in (str(tmp_path), str(tmp_path / "none"), "./none/either"):
        with pytest.raises(Unavailable, match="is not on the gateway's host"):
            Tokenizers().tokenize(demo(source=source), TokenizeRequest(prompt="x"))


PROMPTS = [
    "a red circle",
    "It's 1999's   BEST photo!!! of Zürich, 中文 🙂",
    "<|endoftext|> a <|startoftext|>b!",
    "e\u0301tude\n\ttabs ﬁ",
    "!!! wow! 'tis don't",
    "",
]
COMPARE = """
import json, sys
from pathlib import Path
from transformers import CLIPTokenizer
from server.api.vocabularies import read_tokenizer
folder, prompts = sys.argv[1], json.loads(sys.argv[2])
theirs, ours = CLIPTokenizer.from_pretrained(folder), read_tokenizer(Path(folder))
for prompt in prompts:
    want = theirs(prompt, add_special_tokens=False).input_ids
    have = ours.encode(prompt, add_special_tokens=False).ids
    assert want == have, (prompt, want, have)
"""


def test_a_source_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    tokenizer_in(tmp_path / "mine" / "tokenizer")
    assert find_folders(demo(source="~/mine")) == {"text_encoder": tmp_path / "mine" / "tokenizer"}


@pytest.mark.parametrize("files", ["tokenizer.json", "vocab.json", "a pad token of its own"])
def test_tokens_are_those_of_transformers(tmp_path: Path, files: str) -> None:
    """In a process of its own: transformers brings warnings and torch."""
    pytest.importorskip("transformers")
    names = {"vocab.json", "merges.txt", "tokenizer_config.json"}
    for name in names | ({"tokenizer.json"} if files == "tokenizer.json" else set()):
        (tmp_path / name).write_bytes((DEMO_TOKENIZER / name).read_bytes())
    if files == "a pad token of its own":
        config = json.loads((tmp_path / "tokenizer_config.json").read_text())
        config["pad_token"] = "!"
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    arguments = [sys.executable, "-c", COMPARE, str(tmp_path), json.dumps(PROMPTS)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
