"""`mini`, the built-in model: what it is, and the numbers of the four stages that make it from nothing.

tower     pictures and their words            -> a vision tower
language  English and the language of answers -> a decoder
align     captions                            -> the projector, all else frozen
tune      conversations about pictures        -> projector, decoder and tower, end to end
"""

from __future__ import annotations

import importlib.resources
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lapilli.checkpoints.generation import GenerationDefaults
from lapilli.checkpoints.load import Checkpoint, load_checkpoint
from lapilli.checkpoints.save import save_folder
from lapilli.config import LlavaConfig, TextConfig, VisionConfig
from lapilli.errors import TrainingError
from lapilli.inputs.processor import ImageProcessor
from lapilli.inputs.prompt import PromptBuilder
from lapilli.inputs.templates import ChatTemplate
from lapilli.inputs.tokenizer import Tokenizer
from lapilli.model.language import Decoder
from lapilli.model.llava import Llava
from lapilli.training.corpus import Blocks, prose, prose_ids
from lapilli.training.distributed import join
from lapilli.training.initialise import initialise, place_positions, whiten_patches
from lapilli.training.instruct import InstructObjective, InstructOptions
from lapilli.training.language import LanguageObjective, LanguageOptions
from lapilli.training.loop import run, trained_weights
from lapilli.training.material import (
    CaptionLessons,
    ConversationLessons,
    Shuffled,
    picture_questions,
    spoken_texts,
    whole_words,
    written,
)
from lapilli.training.recipe import LoopOptions, TowerOptions
from lapilli.training.synthetic import Art, caption, region_labels, regions, scene_at
from lapilli.training.tower import DrawnBatches, Region, TowerObjective, normalise_pixels
from lapilli.training.vocabulary import BOS_ID, EOS_ID, IMAGE_ID, PAD_ID, SPECIAL_TOKENS, build_vocabulary

VOCABULARY_SIZE = 3072

FAR_AWAY = 1 << 30
"""A step that no run reaches: its pictures serve to start from."""

# The conversation of LLaVA 1.5, in its own words: what a person says follows USER, an answer ends in </s>.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: {% elif message['role'] == 'assistant' %}ASSISTANT: {% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %} {% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)

VISION = VisionConfig(
    family="siglip",
    hidden_size=256,
    intermediate_size=1024,
    num_layers=6,
    num_heads=4,
    image_size=128,
    patch_size=16,
    activation="gelu_tanh",
    norm_eps=1e-6,
)
TOWER = TowerOptions(seed=51)
TOWER_LOOP = LoopOptions(steps=2750, rate=1.2e-3, warmup=50, seed=51, optimizer="muon")
LANGUAGE_LOOP = LoopOptions(steps=500, rate=2e-3, warmup=50, seed=2)
LANGUAGE = LanguageOptions(batch=32)
ALIGN_BATCH, TUNE_BATCH = 32, 32
ALIGN_LOOP = LoopOptions(steps=40, rate=1e-3, warmup=10, seed=55, weight_decay=0.0)
TUNE_LOOP = LoopOptions(steps=520, rate=5e-4, warmup=20, seed=57, optimizer="muon")


def text_config(vocab_size: int, bos_id: int, eos_id: int) -> TextConfig:
    """The decoder, once the vocabulary is known."""
    return TextConfig(
        family="llama",
        vocab_size=vocab_size,
        hidden_size=256,
        intermediate_size=704,
        num_layers=4,
        num_heads=4,
        num_kv_heads=4,
        head_dim=64,
        norm_eps=1e-5,
        max_positions=2048,
        tie_embeddings=True,
        bos_id=bos_id,
        eos_ids=(eos_id,),
    )


def llava_config(text: TextConfig, image_token_id: int) -> LlavaConfig:
    """The whole model: every feature of the tower's last block, a two-layer projector, the decoder."""
    return LlavaConfig(
        text=text, vision=VISION, image_token_id=image_token_id, feature_layers=(-1,), drop_class_token=False
    )


def mini_names() -> list[str]:
    """The everyday things that `mini` knows by name."""
    text = (importlib.resources.files("lapilli") / "models" / "mini" / "names.json").read_text()
    return [str(name) for name in json.loads(text)]


@dataclass(frozen=True)
class Workshop:
    """What all stages share: the pictures' material, the vocabulary, and the folder that keeps the work."""

    art: Art
    tokenizer: Tokenizer
    data: Path
    out: Path
    device: torch.device
    start: Llava | None = None

    @property
    def config(self) -> LlavaConfig:
        """The whole model: every feature of the tower's last block, a two-layer projector, the decoder."""
        return llava_config(text_config(self.tokenizer.vocab_size, BOS_ID, EOS_ID), IMAGE_ID)

    def has(self, stage: str) -> bool:
        """Whether a stage's weights are to be read; those of `start` stand in for a stage that was left out."""
        return self.start is None or (self.out / stage).exists()

    @classmethod
    def open(cls, data: Path, out: Path, device: torch.device, start: Path | None = None) -> Workshop:
        """Load the material; the vocabulary is made once and kept in `out/vocabulary`.

        `start` is a folder of an earlier `mini`: its vocabulary is taken over, and stages begin with its weights.
        """
        art, folder = Art.load(data), out / "vocabulary"
        if start is not None:
            given = load_checkpoint(start, dtype=torch.float32)
            shop = cls(art, given.prompts.tokenizer, data, out, device, given.model)
            if shop.config != given.config:
                raise TrainingError(f"{start} is another model than the one made here: begin with a `mini`, or anew")
            return shop
        if not (folder / "tokenizer.json").exists():
            talks = written(art, seed=11, count=6000)
            words = build_vocabulary(
                [*prose(data / "text"), *spoken_texts(talks)], VOCABULARY_SIZE, whole=whole_words(talks)
            )
            roles = {"pad_token": PAD_ID, "bos_token": BOS_ID, "eos_token": EOS_ID}
            config = {role: SPECIAL_TOKENS[number] for role, number in roles.items()}
            Tokenizer.from_json(words, config=config).save(folder, image_token=SPECIAL_TOKENS[IMAGE_ID])
        return cls(art, Tokenizer.from_folder(folder), data, out, device)


