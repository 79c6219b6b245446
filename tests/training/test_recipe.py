"""Recipes: published numbers read from TOML, changed by hand, and refused with what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from lapilli import TrainingError
from lapilli.training.recipe import LoraOptions, Recipe, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_reads_and_names_its_source(name: str) -> None:
    recipe = Recipe.read(name)
    assert recipe.name == name
    assert recipe.source


def test_the_published_numbers() -> None:
    align, tune = Recipe.read("llava-1.0-align"), Recipe.read("llava-1.0-tune")
    assert (align.train, align.epochs, align.batch, align.rate) == ("projector", 1, 128, 2e-3)
    assert (tune.train, tune.epochs, tune.batch, tune.rate) == ("projector+language", 3, 32, 2e-5)
    assert Recipe.read("llava-1.0-scienceqa").epochs == 12
    assert (Recipe.read("llava-1.5-align").batch, Recipe.read("llava-1.5-tune").batch) == (256, 128)
    lora = Recipe.read("llava-1.5-lora")
    assert (lora.lora, lora.rate, lora.projector_rate) == (LoraOptions(rank=128, alpha=256.0, dropout=0.05), 2e-4, 2e-5)
    assert Recipe.read("llava-1.5-qlora").quantize == "int4"


def test_changes_by_key_and_value(tmp_path: Path) -> None:
    recipe = Recipe.read("small-lora", ["rate=5e-4", "lora.rank=4", "lora.targets=['q', 'v']", "optimizer=muon"])
    assert (recipe.rate, recipe.optimizer) == (5e-4, "muon")
    assert recipe.lora == LoraOptions(rank=4, alpha=32.0, targets=("q", "v"))
    assert Recipe.read("small-lora", ["lora=none"]).lora is None
    own = tmp_path / "mine.toml"
    own.write_text('train = "projector"\nrate = 1\n')
    assert (Recipe.read(own).name, Recipe.read(own).rate) == ("mine", 1.0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("speed=1", "speed: no such key; there are name, source, train"),
        ("lora.size=1", "lora: size: no such key; there are rank"),
        ("rate=fast", "rate is 'fast', it must be float"),
        ("batch=1.5", "batch is 1.5, it must be int"),
        ("pack=true", "pack is True, it must be int"),
        ("train=tower", "train is 'tower', it must be 'projector' or 'language'"),
        ("lora.targets=['x']", "it must be 'q' or 'k'"),
        ("batch=0", "batch is 0, it must be at least 1"),
        ("quantize=int4", "needs lora"),
        ("rate", "it must be key=value"),
        ("rate.high=1", "rate holds no keys"),
    ],
)
def test_what_is_no_recipe_is_said_with_what_there_is(change: str, told: str) -> None:
    with pytest.raises(TrainingError, match=r"^(recipe|--set)") as caught:
        Recipe.read("small-tune", ["rate=1e-4", change])
    assert told in str(caught.value)


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(TrainingError, match=r"there are llava-1\.0-align"):
        Recipe.read("llava-2")


def test_steps_and_warm_up_come_from_the_samples() -> None:
    loop = Recipe.read("small-tune", ["epochs=3", "batch=10", "warmup_share=0.1"]).loop(95)
    assert (loop.steps, loop.warmup) == (29, 3)
