"""What rounding costs `mini`: how far its choices move when matrices are kept in 8 or 4 bits, and in which of them.

`mini` in floats answers drawn questions; each other form reads those answers, and its probabilities for every token of
them are held against the first's. Says why the head has more bits than the rest and the tower 8 of them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from numbers_page import Section, publish
from PIL import Image
from torch import Tensor

from lapilli.apps.evals.mini import KNOWN_STYLES
from lapilli.checkpoints.ggml import TensorType
from lapilli.checkpoints.load import Checkpoint, load_checkpoint, open_source
from lapilli.checkpoints.mixture import MIXTURES, Mixture, planned
from lapilli.checkpoints.weights import assemble
from lapilli.inputs.chat import conversation
from lapilli.model.llava import Llava
from lapilli.store.reference import resolve
from lapilli.training.art import Art
from lapilli.training.material import SKILLS, examination
from lapilli.training.skills import answerer

FOUR = MIXTURES["Q4_K_M"]
FORMS: dict[str, Mixture] = {
    "int8": MIXTURES["Q8_0"],
    "int4": FOUR,
    "int4, head in Q4_K": replace(FOUR, head=TensorType.Q4_K),
    "int4, head in Q8_0": replace(FOUR, head=TensorType.Q8_0),
    "int4, tower in Q4_K": replace(FOUR, tower=TensorType.Q4_K),
    "int4, tower in Q6_K": replace(FOUR, tower=TensorType.Q6_K),
    "int4, no more bits for values and second matrices": replace(FOUR, careful="none"),
    "Q4_0 but for head and tower": MIXTURES["Q4_0"],
}


@dataclass(frozen=True)
class Read:
    """A question about a picture as the model reads it, with the answer that floats give."""

    ids_1T: Tensor
    pictures: list[tuple[Tensor, tuple[int, int]]]
    start: int


def main() -> None:
    parser = argparse.ArgumentParser(description="What rounding costs mini.")
    parser.add_argument("--each", type=int, default=25, help="questions of each skill")
    parser.add_argument("--data", type=Path, help="the folder with emoji/ and text/; without it, no naming")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    path = resolve("mini").path
    floats = load_checkpoint(path, dtype=torch.float32)
    reads = questions(floats, arguments.data, arguments.each)
    expected_NV = scores(floats.model, reads)
    rows = [["floats", f"{megabytes(floats.model):.2f}", "", ""]]
    for name, mixture in FORMS.items():
        source = open_source(path)
        weights, _ = planned(source.weights, source.config, mixture)
        model = assemble(source.config, weights, torch.float32, "cpu", quantized=True)
        found_NV = scores(model, reads)
        apart = float((expected_NV.exp() * (expected_NV - found_NV)).sum(-1).mean())
        same = float((expected_NV.argmax(-1) == found_NV.argmax(-1)).float().mean())
        rows.append([name, f"{megabytes(model):.2f}", f"{1000 * apart:.3f}", f"{100 * same:.2f} %"])
    section = Section("What rounding costs mini")
    section.add(
        f"{len(reads)} drawn questions, {len(expected_NV)} tokens of the answers that floats give. Divergence is that "
        "of Kullback and Leibler, in thousandths of a nat a token."
    )
    section.table(["weights", "MB in memory", "divergence", "same first choice"], rows)
    publish(section)


def questions(checkpoint: Checkpoint, data: Path | None, each: int) -> list[Read]:
    prompts, tokenizer = checkpoint.prompts, checkpoint.prompts.tokenizer
    tasks = examination(Art.load(data, KNOWN_STYLES), 1, each, skills=SKILLS)
    said = answerer(checkpoint.model, tokenizer)([x.pixels_HWC for x in tasks], [x.question for x in tasks])
    reads = []
    for task, text in zip(tasks, said, strict=True):
        prompt = prompts.chat(conversation(task.question, [Image.fromarray(task.pixels_HWC)]))
        ids = [*prompt.token_ids, *tokenizer.encode(f" {text}")]
        pictures = [(torch.from_numpy(image.pixels_TCHW), (image.height, image.width)) for image in prompt.images]
        reads.append(Read(torch.tensor([ids]), pictures, len(prompt.token_ids)))
    return reads


@torch.inference_mode()
def scores(model: Llava, reads: list[Read]) -> Tensor:
    """Log-probabilities (N, V) for each token of all answers."""
    found = []
    for read in reads:
        embeds_1TD = model.embed(read.ids_1T, model.encode_images(read.pictures))
        hidden_1TD = model(embeds_1TD, torch.arange(read.ids_1T.shape[1])[None])
        found.append(model.logits(hidden_1TD[0, read.start - 1 : -1]).float().log_softmax(-1))
    return torch.cat(found)


def megabytes(model: Llava) -> float:
    return sum(value.nbytes for value in (*model.parameters(), *model.buffers())) / 1e6


if __name__ == "__main__":
    main()
