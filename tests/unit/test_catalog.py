import pytest

from server.catalog import load_catalog
from server.errors import CheckpointError, UnknownCheckpoint
from server.spec import Sampler, Task


@pytest.fixture
def own(tmp_path):
    def write(text):
        path = tmp_path / "own.toml"
        path.write_text(text)
        return path

    return write


def test_the_shipped_cards_are_there():
    catalog = load_catalog()
    assert next(iter(catalog)) == "demo"
    assert {"sd-v1-1", "sd-v1-5", "sd-v2-base", "sd-v2-1"} <= set(catalog)
    assert catalog["sd-v2-1"].prediction_type == "v_prediction"


def test_an_operators_card_extends_a_shipped_one_field_by_field(own):
    card = load_catalog(
        own(
            '[checkpoints.mine]\nextends = "sd-v1-5"\nsource = "/models/mine"\n'
            "defaults = { guidance_scale = 3.0 }\n"
        )
    )["mine"]
    assert card.source == "/models/mine"
    assert card.native_size == 512
    assert card.defaults.guidance_scale == 3.0
    assert card.defaults.sampler is Sampler.PNDM


def test_every_task_has_a_shipped_card():
    tasks = {task for card in load_catalog().values() for task in card.tasks}
    assert tasks == set(Task)


def test_cards_default_as_diffusers_pipelines_do():
    catalog = load_catalog()
    defaults = catalog["sd-v1-5"].defaults
    assert (defaults.strength, defaults.inpainting_strength) == (0.8, 1.0)
    assert catalog["sdxl-base"].defaults.strength == 0.3
    assert catalog["sdxl-base"].defaults.inpainting_strength == 0.9999
    assert catalog["sd-x4-upscaler"].defaults.noise_level == 20
    assert catalog["sd-x4-upscaler"].limits.max_noise_level == 350
    assert (defaults.prompt_syntax, defaults.long_prompts) == ("plain", "chunk")


def test_hires_without_a_word_can_be_drawn_wherever_it_can_follow():
    for card in load_catalog().values():
        if {Task.TEXT_TO_IMAGE, Task.IMAGE_TO_IMAGE} <= set(card.tasks):
            side = 2 * card.native_size
            assert side <= card.limits.max_side, card.name
            assert side**2 <= card.limits.max_pixels, card.name


def test_a_catalog_that_is_not_text_is_refused_in_words(tmp_path):
    (tmp_path / "own.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match="cannot read the catalog"):
        load_catalog(tmp_path / "own.toml")


def test_an_unknown_checkpoint_is_answered_with_those_there_are():
    with pytest.raises(UnknownCheckpoint, match="it has: demo, ") as caught:
        load_catalog()["nope"]
    assert caught.value.field == "checkpoint"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not toml", "cannot read the catalog"),
        ("checkpoints = 3", "every card is a table"),
        ('[checkpoints.a]\nextends = "b"', "extends 'b', which has no card"),
        ('[checkpoints.a]\nextends = "a"', "extend each other: a → a"),
        ('[checkpoints.a]\nextends = "demo"\ncolour = 1', "colour"),
        ('[checkpoints.a]\nextends = "demo"\nnative_size = -1', "native_size"),
        ('[checkpoints.a]\nextends = ["demo"]', "extends names one"),
        ('[checkpoints.a]\nextends = "demo"\nlimits = 5', "limits is a table"),
        ('[checkpoints.a]\nextends = "demo"\nlimits = { side_multiple = 0 }', "side_multiple"),
        ('[checkpoints.a]\nextends = "demo"\nlimits = { min_side = 256 }', "native_size 128"),
        ('[checkpoints.a]\nextends = "demo"\ndefaults = { num_inference_steps = 999 }', "steps"),
        ('[checkpoints.a]\nextends = "demo"\ndefaults = { strength = 0 }', "strength"),
        ('[checkpoint.a]\nextends = "demo"', "'checkpoint' means nothing here"),
        ('[checkpoints."../a"]\nextends = "demo"', "name"),
    ],
)
def test_a_wrong_card_is_refused_in_words(own, text, message):
    with pytest.raises(CheckpointError, match=message):
        load_catalog(own(text))
