"""Scores of given answers, and embeddings: the same as reading everything at once, alone or in company."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import lapilli
from lapilli import PromptError
from lapilli.engine.local import LocalModel
from lapilli.engine.scores import answers_after, embed, embed_image, rank, token_logprobs
from lapilli.inputs.chat import conversation
from lapilli.inputs.prompt import Prompt

ANSWERS = [[70, 71, 72], [70], [5, 3, 99, 100, 101, 2], [70, 71, 73]]  # 3 is the placeholder's id, said as a token


@pytest.fixture(scope="module")
def mini() -> LocalModel:
    return lapilli.load("mini")


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8))


def prompts(tiny: LocalModel) -> list[Prompt]:
    return [
        tiny.prompts.raw("USER: what is this ASSISTANT:"),
        tiny.prompts.raw("USER: <image>\nwhat is this ASSISTANT:", [picture(0)]),
        tiny.prompts.raw("USER: <image> <image>\na cat or a dog ASSISTANT:", [picture(1), picture(2)]),
    ]


def at_once(tiny: LocalModel, prompt: Prompt, answer: list[int]) -> torch.Tensor:
    """The log-probabilities (T, V) at an answer's places, prompt and answer read in one go."""
    model, read = tiny.model, len(prompt.token_ids)
    features = model.encode_images([(torch.from_numpy(i.pixels_TCHW), (i.height, i.width)) for i in prompt.images])
    embeds = torch.cat((model.embed(torch.tensor([prompt.token_ids]), features), said(tiny, answer)), dim=1)
    hidden = model(embeds, torch.arange(embeds.shape[1])[None])
    return model.logits(hidden[0, read - 1 : -1]).log_softmax(-1)


def said(tiny: LocalModel, answer: list[int]) -> torch.Tensor:
    return tiny.model.language.embed(torch.tensor([answer]))


# --- scores ---


@pytest.mark.parametrize("which", range(3))
@torch.inference_mode()
def test_scores_are_those_of_reading_all_at_once(tiny: LocalModel, which: int) -> None:
    prompt = prompts(tiny)[which]
    for scored, answer in zip(rank(tiny.model, prompt, ANSWERS, top=3), ANSWERS, strict=True):
        expected_TV = at_once(tiny, prompt, answer)
        got = torch.tensor([token.logprob for token in scored.tokens])
        torch.testing.assert_close(got, expected_TV[range(len(answer)), answer], atol=1e-5, rtol=0)
        assert [token.token_id for token in scored.tokens] == answer
        best = expected_TV.topk(3)
        assert [[index for index, _ in token.top] for token in scored.tokens] == best.indices.tolist()
        assert scored.sum == pytest.approx(float(got.sum()), abs=1e-4)
        assert scored.mean == pytest.approx(float(got.mean()), abs=1e-5)


@pytest.mark.parametrize("which", range(3))
def test_an_answer_ranked_in_company_is_ranked_as_alone(tiny: LocalModel, which: int) -> None:
    prompt = prompts(tiny)[which]
    together = rank(tiny.model, prompt, ANSWERS, top=2)
    assert [list(scored.tokens) for scored in together] == [
        token_logprobs(tiny.model, prompt, answer, top=2) for answer in ANSWERS
    ]
    assert rank(tiny.model, prompt, ANSWERS[::-1], top=2) == together[::-1]


