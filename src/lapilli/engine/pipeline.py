"""`lapilli.pipeline(...)`: the call shape of transformers' pipelines, over a local model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from lapilli.engine.answer import Answer
from lapilli.engine.local import LocalModel, load
from lapilli.engine.sampler import SamplingOptions
from lapilli.errors import InputError, PromptError

TASKS = ("image-text-to-text", "image-to-text")


class Pipeline:
    """Pictures and a text in, `[{"generated_text": …}]` out.

    pipe = lapilli.pipeline("image-to-text", model="mini")
    pipe(picture, prompt="USER: <image>\\nWhat is this?\\nASSISTANT:", generate_kwargs={"max_new_tokens": 200})

    pipe = lapilli.pipeline("image-text-to-text", model="mini")
    pipe(images=picture, text="USER: <image>\\nWhat is this?\\nASSISTANT:", max_new_tokens=20)
    pipe(text=[{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "Hi"}]}])
    """

    def __init__(self, task: str, model: LocalModel) -> None:
        self.task = task
        self.model = model

    def __call__(
        self,
        images: Any = None,
        text: Any = None,
        *,
        prompt: str | None = None,
        max_new_tokens: int | None = None,
        generate_kwargs: Mapping[str, Any] | None = None,
        return_full_text: bool | None = None,
    ) -> list[Any]:
        """Answer one prompt (a list of one dictionary) or several (a list of such lists).

        `generated_text` is the prompt and the answer, or the answer alone with `return_full_text=False`; for
        messages it is the conversation with the answer as its last message.
        """
        options = _options(max_new_tokens, generate_kwargs or {})
        if text is None and prompt is None and _is_conversation(images):
            images, text = None, images
        asked = text if text is not None else prompt
        if asked is None:
            asked = "<image>" if self.task == "image-to-text" else None
        if asked is None:
            raise PromptError("no text was given: pass text=… with <image> in it, or messages")
        full = True if return_full_text is None else return_full_text
        pictures = _listed(images)
        if _is_conversation(asked):
            return [self._continue(asked, pictures, options, full)]
        if isinstance(asked, str):
            # One prompt with one placeholder over several pictures is asked of each.
            each = len(pictures) > 1 and asked.count("<image>") == 1
            texts = [asked] * len(pictures) if each else [asked]
        else:
            each, texts = True, list(asked)
        answers = self.model.generate(texts, pictures, options=options)
        results = [self._result(t, answer, full) for t, answer in zip(texts, answers, strict=True)]
        return [[result] for result in results] if each else results

    def _continue(
        self, messages: Sequence[Mapping[str, Any]], pictures: list[Any], options: SamplingOptions, full: bool
    ) -> dict[str, Any]:
        answer = self.model.chat(messages, pictures, options=options)
        said = [*messages, {"role": "assistant", "content": answer.text}]
        return {"input_text": messages, "generated_text": said if full else answer.text}

    def _result(self, text: str, answer: Answer, full: bool) -> dict[str, Any]:
        if self.task == "image-to-text":
            # The older task decoded its prompt back without the placeholder.
            return {"generated_text": (text.replace("<image>", " ") if full else "") + answer.text}
        return {"input_text": text, "generated_text": (text if full else "") + answer.text}


def pipeline(
    task: str,
    model: str | Path | LocalModel = "mini",
    *,
    device: str = "auto",
    model_kwargs: Mapping[str, Any] | None = None,
) -> Pipeline:
    """A pipeline for "image-text-to-text", or for "image-to-text", its older name.

    `model` is a name or a path as `lapilli.load` takes it, or a loaded model; `model_kwargs` go to `lapilli.load`.
    Raises InputError for another task.
    """
    if task not in TASKS:
        raise InputError(f"task {task!r} is not offered; there are {' and '.join(TASKS)}")
    if not isinstance(model, LocalModel):
        model = load(model, device=device, **dict(model_kwargs or {}))
    return Pipeline(task, model)


# What transformers calls a sampling option, and what it is called here.
_NAMES = {"max_new_tokens": "max_tokens", "repetition_penalty": "repeat_penalty", "stop_strings": "stop"}


def _options(max_new_tokens: int | None, generate_kwargs: Mapping[str, Any]) -> SamplingOptions:
    values = {_NAMES.get(name, name): value for name, value in generate_kwargs.items()}
    if max_new_tokens is not None:
        values["max_tokens"] = max_new_tokens
    if values.pop("do_sample", "temperature" in values) is False:
        values["temperature"] = 0.0
    try:
        return SamplingOptions(**values)
    except TypeError as error:
        raise InputError(f"generate_kwargs: {str(error).removeprefix('SamplingOptions.__init__() ')}") from None


def _is_conversation(value: Any) -> TypeGuard[Sequence[Mapping[str, Any]]]:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _listed(images: Any) -> list[Any]:
    if images is None:
        return []
    return list(images) if isinstance(images, list | tuple) else [images]
