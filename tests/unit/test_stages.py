from typing import Any

import pytest

from server.spec import (
    Axis,
    Enlarged,
    ImageToImage,
    Lora,
    Sampler,
    SdxlConditioning,
    Sweep,
    Task,
)
from server.stages import Handover, checkpoints, final_size, num_stages, stages
from tests.builders import (
    a_hires,
    a_refiner,
    a_spec,
    an_image_to_image,
    an_inpainting,
    an_upscale,
    an_upscaler,
)

WHOLE: dict[str, Any] = {
    "hires": a_hires(),
    "refiner": a_refiner(),
    "upscaler": an_upscaler(),
}


@pytest.mark.parametrize(
    "spec", [a_spec(), an_image_to_image(), an_inpainting(), an_upscale()], ids=lambda s: s.task
)
def test_most_generations_are_drawn_in_one_stage(spec):
    [only] = stages(spec)
    assert only.spec == spec
    assert (only.begin, only.end) == (0, 1)
    assert (only.takes, only.gives) == (Handover.NOTHING, Handover.PICTURES)


def test_a_whole_chain_has_its_order_and_gives_what_the_next_takes():
    drawn = stages(a_spec(**WHOLE))
    assert [stage.checkpoint for stage in drawn] == ["demo", "demo", "refiner", "upscaler"]
    assert [stage.takes.value for stage in drawn] == ["nothing", "latents", "latents", "pictures"]
    assert [stage.gives.value for stage in drawn] == ["latents", "latents", "pictures", "pictures"]
    assert [stage.spec.width for stage in drawn] == [128, 256, 256, 1024]
    tasks = [Task.TEXT_TO_IMAGE, Task.IMAGE_TO_IMAGE, Task.IMAGE_TO_IMAGE, Task.UPSCALE]
    assert [stage.spec.task for stage in drawn] == tasks


@pytest.mark.parametrize("chained", [(), ("hires",), ("refiner", "upscaler"), tuple(WHOLE)])
def test_stages_and_checkpoints_are_counted_without_making_them(chained):
    spec = a_spec(**{name: WHOLE[name] for name in chained})
    drawn = stages(spec)
    assert num_stages(spec) == len(drawn)
    assert set(checkpoints(spec)) == {stage.checkpoint for stage in drawn}
    assert final_size(spec) == (drawn[-1].spec.width, drawn[-1].spec.height)


def test_no_stage_has_stages_of_its_own():
    for stage in stages(a_spec(**WHOLE)):
        assert len(stages(stage.spec)) == 1


def test_experts_share_one_schedule():
    base, refiner = stages(a_spec(refiner=a_refiner(switch_at=0.8)))
    assert (base.begin, base.end) == (0, 0.8)
    assert (refiner.begin, refiner.end) == (0.8, 1)


def test_a_refiner_that_does_not_switch_draws_over_the_finished_picture():
    base, refiner = stages(a_spec(refiner=a_refiner(switch_at=1.0, strength=0.3)))
    assert (base.end, base.gives) == (1, Handover.PICTURES)
    assert (refiner.begin, refiner.spec.strength) == (0, 0.3)
    assert refiner.takes is Handover.PICTURES


def test_hires_can_enlarge_the_picture_instead_of_the_latents():
    _, larger = stages(a_spec(hires=a_hires(enlarged=Enlarged.PICTURE)))
    assert larger.takes is Handover.PICTURES


def test_each_checkpoint_draws_as_it_was_told_and_without_the_adapters_of_another():
    spec = a_spec(**WHOLE, loras=(Lora(name="style"),), vae="other", clip_skip=1, sampler="heun")
    base, larger, refiner, upscaler = (stage.spec for stage in stages(spec))
    for own in (base, larger):
        assert (own.loras, own.vae, own.clip_skip) == (spec.loras, "other", 1)
        assert own.sampler is Sampler.HEUN
    for other, asked in ((refiner, spec.refiner), (upscaler, spec.upscaler)):
        assert (other.loras, other.vae, other.clip_skip) == ((), "", 0)
        assert other.sampler is asked.sampler
        assert other.guidance_scale == asked.guidance_scale
    assert upscaler.noise_level == 20


def test_every_stage_takes_the_shortcuts_that_were_asked_for():
    spec = a_spec(**WHOLE, guidance_end=0.5, cache_interval=3)
    taken = {(each.spec.guidance_end, each.spec.cache_interval) for each in stages(spec)}
    assert taken == {(0.5, 3)}


