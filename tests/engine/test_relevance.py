"""Where it looked: the parts add up to the whole, span by span, and lie on the shape that was named."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from looking import cases, inside
from PIL import Image
from torch import Tensor

import lapilli
from lapilli import PromptError
from lapilli.config import LlavaConfig, TextConfig, VisionConfig
from lapilli.engine.local import LocalModel
from lapilli.engine.relevance import attributions, differentiable, relevance
from lapilli.inputs.chat import conversation
from lapilli.inputs.processor import ImageProcessor
from lapilli.inputs.prompt import Prompt
from lapilli.model.llava import Llava

ANSWER = [70, 71, 3, 72]  # 3 is the placeholder's id, said as a token


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def shown(tiny: LocalModel) -> tuple[Prompt, list[Tensor]]:
    prompt = tiny.prompts.raw("USER: <image> and <image>\nwhat ASSISTANT:", [picture(1), picture(2)])
    with torch.no_grad():
        images = [(torch.from_numpy(i.pixels_TCHW), (i.height, i.width)) for i in prompt.images]
        return prompt, tiny.model.encode_images(images)


@torch.no_grad()
def logprob(model: Llava, prompt: Prompt, features: list[Tensor], span: tuple[int, int]) -> float:
    said = model.language.embed(torch.tensor([ANSWER]))
    embeds = torch.cat((model.embed(torch.tensor([prompt.token_ids]), features), said), dim=1)
    scores = model.logits(model(embeds, torch.arange(embeds.shape[1])[None])[0]).log_softmax(-1)
    read = len(prompt.token_ids)
    return sum(float(scores[read + place - 1, ANSWER[place]]) for place in range(*span))


# --- numbers ---


@pytest.mark.parametrize("span", [(0, 4), (0, 1), (2, 4)])
def test_parts_add_up_to_what_the_pictures_add(tiny: LocalModel, shown: tuple, span: tuple[int, int]) -> None:
    prompt, features = shown
    parts = attributions(tiny.model, prompt, ANSWER, span, features, steps=64)
    assert [part.shape for part in parts] == [(16,), (16,)]
    bland = [part.mean(0, keepdim=True).expand_as(part) for part in features]
    difference = logprob(tiny.model, prompt, features, span) - logprob(tiny.model, prompt, bland, span)
    assert float(sum(part.sum() for part in parts)) == pytest.approx(difference, rel=0.02)
    assert abs(difference) > 0.1


def test_a_picture_without_differences_adds_nothing(tiny: LocalModel, shown: tuple) -> None:
    prompt, (first, second) = shown
    bland = second.mean(0, keepdim=True).expand_as(second)
    parts = attributions(tiny.model, prompt, ANSWER, (0, 4), [first, bland])
    assert float(parts[1].abs().max()) < 1e-4 < float(parts[0].abs().max())


def test_grids_are_what_speaks_for_the_answer_on_one_scale(tiny: LocalModel, shown: tuple) -> None:
    prompt, features = shown
    parts = attributions(tiny.model, prompt, ANSWER, (0, 4), features)
    most = max(float(part.max()) for part in parts)
    found = relevance(tiny.model, prompt, ANSWER, tiny.prompts.image_processor)
    for part, each in zip(parts, found, strict=True):
        np.testing.assert_allclose(each.grid_RC, part.clamp(min=0).view(4, 4).numpy() / most, atol=1e-5)
        assert each.frame == (0, 0, 30, 40)
    assert max(each.grid_RC.max() for each in found) == 1


def test_a_caller_in_inference_mode_gets_the_same_and_the_model_stays_as_it_was(tiny: LocalModel, shown: tuple) -> None:
    prompt, _ = shown
    before = {name: (id(value), value.requires_grad) for name, value in tiny.model.named_parameters()}
    plain = relevance(tiny.model, prompt, ANSWER, tiny.prompts.image_processor, span=(1, 3))
    with torch.inference_mode():
        features = [tiny.engine.sight.features(image) for image in prompt.images]
        inside_it = relevance(tiny.model, prompt, ANSWER, tiny.prompts.image_processor, span=(1, 3), features=features)
    for one, other in zip(plain, inside_it, strict=True):
        np.testing.assert_allclose(one.grid_RC, other.grid_RC, atol=1e-5)
    assert {name: (id(value), value.requires_grad) for name, value in tiny.model.named_parameters()} == before
    assert all(value.grad is None for value in tiny.model.parameters())


def test_the_twin_copies_no_weight(tiny: LocalModel) -> None:
    twin = dict(differentiable(tiny.model.language).named_parameters())
    for name, value in tiny.model.language.named_parameters():
        assert twin[name].data_ptr() == value.data_ptr()
        assert not twin[name].requires_grad


@pytest.mark.parametrize("span", [(0, 0), (2, 1), (0, 5), (-1, 2)])
def test_spans_and_prompts_without_anything_to_explain_are_refused(
    tiny: LocalModel, shown: tuple, span: tuple[int, int]
) -> None:
    with pytest.raises(PromptError, match="of an answer of 4"):
        relevance(tiny.model, shown[0], ANSWER, tiny.prompts.image_processor, span=span)
    with pytest.raises(PromptError, match="no picture"):
        relevance(tiny.model, tiny.prompts.raw("USER: hi"), ANSWER, tiny.prompts.image_processor)
    with pytest.raises(PromptError, match="answer of 0"):
        relevance(tiny.model, shown[0], [], tiny.prompts.image_processor)


# --- other layouts of features ---


def random_llava(tiny: LocalModel, **changes: object) -> Llava:
    config = LlavaConfig(
        text=TextConfig(
            family="llama", vocab_size=128, hidden_size=24, intermediate_size=32, num_layers=2, num_heads=2,
            num_kv_heads=1, head_dim=12, norm_eps=1e-5, max_positions=128, eos_ids=(2,),
        ),
        vision=VisionConfig(
            family="clip", hidden_size=16, intermediate_size=32, num_layers=2, num_heads=2, image_size=32,
            patch_size=8, activation="quick_gelu", norm_eps=1e-5,
        ),
        image_token_id=3, feature_layers=(-1,), **changes,
    )  # fmt: skip
    model, random = Llava(config), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3, generator=random)
    return model


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"drop_class_token": True}, 0),
        ({"drop_class_token": False}, 1),
        ({"drop_class_token": True, "tile_canvases": ((32, 64), (64, 32))}, 0),
    ],
)
def test_a_class_token_and_tiles_after_the_overview_have_no_place_in_the_grid(
    tiny: LocalModel, changes: dict, first: int
) -> None:
    model = random_llava(tiny, **changes)
    canvases = changes.get("tile_canvases", ())
    processor = ImageProcessor.square(32, (0.5,) * 3, (0.5,) * 3, fit="crop", canvases=canvases)
    image = processor.prepare(picture(4, (30, 60)))
    count = model.config.image_tokens(30, 60)
    prompt = Prompt([1, *[3] * count, 5], (image,))
    with torch.no_grad():
        features = model.encode_images([(torch.from_numpy(image.pixels_TCHW), (30, 60))])
    (part,) = attributions(model, prompt, ANSWER, (0, 4), features)
    (found,) = relevance(model, prompt, ANSWER, processor)
    expected = part[first : first + 16].clamp(min=0)
    np.testing.assert_allclose(found.grid_RC.flatten(), (expected / expected.max()).numpy(), atol=1e-5)
    assert found.frame == ((0, 0, 60, 30) if canvases else (15, 0, 45, 30))


# --- what it is worth ---


@pytest.fixture(scope="module")
def mini() -> LocalModel:
    return lapilli.load("mini", device="cpu")


def test_relevance_lies_on_the_shape_that_the_answer_names(mini: LocalModel) -> None:
    """On scenes that the choice of the method never saw: chance is the box's share of the picture."""
    shares, areas, others = [], [], []
    for case in itertools.islice(cases(mini, "colour", seed=77), 24):
        processor = mini.prompts.image_processor
        (seen,) = relevance(mini.model, case.prompt, case.answer, processor, features=case.features)
        share, area = inside(seen.grid_RC, case.named.box)
        shares.append(share)
        areas.append(area)
        others.append(max(inside(seen.grid_RC, x.box)[0] for x in case.scene.items if x is not case.named))
    assert np.mean(shares) > 5 * np.mean(areas)
    assert np.mean(np.array(shares) > np.array(others)) > 0.9


def test_quantized_weights_look_where_floats_look(mini: LocalModel) -> None:
    rounded = lapilli.load("mini", quantize="int8", device="cpu")
    scene = Image.new("RGB", (128, 128), "white")
    scene.paste((220, 20, 20), (16, 16, 56, 56))
    scene.paste((20, 40, 220), (70, 70, 116, 116))
    prompt = mini.prompts.chat(conversation("What colour is the square?", [scene]))
    answer = mini.tokenizer.encode(" Red.")
    grids = [relevance(m.model, prompt, answer, m.prompts.image_processor)[0].grid_RC for m in (mini, rounded)]
    assert not np.array_equal(*grids)
    assert np.corrcoef(grids[0].flatten(), grids[1].flatten())[0, 1] > 0.98
    assert inside(grids[1], (16, 16, 56, 56))[0] > 0.5
