from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lapilli.config import LlavaConfig
from lapilli.errors import TrainingError
from lapilli.inputs.chat import ImagePart, Message, TextPart
from lapilli.inputs.processor import ImageProcessor
from lapilli.inputs.prompt import PromptBuilder
from lapilli.inputs.templates import ChatTemplate
from lapilli.inputs.tokenizer import Tokenizer
from lapilli.training.corpus import Blocks, Dialogue, prose, prose_ids, read
from lapilli.training.mini import llava_config, text_config
from lapilli.training.vocabulary import BOS_ID, EOS_ID, IMAGE_ID, build_vocabulary

PICTURED = Dialogue((("What does it say?", 'It says "planet".'), ("Is there a cat?", "No."), (' "Odd" ones', "A cat.")))
TALK = Dialogue((("Hello", "Hello! Show me one."), ("What is this?", "Please show me a picture.")), pictured=False)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = ["USER ASSISTANT", *(text for talk in (PICTURED, TALK) for turn in talk.turns for text in turn)]
    config = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    return Tokenizer.from_json(build_vocabulary([], 600, whole=texts), config=config)


@pytest.fixture(scope="module")
def prompts(tokenizer: Tokenizer) -> PromptBuilder:
    config: LlavaConfig = llava_config(text_config(tokenizer.vocab_size, BOS_ID, EOS_ID), IMAGE_ID)
    processor = ImageProcessor.square(128, (0.5,) * 3, (0.5,) * 3, fit="stretch")
    return PromptBuilder(config, tokenizer, processor, ChatTemplate.built_in("llava_hf"))


def messages(dialogue: Dialogue, turns: int) -> list[Message]:
    """The dialogue as a conversation, up to and with the question of the last turn."""
    found = []
    for number, (question, answer) in enumerate(dialogue.turns[:turns]):
        picture = [ImagePart(Image.new("RGB", (128, 128)))] if number == 0 and dialogue.pictured else []
        found.append(Message("user", (*picture, TextPart(question))))
        found.append(Message("assistant", (TextPart(answer),)))
    return found


@pytest.mark.parametrize("dialogue", [PICTURED, TALK])
def test_training_reads_what_inference_reads(dialogue: Dialogue, tokenizer: Tokenizer, prompts: PromptBuilder) -> None:
    reading = read(tokenizer, dialogue, prompts.config.features_per_tile)
    whole = prompts.chat(messages(dialogue, len(dialogue.turns)), add_generation_prompt=False)

    assert whole.token_ids == reading.ids.tolist()
    spoken = np.zeros(len(reading.ids), dtype=bool)
    for begin, end in whole.spans:
        spoken[begin:end] = True
    assert spoken.tolist() == reading.spoken.tolist()
    for turn in range(1, len(dialogue.turns) + 1):
        asked = prompts.chat(messages(dialogue, turn)[:-1]).token_ids
        assert asked == reading.ids[: len(asked)].tolist()
        assert reading.spoken[len(asked)]
        assert not reading.spoken[len(asked) - 1]


def test_a_picture_is_a_run_of_placeholders_in_the_first_turn_only(tokenizer: Tokenizer) -> None:
    assert (read(tokenizer, PICTURED, 64).ids == IMAGE_ID).sum() == 64
    assert (read(tokenizer, TALK, 64).ids == IMAGE_ID).sum() == 0


def test_words_that_look_like_markers_stay_text(tokenizer: Tokenizer) -> None:
    reading = read(tokenizer, Dialogue((("What is <image> or </s>?", "<s>"),)), 4)

    assert (reading.ids == IMAGE_ID).sum() == 4
    assert (reading.ids == BOS_ID).sum() == (reading.ids == EOS_ID).sum() == 1


def blocks(tokenizer: Tokenizer, seed: int = 1) -> Blocks:
    ids = prose_ids(tokenizer, ["A cat sat on a planet. " * 30, "Hello there. " * 30])
    return Blocks(tokenizer, ids, lambda rng: (PICTURED, TALK)[rng.integers(2)], 40, 0.5, seed)


def test_a_step_has_the_same_block_whenever_it_is_made(tokenizer: Tokenizer) -> None:
    once, again = blocks(tokenizer), blocks(tokenizer)
    for step in range(3):
        again(step, 6)

    assert np.array_equal(once(7, 6), again(7, 6))
    assert not np.array_equal(once(7, 6), once(8, 6))
    assert not np.array_equal(once(7, 6), blocks(tokenizer, seed=2)(7, 6))


def test_half_of_a_block_is_prose_and_half_begins_with_a_dialogue(tokenizer: Tokenizer) -> None:
    made = blocks(tokenizer)(3, 6)

    assert made.shape == (6, 41)
    asks = [tokenizer.decode(row.tolist()).startswith("USER: ") for row in made]
    assert asks == [False] * 3 + [True] * 3


def test_prose_is_english_in_plain_characters_in_a_fixed_order(shared_data: Path) -> None:
    texts = prose(shared_data / "text")

    assert len(texts) > 100
    assert texts == prose(shared_data / "text")
    assert all(text.isascii() and "  " not in text for text in texts)
    # Genesis is there in English, and in no other language.
    assert sum("In the beginning" in text for text in texts) >= 2
    assert not any("Am Anfang" in text or "Alussa loi" in text for text in texts)


def test_missing_texts_are_named(tmp_path: Path) -> None:
    (tmp_path / "botchan.txt").write_text("x")

    with pytest.raises(TrainingError, match=r"republic_clean\.txt.*nltk_genesis\.zip"):
        prose(tmp_path)
