"""Where it looked: how much each patch of a picture speaks for what was said.

    answer = model.chat(question, images=[picture])
    prompt = model.prompts.chat(conversation(question, [picture]))
    (seen,) = relevance(model.model, prompt, answer.token_ids, model.prompts.image_processor)
    draw([picture], [seen], answer.text).save("looked.png")    # lapilli.engine.heatmap

The method is integrated gradients (arXiv 1703.01365) on the projected features, from the picture's mean feature to
each patch's own: what a patch adds to the answer's log-probability by being what it is. Attention weights show what
stands out in a picture whatever is asked; `bench/relevance_bench.py` compares.
Shapes: T tokens, N features, D width, R rows and C columns of patches.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lapilli.config import LlavaConfig
from lapilli.errors import PromptError
from lapilli.inputs.processor import ImageProcessor
from lapilli.inputs.prompt import Prompt
from lapilli.model.language import Decoder
from lapilli.model.llava import Llava
from lapilli.model.quantized import QuantizedLinear

STEPS = 4


@dataclass(frozen=True, eq=False)
class Relevance:
    """How much each patch of one picture counts, 0 to 1, where 1 is the most relevant patch that the prompt shows.

    The grid (R, C) covers `frame`, (left, top, right, bottom) in pixels of the picture: beyond its edges where it was
    padded, within them where it was cropped. Of LLaVA-NeXT's tiles it is the overview.
    """

    grid_RC: npt.NDArray[np.float32] = field(repr=False)
    frame: tuple[float, float, float, float]


def relevance(
    model: Llava,
    prompt: Prompt,
    answer: Sequence[int],
    processor: ImageProcessor,
    *,
    span: tuple[int, int] | None = None,
    features: Sequence[Tensor] | None = None,
) -> list[Relevance]:
    """Where each of a prompt's pictures holds what tokens [begin, end) of the answer were said for; all by default.

    `features` (N, D) are those of the pictures, where they are known. It takes the time of reading prompt and answer
    about twelve times, and the memory of training on them once. Raises PromptError where there is no picture or nothing
    was said.
    """
    begin, end = span or (0, len(answer))
    if not prompt.images:
        raise PromptError("the prompt shows no picture: there is nothing to look at")
    if not 0 <= begin < end <= len(answer):
        raise PromptError(f"tokens {begin} to {end} of an answer of {len(answer)}: give at least one of its own")
    # Gradients also for callers who run without; tensors made in inference mode would have none.
    with torch.inference_mode(False), torch.enable_grad():
        if features is None:
            with torch.no_grad():
                features = model.encode_images(
                    [(torch.from_numpy(image.pixels_TCHW), (image.height, image.width)) for image in prompt.images]
                )
        parts = attributions(model, prompt, answer, (begin, end), [part.detach().clone() for part in features])
    grids = [_grid(model.config, part_N) for part_N in parts]
    most = max(float(grid.max()) for grid in grids)
    return [
        Relevance(grid / most if most > 0 else grid, processor.frame(image.height, image.width))
        for grid, image in zip(grids, prompt.images, strict=True)
    ]


def attributions(
    model: Llava,
    prompt: Prompt,
    answer: Sequence[int],
    span: tuple[int, int],
    features: Sequence[Tensor],
    *,
    steps: int = STEPS,
) -> list[Tensor]:
    """What each feature (N) of each picture adds to the log-probability of the span; below zero it speaks against it.

    Together they come to what the pictures add over their own mean features, the closer the more steps.
    """
    language = differentiable(model.language)
    read, device = len(prompt.token_ids), model.device
    targets = torch.tensor(list(answer), device=device)[slice(*span)]
    places = slice(read + span[0] - 1, read + span[1] - 1)
    ids_T = torch.tensor([*prompt.token_ids, *answer[: span[1] - 1]], device=device)
    shown_T = ids_T == model.config.image_token_id
    shown_T[read:] = False  # an answer's tokens are text, whatever their ids
    positions_BT = torch.arange(len(ids_T), device=device)[None]
    with torch.no_grad():
        words_TD = language.embed(ids_T.masked_fill(shown_T, 0))
    own_ND = torch.cat(list(features)).to(words_TD.dtype)
    mean_ND = torch.cat([part_ND.mean(0, keepdim=True).expand_as(part_ND) for part_ND in features]).to(own_ND.dtype)
    slope_ND = torch.zeros_like(own_ND, dtype=torch.float32)
    for step in range(steps):
        mixed_ND = torch.lerp(mean_ND, own_ND, (step + 0.5) / steps).requires_grad_()
        embeds_TD = words_TD.index_put((shown_T,), mixed_ND)
        hidden_TD = language(embeds_TD[None], positions_BT)[0, places]
        logprobs_TV = language.logits(hidden_TD).float().log_softmax(-1)
        said = logprobs_TV.gather(1, targets[:, None]).sum()
        slope_ND += torch.autograd.grad(said, mixed_ND)[0].float() / steps
    added_N = (slope_ND * (own_ND - mean_ND).float()).sum(-1)
    return list(torch.split(added_N, [len(part_ND) for part_ND in features]))


def differentiable(language: Decoder) -> Decoder:
    """The same decoder with the same weights, none of them copied, that gives gradients of what it reads.

    Weights themselves get none; quantized matrices pass a gradient on as the floats that they stand for.
    """
    memo: dict[int, Any] = {id(x): nn.Parameter(x.detach(), requires_grad=False) for x in language.parameters()}
    memo |= {id(buffer): buffer for buffer in language.buffers()}
    twin = copy.deepcopy(language, memo)
    for owner in list(twin.modules()):
        for name, layer in list(owner.named_children()):
            if isinstance(layer, QuantizedLinear):
                setattr(owner, name, _Bridge(layer))
    return twin


class _Bridge(nn.Module):
    """A quantized layer with a gradient."""

    def __init__(self, layer: QuantizedLinear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _Bridged.apply(x, self.layer)  # type: ignore[no-untyped-call]
        return out


class _Bridged(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantizedLinear) -> Tensor:
        ctx.layer = layer
        out: Tensor = layer(x.detach())
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        return (grad.float() @ ctx.layer.weight.dequantize()).to(grad.dtype), None


def _grid(config: LlavaConfig, added_N: Tensor) -> npt.NDArray[np.float32]:
    """What speaks for the answer, in rows and columns; of a tiled picture the overview, which comes first."""
    assert config.vision is not None
    first = config.features_per_tile - config.vision.num_patches  # a class token has no place in the picture
    patches_N = added_N[first : first + config.vision.num_patches]
    return patches_N.clamp(min=0).view(config.vision.grid, config.vision.grid).cpu().numpy()
