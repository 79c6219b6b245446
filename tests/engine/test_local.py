"""Asking a model in this process: batched = alone, streamed = whole, cached = computed anew."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

import lapilli
from lapilli import InputError, PromptError
from lapilli.checkpoints.generation import GenerationDefaults
from lapilli.engine.local import LocalModel
from lapilli.engine.pipeline import pipeline
from lapilli.engine.sampler import SamplingOptions


def picture(seed: int) -> Image.Image:
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (40, 30, 3), dtype=np.uint8))


PROMPTS = [
    ("USER: <image>\nwhat is this ASSISTANT:", 1),
    ("USER: a cat ASSISTANT:", 0),
    ("USER: <image> and <image>\nwhat ASSISTANT:", 2),
    ("USER: what is this picture of, what is this picture of, a dog or a cat and a dog? ASSISTANT:", 0),
    ("USER: <image>\nwhat is this picture of ASSISTANT: a", 1),
    ("x", 0),
    ("USER: <image>\n\u00fc\u4f60 ASSISTANT:", 1),
    ("USER: is this a dog ASSISTANT:", 0),
]


def test_batched_is_alone(tiny: LocalModel) -> None:
    pictures = [picture(seed) for seed in range(sum(count for _, count in PROMPTS))]
    left = iter(pictures)
    shares = [[next(left) for _ in range(count)] for _, count in PROMPTS]
    together = tiny.generate([text for text, _ in PROMPTS], pictures, max_tokens=24)
    alone = [tiny.generate(text, share, max_tokens=24)[0] for (text, _), share in zip(PROMPTS, shares, strict=True)]
    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in alone]
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    assert [answer.prompt_tokens for answer in together] == [answer.prompt_tokens for answer in alone]
    assert len({answer.token_ids for answer in together}) == len(PROMPTS), "the prompts must be told apart"


def test_drawn_answers_do_not_depend_on_company(tiny: LocalModel) -> None:
    options = SamplingOptions(temperature=1.0, seed=3, max_tokens=16)
    texts = ["USER: a cat ASSISTANT:", "x", "USER: what is this picture of ASSISTANT:"]
    together = tiny.generate(texts, options=options)
    assert [a.token_ids for a in together] == [tiny.generate(t, options=options)[0].token_ids for t in texts]


@torch.inference_mode()
def test_cached_is_computed_anew(tiny: LocalModel) -> None:
    prompt = tiny.prompts.raw(PROMPTS[0][0], [picture(0)])
    said = tiny.generate(PROMPTS[0][0], [picture(0)], max_tokens=12)[0].token_ids
    images = [(torch.from_numpy(image.pixels_TCHW), (image.height, image.width)) for image in prompt.images]
    features, ids = tiny.model.encode_images(images), list(prompt.token_ids)
    for token in said:
        embeds = tiny.model.embed(torch.tensor([ids]), features)
        scores = tiny.model.logits(tiny.model(embeds, torch.arange(len(ids))[None])[0, -1])
        assert int(scores.argmax()) == token
        ids.append(token)


def test_streamed_is_whole(tiny: LocalModel) -> None:
    asked = ("what is this", [picture(1)])
    chunks = list(tiny.stream(*asked, max_tokens=20))
    whole = tiny.chat(*asked, max_tokens=20)
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert [chunk.answer is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].answer.token_ids == whole.token_ids
    assert whole.image_tokens == 16


def test_a_stop_text_ends_the_answer_and_is_never_shown(tiny: LocalModel) -> None:
    whole = tiny.chat("what is this", [picture(1)], max_tokens=20)
    stop = whole.text[5:8]
    shown = ""
    for chunk in tiny.stream("what is this", [picture(1)], max_tokens=20, stop=[stop, "never said"]):
        shown += chunk.text
        assert stop not in shown
    assert chunk.answer.finish_reason == "stop"
    assert shown == chunk.answer.text == whole.text[: whole.text.index(stop)]


def test_limits_end_the_answer(tiny: LocalModel) -> None:
    assert tiny.chat("a cat", max_tokens=3).completion_tokens == 3
    assert tiny.chat("a cat", max_tokens=3).finish_reason == "length"
    assert tiny.chat("a cat", max_tokens=0).text == ""
    full = tiny.chat("a cat")
    assert full.finish_reason == "stop" or full.prompt_tokens + full.completion_tokens == 96


def test_an_answer_nobody_limited_ends_where_the_checkpoint_says(tiny: LocalModel) -> None:
    brief = LocalModel(dataclasses.replace(tiny.checkpoint, generation=GenerationDefaults(max_new_tokens=5)))
    assert brief.chat("a cat").token_ids == tiny.chat("a cat", max_tokens=5).token_ids
    assert brief.chat("a cat", max_tokens=9).token_ids == tiny.chat("a cat", max_tokens=9).token_ids


def test_a_prompt_past_the_context_is_refused_with_both_counts(tiny: LocalModel) -> None:
    with pytest.raises(PromptError, match=r"\d{3} tokens.* at most 95"):
        tiny.chat("cat " * 200)


def test_placeholders_and_pictures_must_match(tiny: LocalModel) -> None:
    with pytest.raises(PromptError, match=r"2 .*1 picture"):
        tiny.generate("<image> <image>", [picture(0)])
    with pytest.raises(PromptError, match=r"1 .*2 pictures"):
        tiny.generate(["<image>", "x"], [picture(0), picture(1)])
    with pytest.raises(PromptError, match="2 prompts, but 1"):
        tiny.generate(["<image>", "x"], [[picture(0)]])
    nested = tiny.generate(["<image>", "x"], [[picture(0)], []], max_tokens=4)
    assert nested[0].token_ids == tiny.generate("<image>", [picture(0)], max_tokens=4)[0].token_ids


def test_an_unknown_option_is_named(tiny: LocalModel) -> None:
    with pytest.raises(InputError, match="temprature"):
        tiny.chat("a cat", temprature=1)


def test_the_articles_pipeline_call(tiny: LocalModel) -> None:
    prompt = "USER: <image>\nwhat is this\nASSISTANT:"
    outputs = pipeline("image-to-text", model=tiny)(picture(0), prompt=prompt, generate_kwargs={"max_new_tokens": 9})
    answer = tiny.generate(prompt, [picture(0)], max_tokens=9)[0].text
    assert outputs == [{"generated_text": prompt.replace("<image>", " ") + answer}]


def test_the_pipelines_other_shapes(tiny: LocalModel) -> None:
    pipe = pipeline("image-text-to-text", model=tiny)
    prompt = "USER: <image>\nwhat ASSISTANT:"
    each = [tiny.generate(prompt, [picture(n)], max_tokens=5)[0].text for n in (0, 1)]
    assert pipe(images=picture(0), text=prompt, max_new_tokens=5) == [
        {"input_text": prompt, "generated_text": prompt + each[0]}
    ]
    several = pipe(images=[picture(0), picture(1)], text=[prompt, prompt], max_new_tokens=5, return_full_text=False)
    assert [result[0]["generated_text"] for result in several] == each
    messages = [{"role": "user", "content": [{"type": "image", "image": picture(0)}, {"type": "text", "text": "what"}]}]
    (talk,) = pipe(text=messages, max_new_tokens=5)
    said = tiny.chat(messages, max_tokens=5).text
    assert talk["generated_text"] == [*messages, {"role": "assistant", "content": said}]
    with pytest.raises(InputError, match="image-to-sound"):
        pipeline("image-to-sound", model=tiny)
    with pytest.raises(InputError, match="max_new_token"):
        pipe(images=picture(0), text=prompt, generate_kwargs={"max_new_token": 5})


def test_two_numbers_of_bits_are_refused() -> None:
    with pytest.raises(InputError, match="int4 and int8"):
        lapilli.load("mini", quantize="int8", load_in_4bit=True)
    with pytest.raises(InputError, match="int3"):
        lapilli.load("mini", quantize="int3")


@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_in_company_is_alone(bits: int) -> None:
    model = lapilli.load("mini", **{f"load_in_{bits}bit": True})
    prompts = ["USER: What can you see? ASSISTANT:", "USER: <image>\nWhat is this? ASSISTANT:", "USER: Hi ASSISTANT:"]
    options = SamplingOptions(max_tokens=12, logprobs=0)
    together = model.generate(prompts, [[], [picture(0)], []], options=options)
    cold = [
        LocalModel(model.checkpoint).generate(text, share, options=options)[0]
        for text, share in zip(prompts, ([], [picture(0)], []), strict=True)
    ]
    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in cold]
    assert [answer.logprobs for answer in together] == [answer.logprobs for answer in cold]


def test_given_answers_are_ranked_and_the_picture_is_encoded_once(tiny: LocalModel) -> None:
    model = LocalModel(tiny.checkpoint)
    one, other = model.rank("what is this", ["a cat", "a dog and a dog"], [picture(1)])
    assert one.sum < 0
    assert len(other.tokens) > len(one.tokens)
    (again,) = model.rank("what is this", ["a cat"], [picture(1)])
    assert [token.token_id for token in again.tokens] == [token.token_id for token in one.tokens]
    assert again.sum == pytest.approx(one.sum, abs=1e-4)
    assert model.engine.sight.encoded == 1


def test_texts_and_pictures_have_vectors_of_length_one(tiny: LocalModel) -> None:
    same, again, other = tiny.embed("a cat"), tiny.embed("a cat"), tiny.embed("what is a dog")
    shown = tiny.embed(images=[picture(1)])
    assert torch.equal(same, again)
    assert float(same @ other) < 0.999
    for vector in (same, other, shown):
        assert vector.shape == (48,)
        assert abs(float(vector.norm()) - 1) < 1e-5
