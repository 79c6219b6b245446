"""Where it looked: ways to tell, compared on drawn scenes of two shapes or more whose boxes are known.

The answer names a colour or a shape that one thing in the picture has. Relevance should lie on that thing, also where
it is not the one that was asked for. Scenes are of the test split; the tests use other ones than these.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numbers_page import Section, publish
from torch import Tensor

import lapilli
from lapilli.engine.local import LocalModel
from lapilli.engine.relevance import STEPS, attributions, differentiable
from lapilli.inputs.chat import conversation
from lapilli.inputs.prompt import Prompt
from lapilli.model.cache import Masks

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))
from looking import Case, cases, inside

Method = Callable[[LocalModel, Case], Tensor]
"""The relevance (N) of the features of a case's one picture."""

NEUTRAL = "Describe the picture."


class Watched:
    """A cache that keeps nothing but the attention weights (H, T, T) of each layer, with their gradients if asked."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []

    def begin(self, new: int, valid_BT: Tensor | None) -> None:
        self.masks = Masks(new, new, valid_BT, torch.device("cpu"))

    def attend(self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, window: int | None) -> Tensor:
        groups = q_BHTD.shape[1] // k_BKTD.shape[1]
        k_BHTD, v_BHTD = (x.repeat_interleave(groups, dim=1) for x in (k_BKTD, v_BKTD))
        scores = q_BHTD @ k_BHTD.mT * q_BHTD.shape[-1] ** -0.5
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        weights = scores.masked_fill(later, -torch.inf).softmax(-1)
        if weights.requires_grad:
            weights.retain_grad()
        self.weights.append(weights)
        return weights @ v_BHTD


def watched(model: LocalModel, prompt: Prompt, features: list[Tensor], answer: tuple[int, ...]) -> tuple:
    """Attention weights (H, T, T) of each layer, with gradients of the answer's log-probability; where things stand."""
    language, watch = differentiable(model.model.language), Watched()
    ids = torch.tensor([[*prompt.token_ids, *answer[:-1]]])
    embeds = model.model.embed(ids, [part.clone() for part in features]).detach().requires_grad_()
    hidden = language(embeds, torch.arange(ids.shape[1])[None], watch)[0]
    said = list(range(len(prompt.token_ids) - 1, ids.shape[1]))
    if answer:
        language.logits(hidden[said]).log_softmax(-1)[range(len(said)), list(answer)].sum().backward()
    image = (ids[0] == model.config.image_token_id).nonzero()[:, 0]
    return [weights[0] for weights in watch.weights], watch.weights, said, slice(int(image[0]), int(image[-1]) + 1)


def attention(model: LocalModel, case: Case) -> Tensor:
    weights, _, said, image = watched(model, case.prompt, case.features, case.answer)
    later = weights[len(weights) // 2 :]
    return sum(each[:, said, image].detach().mean((0, 1)) for each in later)


def attention_over_neutral(model: LocalModel, case: Case) -> Tensor:
    prompt = model.prompts.chat(conversation(NEUTRAL, [case.scene.image]))
    neutral, _, _, place = watched(model, prompt, case.features, ())
    weights, _, said, image = watched(model, case.prompt, case.features, case.answer)
    pairs = list(zip(weights, neutral, strict=True))[len(weights) // 2 :]
    return sum(
        each[:, said, image].detach().mean((0, 1)) / (plain[:, -1, place].detach().mean(0) + 1e-4)
        for each, plain in pairs
    )


def gradient_times_attention(model: LocalModel, case: Case) -> Tensor:
    """Chefer et al., arXiv 2103.15679, for self-attention."""
    weights, kept, said, image = watched(model, case.prompt, case.features, case.answer)
    relevance_TT = torch.eye(weights[0].shape[-1])
    for each, whole in zip(weights, kept, strict=True):
        lasting_TT = (whole.grad[0] * each).detach().clamp(min=0).mean(0)
        relevance_TT = relevance_TT + lasting_TT @ relevance_TT
    return relevance_TT[said, image].sum(0)


def integrated(steps: int) -> Method:
    def method(model: LocalModel, case: Case) -> Tensor:
        span, features = (0, len(case.answer)), [part.clone() for part in case.features]
        return attributions(model.model, case.prompt, case.answer, span, features, steps=steps)[0].clamp(min=0)

    return method


@torch.no_grad()
def occlusion(model: LocalModel, case: Case) -> Tensor:
    """What the answer loses when a patch becomes the mean of all."""
    (own_ND,) = case.features
    count, read = len(own_ND), len(case.prompt.token_ids)
    without = torch.where(torch.eye(count, dtype=torch.bool)[..., None], own_ND.mean(0), own_ND)
    ids = torch.tensor([[*case.prompt.token_ids, *case.answer[:-1]]]).expand(count + 1, -1)
    embeds = model.model.embed(ids, [*without, own_ND])
    hidden = model.model(embeds, torch.arange(ids.shape[1])[None].expand(count + 1, -1))[:, read - 1 :]
    scores = model.model.logits(hidden).log_softmax(-1)
    said_B = scores.gather(2, torch.tensor(case.answer).expand(count + 1, -1)[..., None]).sum((1, 2))
    return (said_B[-1] - said_B[:-1]).clamp(min=0)


METHODS: dict[str, Method] = {
    "attention, later half of the layers": attention,
    "the same, over that of a neutral prompt": attention_over_neutral,
    "gradient × attention (arXiv 2103.15679)": gradient_times_attention,
    "gradient × (feature − mean)": integrated(1),
    f"**integrated gradients, {STEPS} steps**": integrated(STEPS),
    "integrated gradients, 16 steps": integrated(16),
    "occlusion of each patch": occlusion,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare ways to tell where a model looked.")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--scenes", type=int, default=120)
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)  # many small passes
    model = lapilli.load(options.model, device="cpu")
    section = Section("Where it looked")
    for skill, example in (("colour", "What colour is the circle?"), ("shape", "What shape is red?")):
        asked = list(itertools.islice(cases(model, skill, options.seed), options.scenes))
        right = sum(case.right for case in asked)
        area = np.mean([inside(np.ones((8, 8)), case.named.box)[1] for case in asked])
        section.add(
            f"“{example}” in {len(asked)} scenes of two shapes or more, where the answer is true of one of them: of "
            f"the one asked for in {right}, of another one in {len(asked) - right}. Its box is {100 * area:.1f} % of "
            "the picture on average. Share of the relevance inside the box, that share over the box's share of the "
            "picture (1 is chance), the same for the other shapes' boxes, how often the named shape is first in that:"
        )
        rows = [row(name, method, model, asked) for name, method in METHODS.items()]
        section.table(
            ["method", "in the box", "over chance", "others over chance", "named one first", "wrong answers"], rows
        )
    publish(section)


def row(name: str, method: Method, model: LocalModel, asked: list[Case]) -> list[str]:
    shares, lifts, others, first = [], [], [], []
    for case in asked:
        grid = method(model, case).detach().view(8, 8).numpy()
        share, area = inside(grid, case.named.box)
        beside = [inside(grid, item.box) for item in case.scene.items if item is not case.named]
        density = [part / size for part, size in beside]
        shares.append(share)
        lifts.append(share / area)
        others.append(np.mean(density))
        first.append(share / area > max(density))
    wrong = [hit for hit, case in zip(first, asked, strict=True) if not case.right]
    return [
        name, f"{100 * np.mean(shares):.0f} %", f"{np.mean(lifts):.1f}", f"{np.mean(others):.1f}",
        f"{100 * np.mean(first):.0f} %", f"{sum(wrong)} of {len(wrong)}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
