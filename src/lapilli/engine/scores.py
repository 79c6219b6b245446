"""What a model thinks of texts it is given, and what it makes of texts and pictures: scores and embeddings.

    prompt, answers = answers_after(builder, conversation(question, [picture]), ["A cat.", "A dog."])
    best = max(rank(model, prompt, answers), key=lambda scored: scored.mean)

A prompt is read by itself, so nothing here depends on what else is asked. Shapes: T tokens, V vocabulary, N features,
D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lapilli.engine.answer import TokenScore
from lapilli.errors import PromptError
from lapilli.inputs.chat import Message, TextPart
from lapilli.inputs.processor import ImageInput
from lapilli.inputs.prompt import Prompt, PromptBuilder
from lapilli.model.cache import KVCache
from lapilli.model.llava import Llava


@dataclass(frozen=True)
class Scored:
    """A given answer and its log-probability after a prompt, token by token; `sum` is the whole answer's."""

    tokens: tuple[TokenScore, ...]

    @property
    def sum(self) -> float:
        return sum(token.logprob for token in self.tokens)

    @property
    def mean(self) -> float:
        """Per token: comparable between answers of different lengths."""
        return self.sum / len(self.tokens)


def answers_after(
    builder: PromptBuilder, messages: Sequence[Message], texts: Sequence[str]
) -> tuple[Prompt, list[list[int]]]:
    """The prompt of a conversation, and each text as the tokens with which its next turn says it and ends.

    The prompt is what all have in common before the answers begin. Raises PromptError as `PromptBuilder.chat`, and
    where no answer, or an empty one, is given.
    """
    if not texts or not all(text.strip() for text in texts):
        raise PromptError(f"{len(texts)} answers were given: give one or more, none of them empty")
    wholes = [
        builder.chat([*messages, Message("assistant", (TextPart(text),))], add_generation_prompt=False)
        for text in texts
    ]
    begin = min(whole.spans[-1][0] for whole in wholes)
    first = wholes[0].token_ids
    while any(whole.token_ids[:begin] != first[:begin] for whole in wholes):
        begin -= 1
    return Prompt(first[:begin], wholes[0].images), [whole.token_ids[begin : whole.spans[-1][1]] for whole in wholes]


def token_logprobs(
    model: Llava,
    prompt: Prompt,
    answer: Sequence[int],
    *,
    top: int = 0,
    features: Sequence[Tensor] | None = None,
) -> list[TokenScore]:
    """The log-probability of each token of an answer, and the `top` likeliest at its place.

    `features` (N, D) are those of the prompt's pictures, where they are known. Raises PromptError where the answer is
    empty, or too long for the model's context.
    """
    (scored,) = rank(model, prompt, [answer], top=top, features=features)
    return list(scored.tokens)


@torch.inference_mode()
def rank(
    model: Llava,
    prompt: Prompt,
    answers: Sequence[Sequence[int]],
    *,
    top: int = 0,
    features: Sequence[Tensor] | None = None,
) -> list[Scored]:
    """How likely each of these answers is, in the order given; the prompt is read once for all.

    Parameters and errors as in `token_logprobs`.
    """
    _check(model, prompt, answers)
    read = len(prompt.token_ids)
    longest = max((len(answer) for answer in answers), default=0)
    cache = KVCache(model.config.text, 1, read + longest, dtype=model.dtype, device=model.device)
    hidden_TD = _read(model, prompt, features, cache)
    first_V = model.logits(hidden_TD[-1:])[0]
    ranked = []
    for answer in answers:
        cache.length = read  # what another answer left behind is written over
        scores_TV = first_V[None]
        if len(answer) > 1:
            # Not `embed`: an answer's tokens are text, whatever their ids.
            ids_T = torch.tensor(list(answer[:-1]), device=model.device)
            positions_T = torch.arange(read, read + len(ids_T), device=model.device)
            hidden_TD = model(model.language.embed(ids_T)[None], positions_T[None], cache)[0]
            scores_TV = torch.cat((scores_TV, model.logits(hidden_TD)))
        pairs = zip(scores_TV, answer, strict=True)
        ranked.append(Scored(tuple(TokenScore.of(scores_V, token, top) for scores_V, token in pairs)))
    return ranked


@torch.inference_mode()
def embed(model: Llava, prompt: Prompt, *, features: Sequence[Tensor] | None = None) -> Tensor:
    """One vector (D) of length 1 for a text, pictures, or both: the mean of the decoder's last hidden states.

    All tokens count but the first: it sees nothing, so it says nothing. A picture alone is the raw prompt `<image>`,
    and lies in the same space as texts. Float32, on the CPU. Raises PromptError as `token_logprobs`.
    """
    _check(model, prompt, ())
    hidden_TD = _read(model, prompt, features, None).float()
    return F.normalize(hidden_TD[min(1, len(hidden_TD) - 1) :].mean(0), dim=0).cpu()


@torch.inference_mode()
def embed_image(model: Llava, image: ImageInput) -> Tensor:
    """One vector of length 1 for a picture alone: the mean of the tower's features, before the projector.

    The decoder is not asked, so this is the cheap way to compare pictures with pictures; the width is the tower's.
    LLaVA-NeXT's tiles all count, the overview among them. Float32, on the CPU.
    """
    tiles_TND = model.see(torch.from_numpy(image.pixels_TCHW).to(model.device, model.dtype))
    return F.normalize(tiles_TND.float().mean((0, 1)), dim=0).cpu()


def _read(model: Llava, prompt: Prompt, features: Sequence[Tensor] | None, cache: KVCache | None) -> Tensor:
    """The hidden states (T, D) of a prompt, kept in the cache where there is one."""
    if features is None:
        features = model.encode_images(
            [(torch.from_numpy(image.pixels_TCHW), (image.height, image.width)) for image in prompt.images]
        )
    ids_T = torch.tensor(prompt.token_ids, device=model.device)
    positions_T = torch.arange(len(ids_T), device=model.device)
    hidden_BTD: Tensor = model(model.embed(ids_T[None], features), positions_T[None], cache)
    return hidden_BTD[0]


def _check(model: Llava, prompt: Prompt, answers: Sequence[Sequence[int]]) -> None:
    context, length = model.config.text.max_positions, len(prompt.token_ids)
    if length == 0:
        raise PromptError("the prompt is empty: ask something")
    if any(not answer for answer in answers):
        raise PromptError(f"{sum(not answer for answer in answers)} of {len(answers)} answers have no token")
    longest = max((len(answer) for answer in answers), default=0)
    if length + longest > context:
        raise PromptError(
            f"the prompt has {length} tokens and the longest answer {longest}, "
            f"this model reads at most {context} together: shorten them"
        )