@pytest.mark.parametrize(
    ("share", "guided"), [(0.01, 1), (0.3, 4), (0.5, 6), (0.8, 9), (0.99, 10), (1.0, 10)]
)
def test_guidance_ends_after_the_step_in_which_its_share_is_reached(share, guided):
    assert a_spec(guidance_end=share).guided_calls(10) == guided
    assert a_spec(guidance_end=share, guidance_scale=1.0).guided_calls(10) == 0


def sized(size: tuple[int, int], **changes: Any) -> SdxlConditioning:
    fields = {
        "prompt_2": "",
        "negative_prompt_2": "",
        "original_size": size,
        "crops_coords_top_left": (0, 0),
        "target_size": size,
        "negative_original_size": size,
        "negative_crops_coords_top_left": (0, 0),
        "negative_target_size": size,
        "aesthetic_score": 6.0,
        "negative_aesthetic_score": 2.5,
    }
    return SdxlConditioning(**(fields | changes))


def test_the_larger_drawing_of_sdxl_is_told_of_its_own_size_but_not_where_the_caller_said_another():
    spec = a_spec(hires=a_hires(), sdxl=sized((128, 128), original_size=(64, 64)))
    _, larger = stages(spec)
    assert larger.spec.sdxl == sized((256, 256), original_size=(64, 64))


def swept(*axes: tuple[str, tuple[Any, ...]]) -> Sweep:
    return Sweep(axes=tuple(Axis(field=field, values=values) for field, values in axes))


def test_a_sweep_varies_only_what_a_stage_does_not_decide_for_itself():
    sweep = swept(("guidance_scale", (2.0, 3.0)), ("seed", (7, 8)))
    spec = a_spec(**WHOLE, sweep=sweep, num_images=4)
    alone = [[stage.spec.alone(i) for i in range(4)] for stage in stages(spec)]
    assert [[spec.seed for spec in specs] for specs in alone] == 4 * [[7, 8, 7, 8]]
    assert [[spec.guidance_scale for spec in specs] for specs in alone] == [
        [2, 2, 3, 3],
        [2, 2, 3, 3],
        [5, 5, 5, 5],
        [9, 9, 9, 9],
    ]


def test_a_sweep_of_the_sampler_or_strength_leaves_the_stages_that_have_their_own():
    sweep = swept(("sampler", ("euler", "heun")), ("strength", (0.25, 0.5)))
    spec = an_image_to_image(**WHOLE, sweep=sweep, num_images=4)
    base, larger, refiner, upscaler = (
        [stage.spec.alone(i) for i in range(4)] for stage in stages(spec)
    )
    assert [each.strength for each in base] == [0.25, 0.5, 0.25, 0.5]
    assert [each.strength for each in larger] == 4 * [spec.hires.strength]
    assert [each.sampler.value for each in larger] == ["euler", "euler", "heun", "heun"]
    assert [each.sampler for each in refiner] == 4 * [Sampler.DDIM]
    assert [each.num_inference_steps for each in upscaler] == 4 * [4]


def test_a_sweep_of_steps_does_not_change_the_steps_of_a_hires_fix():
    spec = a_spec(
        hires=a_hires(num_inference_steps=9),
        sweep=swept(("num_inference_steps", (2, 3))),
        num_images=2,
    )
    base, larger = stages(spec)
    assert [base.spec.alone(i).num_inference_steps for i in (0, 1)] == [2, 3]
    assert [larger.spec.alone(i).num_inference_steps for i in (0, 1)] == [9, 9]
    assert (base.expected_steps, larger.expected_steps) == (5, 2 * round(0.5 * 9))


def test_expected_steps_follow_share_strength_and_images():
    base, refiner = stages(a_spec(refiner=a_refiner(switch_at=0.75), num_images=3))
    assert (base.expected_steps, refiner.expected_steps) == (9, 3)
    _, over = stages(a_spec(refiner=a_refiner(switch_at=1.0, strength=0.5), num_images=3))
    assert over.expected_steps == 6


def test_what_is_drawn_over_has_no_picture_of_the_callers():
    for stage in stages(an_inpainting(**WHOLE))[1:]:
        assert stage.spec.image is None
    assert isinstance(stages(an_inpainting(**WHOLE))[1].spec, ImageToImage)
