"""Text encoders of BERT's kind from a folder: as transformers saves them, or sentence-transformers with their pooling.

checkpoint = open_encoder("bge-small-en-v1.5")
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from lapilli.checkpoints.names import Layout, tensors_of
from lapilli.checkpoints.objects import read_list, read_object
from lapilli.checkpoints.quoting import quoted
from lapilli.checkpoints.weights import Shape, Weight, read_safetensors
from lapilli.config.encoder import EncoderConfig
from lapilli.errors import CheckpointError
from lapilli.inputs.wordpiece import WordPiece
from lapilli.model.encoder import Encoder

Pooling = Literal["cls", "mean"]

_BERT: Layout = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "kinds": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
    "blocks.*.attention.q": "encoder.layer.*.attention.self.query",
    "blocks.*.attention.k": "encoder.layer.*.attention.self.key",
    "blocks.*.attention.v": "encoder.layer.*.attention.self.value",
    "blocks.*.attention.out": "encoder.layer.*.attention.output.dense",
    "blocks.*.norm1": "encoder.layer.*.attention.output.LayerNorm",
    "blocks.*.mlp.up": "encoder.layer.*.intermediate.dense",
    "blocks.*.mlp.down": "encoder.layer.*.output.dense",
    "blocks.*.norm2": "encoder.layer.*.output.LayerNorm",
}
_DISTILBERT: Layout = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "norm": "embeddings.LayerNorm",
    "blocks.*.attention.q": "transformer.layer.*.attention.q_lin",
    "blocks.*.attention.k": "transformer.layer.*.attention.k_lin",
    "blocks.*.attention.v": "transformer.layer.*.attention.v_lin",
    "blocks.*.attention.out": "transformer.layer.*.attention.out_lin",
    "blocks.*.norm1": "transformer.layer.*.sa_layer_norm",
    "blocks.*.mlp.up": "transformer.layer.*.ffn.lin1",
    "blocks.*.mlp.down": "transformer.layer.*.ffn.lin2",
    "blocks.*.norm2": "transformer.layer.*.output_layer_norm",
}
_LAYOUTS: Mapping[str, Layout] = {"bert": _BERT, "distilbert": _DISTILBERT}
# Heads of other tasks, and a table that is computed anyway.
_UNREAD = re.compile(r"(pooler|cls|classifier|pre_classifier|qa_outputs|vocab_\w+)\..*|.*\.position_ids")
_LEAST = 3  # a token between those that begin and end a text
_MODULE = re.compile(r"[0-9]{1,2}_[A-Za-z]{1,40}", re.ASCII)

# What these families were trained to read before a question, and before a text; from their model cards.
_SEARCHING = "Represent this sentence for searching relevant passages: "
_PREFIXES: tuple[tuple[re.Pattern[str], str, str], ...] = tuple(
    (re.compile(pattern), question, text)
    for pattern, question, text in (
        (r"\bbge-(small|base|large)-en\b", _SEARCHING, ""),
        (r"\bbge-(small|base|large)-zh\b", "为这个句子生成表示以用于检索相关文章：", ""),
        (r"\bmxbai-embed-large\b", _SEARCHING, ""),
        (r"\bsnowflake-arctic-embed(?!2|-\w+-v2)", _SEARCHING, ""),
        (r"\be5-(small|base|large)\b", "query: ", "passage: "),
        (r"\bnomic-embed-text\b", "search_query: ", "search_document: "),
    )
)
_FIRST_TOKEN = re.compile(r"\b(bge-|mxbai-embed|snowflake-arctic-embed)")


@dataclass(frozen=True)
class EncoderCheckpoint:
    """A text encoder with all that is needed to make vectors: how it pools, what comes before a question or a text."""

    config: EncoderConfig
    model: Encoder
    tokenizer: WordPiece
    pooling: Pooling
    max_tokens: int
    query_prefix: str
    text_prefix: str


def is_encoder(folder: Path) -> bool:
    """Whether a folder says that it holds a text encoder, of a kind that is read here or not."""
    if (folder / "modules.json").is_file():
        return True
    kind = read_object(folder / "config.json").get("model_type") if folder.is_dir() else None
    return kind in ("bert", "distilbert", "roberta", "xlm-roberta", "mpnet", "nomic_bert", "new", "modernbert")


def usual_prefixes(name: str) -> tuple[str, str]:
    """What a model of that name was trained to read before a question, and before a text."""
    text = name.lower()
    return next(((question, passage) for pattern, question, passage in _PREFIXES if pattern.search(text)), ("", ""))


def open_encoder(path: str | Path, *, name: str = "", device: str | torch.device = "cpu") -> EncoderCheckpoint:
    """Open a folder; `name` is what it is called elsewhere, where the folder's own name says little.

    Weights are float32. Where no file says how to pool, families known by name do as they were trained, the rest takes
    the mean. Raises CheckpointError or TokenizerError for what is damaged, incomplete or of another kind.
    """
    folder = Path(path)
    modules = _modules(folder)
    own = folder / modules["Transformer"] if modules.get("Transformer") else folder
    values = read_object(own / "config.json")
    if not values:
        raise CheckpointError(f"{folder.name}: is no folder with a config.json")
    config = EncoderConfig.from_dict(values)
    known = " ".join((name, folder.name, str(values.get("_name_or_path") or "").replace("_", "-")))
    model = _assemble(config, read_safetensors(own), folder.name, device)
    tokenizer = WordPiece.from_folder(own)
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"{folder.name}: the tokenizer has {tokenizer.vocab_size} tokens, the model {config.vocab_size}"
        )
    question, text = _prefixes(folder, known)
    return EncoderCheckpoint(
        config=config,
        model=model,
        tokenizer=tokenizer,
        pooling=_pooling(folder, modules, known),
        max_tokens=_most(own, config),
        query_prefix=question,
        text_prefix=text,
    )


def _assemble(config: EncoderConfig, found: Mapping[str, Weight], where: str, device: str | torch.device) -> Encoder:
    if config.num_layers > len(found):
        raise CheckpointError(f"{where}: {config.num_layers} layers are described, the files hold {len(found)} tensors")
    try:
        with torch.device("meta"):
            model = Encoder(config)
    except (RuntimeError, OverflowError):
        raise CheckpointError("the sizes of this model, multiplied, are beyond any memory") from None
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    placed = _placed(found, _LAYOUTS[config.family], shapes, config.family, where)
    values = {name: weight.read().to(device, torch.float32) for name, weight in placed.items()}
    model.load_state_dict(values, assign=True)
    return model.eval().requires_grad_(False)


def _placed(
    found: Mapping[str, Weight], layout: Layout, shapes: Mapping[str, Shape], family: str, where: str
) -> dict[str, Weight]:
    """Our parameters out of a file's tensors, whatever head they were saved with."""
    spelt = {}
    for name, weight in found.items():
        bare = name.removeprefix(f"{family}.")
        # The first checkpoints have the words of TensorFlow.
        spelt[bare.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")] = weight
    placed = {}
    wanted = {foreign: ours for foreign, (ours,) in tensors_of(layout, shapes).items()}
    missing = sorted(wanted.keys() - spelt.keys())
    extra = sorted(name for name in spelt.keys() - wanted.keys() if not _UNREAD.fullmatch(name))
    for what, names in (("missing", missing), ("not known here", extra)):
        if names:
            raise CheckpointError(f"{where}: {len(names)} tensors {what}, the first is {quoted(names[0])}")
    for foreign, ours in wanted.items():
        if spelt[foreign].shape != shapes[ours]:
            raise CheckpointError(
                f"{where}: tensor {foreign} has shape {spelt[foreign].shape}, must have {shapes[ours]}"
            )
        placed[ours] = spelt[foreign]
    return placed


def _modules(folder: Path) -> dict[str, str]:
    """The folders of sentence-transformers' modules by their kind; nothing where it is no folder of theirs."""
    found: dict[str, str] = {}
    for row in read_list(folder / "modules.json"):
        kind = str(row.get("type", "")).rpartition(".")[2] if isinstance(row, dict) else ""
        path = row.get("path", "") if isinstance(row, dict) else None
        if kind not in ("Transformer", "Pooling", "Normalize"):
            raise CheckpointError(f"modules.json: a module {quoted(kind)} is not read; Transformer and Pooling are")
        if not isinstance(path, str) or (path and not _MODULE.fullmatch(path)):
            raise CheckpointError(f"modules.json: {quoted(path)} is no folder of a module")
        found[kind] = path
    return found


def _pooling(folder: Path, modules: Mapping[str, str], known: str) -> Pooling:
    values = read_object(folder / (modules.get("Pooling") or "1_Pooling") / "config.json")
    if not values:
        return "cls" if _FIRST_TOKEN.search(known.lower()) else "mean"
    said = values.get("pooling_mode")
    modes = [said] if isinstance(said, str) else []
    modes += [key.removeprefix("pooling_mode_") for key, value in values.items() if value is True and "mode_" in key]
    ways: dict[str, Pooling] = {"cls_token": "cls", "cls": "cls", "mean_tokens": "mean", "mean": "mean"}
    if len(modes) != 1 or modes[0] not in ways:
        raise CheckpointError(f"1_Pooling: pooling by {quoted(', '.join(modes))} is not read; cls and mean are")
    return ways[modes[0]]


def _prefixes(folder: Path, known: str) -> tuple[str, str]:
    prompts = read_object(folder / "config_sentence_transformers.json").get("prompts")
    usual = usual_prefixes(known)
    if not isinstance(prompts, dict):
        return usual
    question = _text(prompts, ("query", "search_query", "s2p_query"), usual[0])
    return question, _text(prompts, ("document", "passage", "search_document"), usual[1])


def _text(prompts: Mapping[str, Any], keys: tuple[str, ...], usual: str) -> str:
    return next((prompts[key] for key in keys if isinstance(prompts.get(key), str) and prompts[key]), usual)


def _most(folder: Path, config: EncoderConfig) -> int:
    """The most tokens of a text that count."""
    for file, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        limit = read_object(folder / file).get(key)
        if isinstance(limit, int) and not isinstance(limit, bool):
            break
    else:
        limit = config.max_positions
    most = min(config.max_positions, limit)
    if most < _LEAST:
        raise CheckpointError(f"{folder.name}: reads {most} tokens of a text at most, {_LEAST} are the least")
    return most