def train_tower(shop: Workshop, *, minutes: float | None) -> int:
    """The first stage; returns the step reached."""
    draw = DrawScenes(shop.art, seed=TOWER.seed)
    objective = TowerObjective(
        VISION, shop.tokenizer, region_labels(), TOWER, DrawnBatches(draw, workers=TOWER.workers)
    )
    vision = objective.trainer.vision
    if shop.start is not None and shop.start.vision is not None:
        vision.load_state_dict(shop.start.vision.state_dict())
    else:
        pixels_BHWC, _, _ = draw(FAR_AWAY, 384)
        whiten_patches(vision.patch, normalise_pixels(torch.from_numpy(pixels_BHWC)))
        place_positions(vision.position, VISION.grid)
    return run(objective, TOWER_LOOP, shop.out / "tower", minutes=minutes, device=shop.device)


def train_language(shop: Workshop, *, minutes: float | None) -> int:
    """The decoder's own stage: half English, half the language of answers; returns the step reached."""
    talks = written(shop.art, seed=12, count=3000)
    blocks = Blocks(
        shop.tokenizer,
        prose_ids(shop.tokenizer, prose(shop.data / "text")),
        Shuffled(tuple(talks)),
        length=128,
        prose_share=0.4,
        seed=13,
    )
    decoder = Decoder(shop.config.text)
    initialise(decoder, LANGUAGE_LOOP.seed, layers=shop.config.text.num_layers)
    if shop.start is not None:
        decoder.load_state_dict(shop.start.language.state_dict())
    objective = LanguageObjective(decoder, blocks, LANGUAGE)
    return run(objective, LANGUAGE_LOOP, shop.out / "language", minutes=minutes, device=shop.device)


def train_align(shop: Workshop, *, minutes: float | None) -> int:
    """Stage one: the projector alone, from captions; returns the step reached."""
    model = Llava(shop.config)
    initialise(model, ALIGN_LOOP.seed, layers=shop.config.text.num_layers)
    if shop.start is not None:
        model.load_state_dict(shop.start.state_dict())
    assert model.vision is not None
    if shop.has("tower"):
        taught = trained_weights(shop.out / "tower")
        model.vision.load_state_dict({name[7:]: value for name, value in taught.items() if name.startswith("vision.")})
    if shop.has("language"):
        model.language.load_state_dict(trained_weights(shop.out / "language"))
    objective = InstructObjective(
        model, shop.tokenizer, CaptionLessons(shop.art, seed=63), InstructOptions(batch=ALIGN_BATCH), train="projector"
    )
    return run(objective, ALIGN_LOOP, shop.out / "align", minutes=minutes, device=shop.device)


def train_tune(shop: Workshop, *, minutes: float | None) -> int:
    """Stage two: all of it, end to end, from conversations; at its end the model is written to `out/model`."""
    model = Llava(shop.config)
    if shop.start is not None:
        model.load_state_dict(shop.start.state_dict())
    if shop.has("align"):
        model.load_state_dict(trained_weights(shop.out / "align"))
    questions = picture_questions(written(shop.art, seed=14, count=500))
    objective = InstructObjective(
        model,
        shop.tokenizer,
        ConversationLessons(shop.art, seed=65, questions=questions),
        InstructOptions(batch=TUNE_BATCH),
        train="projector+language+vision",
    )
    step = run(objective, TUNE_LOOP, shop.out / "tune", minutes=minutes, device=shop.device)
    if join().leads:
        write_model(shop, model)
    return step


def write_model(shop: Workshop, model: Llava) -> Path:
    """The checkpoint folder of the model as it is, in bfloat16, at `out/model`."""
    special = {"bos_token": SPECIAL_TOKENS[BOS_ID], "eos_token": SPECIAL_TOKENS[EOS_ID]}
    processor = ImageProcessor.square(VISION.image_size, (0.5,) * 3, (0.5,) * 3, fit="pad")
    prompts = PromptBuilder(shop.config, shop.tokenizer, processor, ChatTemplate.from_jinja(CHAT_TEMPLATE, special))
    checkpoint = Checkpoint(shop.config, model.cpu(), prompts, GenerationDefaults(max_new_tokens=64))
    folder = shop.out / "model"
    save_folder(checkpoint, folder, dtype=torch.bfloat16, replace=True)
    return folder


@dataclass(frozen=True)
class DrawScenes:
    """The pictures of a step, their captions and their named boxes."""

    art: Art
    seed: int

    def __call__(self, step: int, size: int) -> tuple[np.ndarray, tuple[str, ...], tuple[Region, ...]]:
        scenes = [scene_at(step * size + row, self.seed, self.art, "train") for row in range(size)]
        rng = np.random.default_rng([self.seed, step])
        boxes = tuple(
            Region(row, region.label, region.box) for row, scene in enumerate(scenes) for region in regions(scene)
        )
        return np.stack([scene.pixels_HWC for scene in scenes]), tuple(caption(s, rng) for s in scenes), boxes
