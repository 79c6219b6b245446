"""Random text encoders of the smallest size, saved by transformers, in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), *LETTERS, *"0123456789", *(f"##{letter}" for letter in LETTERS),
    *".,:?!'\"()-", "the", "and", "of", "red", "circle", "square", "star", "picture", "##ing", "##ed", "represent",
    "this", "sentence", "for", "searching", "relevant", "passage", "query", "北", "京", "é", "naive",
]  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "bert": {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
        "max_position_embeddings": 72, "vocab_size": len(WORDS), "hidden_act": "gelu",
    },
    "distilbert": {
        "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 72,
        "vocab_size": len(WORDS), "activation": "gelu",
    },
}  # fmt: skip


def save_encoder(
    folder: Path,
    family: str = "bert",
    *,
    head: bool = False,
    pooling: dict[str, Any] | None = None,
    prompts: dict[str, str] | None = None,
    fast: bool = True,
    seed: int = 0,
    **changes: Any,
) -> Path:
    """Write a folder; with `pooling`, of sentence-transformers' kind; with `head`, its tensors have a prefix.

    `fast` has `tokenizer.json`, else `vocab.txt` alone is there.
    """
    torch.manual_seed(seed)
    config = (transformers.BertConfig if family == "bert" else transformers.DistilBertConfig)(
        **{**SIZES[family], **changes}
    )
    kinds = {"bert": "BertForMaskedLM", "distilbert": "DistilBertForMaskedLM"} if head else {
        "bert": "BertModel", "distilbert": "DistilBertModel"
    }  # fmt: skip
    model = getattr(transformers, kinds[family])(config)
    for value in model.parameters():  # biases and norms are not what they are for nothing
        torch.nn.init.normal_(value, 0.05, 0.25)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    if fast:
        transformers.BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)}).save_pretrained(folder)
        (folder / "vocab.txt").unlink(missing_ok=True)
    if pooling is not None:
        kind = "sentence_transformers.models"
        modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
        rows = [
            {"idx": n, "name": str(n), "path": path, "type": f"{kind}.{name}"} for n, (path, name) in enumerate(modules)
        ]
        (folder / "modules.json").write_text(json.dumps(rows))
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling/config.json").write_text(json.dumps(pooling))
        (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 64, "do_lower_case": false}')
    if prompts is not None:
        (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    return folder


def transformers_vectors(folder: Path, texts: list[str], *, first: bool, most: int = 64) -> torch.Tensor:
    """What transformers makes of the same files."""
    tokenizer = transformers.BertTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    batch = tokenizer(texts, padding=True, truncation=True, max_length=most, return_tensors="pt")
    batch = {name: value for name, value in batch.items() if name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    there = batch["attention_mask"][:, :, None].float()
    vectors = hidden[:, 0] if first else (hidden * there).sum(1) / there.sum(1)
    return torch.nn.functional.normalize(vectors, dim=-1)