def test_features_that_are_known_are_not_encoded_again(tiny: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = prompts(tiny)[1]
    image = prompt.images[0]
    features = tiny.model.encode_images([(torch.from_numpy(image.pixels_TCHW), (image.height, image.width))])
    expected = rank(tiny.model, prompt, ANSWERS), embed(tiny.model, prompt)
    monkeypatch.setattr(tiny.model.vision, "forward", None)
    assert rank(tiny.model, prompt, ANSWERS, features=features) == expected[0]
    assert torch.equal(embed(tiny.model, prompt, features=features), expected[1])


@pytest.mark.parametrize(
    ("answers", "message"),
    [([[70], []], "1 of 2 answers"), ([[70] * 90], "reads at most 96")],
)
def test_answers_that_cannot_be_read_are_refused(tiny: LocalModel, answers: list[list[int]], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        rank(tiny.model, prompts(tiny)[0], answers)
    with pytest.raises(PromptError, match="empty"):
        rank(tiny.model, Prompt([]), [[70]])


def test_an_answer_that_just_fits_is_scored(tiny: LocalModel) -> None:
    prompt = prompts(tiny)[0]
    room = 96 - len(prompt.token_ids)
    assert len(token_logprobs(tiny.model, prompt, [70] * room)) == room
    with pytest.raises(PromptError):
        token_logprobs(tiny.model, prompt, [70] * (room + 1))


# --- texts as answers ---


def test_answers_begin_where_the_model_would_write_and_end_their_turn(mini: LocalModel) -> None:
    messages = conversation("What colour is the circle?", [picture(3, (128, 128))])
    texts = ["Red.", "A blue circle.", "It cannot be seen."]
    prompt, answers = answers_after(mini.prompts, messages, texts)
    assert prompt.token_ids == mini.prompts.chat(messages).token_ids
    assert [mini.tokenizer.decode(answer).strip() for answer in answers] == texts
    assert {answer[-1] for answer in answers} <= mini.tokenizer.eos_ids
    assert prompt.images[0].height == 128


def test_what_the_model_says_is_what_it_ranks_first(mini: LocalModel) -> None:
    picture = Image.new("RGB", (128, 128), "white")
    picture.paste((220, 20, 20), (30, 30, 90, 90))
    messages = conversation("What colour is the square?", [picture])
    words = [mini.chat(messages).text, "Blue.", "Green.", "There are two."]
    prompt, answers = answers_after(mini.prompts, messages, words)
    ranked = rank(mini.model, prompt, answers)
    assert max(range(4), key=lambda number: ranked[number].mean) == 0
    assert words[0] == "Red."


def test_no_answer_and_an_empty_one_are_refused(tiny: LocalModel) -> None:
    for texts in ([], ["A cat.", " "]):
        with pytest.raises(PromptError, match="none of them empty"):
            answers_after(tiny.prompts, conversation("What is this?", []), texts)


# --- embeddings ---


@torch.inference_mode()
def test_an_embedding_is_the_mean_of_what_the_decoder_makes_of_all_but_the_first(tiny: LocalModel) -> None:
    for prompt in prompts(tiny):
        images = [(torch.from_numpy(image.pixels_TCHW), (image.height, image.width)) for image in prompt.images]
        embeds = tiny.model.embed(torch.tensor([prompt.token_ids]), tiny.model.encode_images(images))
        mean = tiny.model(embeds, torch.arange(embeds.shape[1])[None])[0, 1:].mean(0)
        vector = embed(tiny.model, prompt)
        torch.testing.assert_close(vector, mean / mean.norm())
        assert float(vector.norm()) == pytest.approx(1, abs=1e-6)
        assert torch.equal(vector, embed(tiny.model, prompt))
    assert embed(tiny.model, Prompt([70])).shape == (48,)


@torch.inference_mode()
def test_a_picture_alone_is_the_mean_of_its_patches(tiny: LocalModel) -> None:
    image = prompts(tiny)[1].images[0]
    mean = tiny.model.see(torch.from_numpy(image.pixels_TCHW))[0].mean(0)
    vector = embed_image(tiny.model, image)
    torch.testing.assert_close(vector, mean / mean.norm())
    assert vector.shape == (32,)


def test_pictures_of_one_colour_lie_together(mini: LocalModel) -> None:
    """Both ways of embedding a picture put the other red one nearest, of six."""
    inks = {"red": (220, 20, 20), "blue": (20, 40, 220), "green": (20, 160, 40)}
    shown = []
    for ink in inks.values():
        for corner in (10, 60):
            drawn = Image.new("RGB", (128, 128), "white")
            drawn.paste(ink, (corner, 40, corner + 50, 90))
            shown.append(mini.prompts.raw("<image>", [drawn]))
    for vectors in (
        [embed(mini.model, prompt) for prompt in shown],
        [embed_image(mini.model, prompt.images[0]) for prompt in shown],
    ):
        near = torch.stack(vectors) @ torch.stack(vectors).T - 9 * torch.eye(6)
        assert near.argmax(-1).tolist() == [1, 0, 3, 2, 5, 4]
