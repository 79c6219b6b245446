"""What was asked, made ready: prompts as in process, and made to fit without a silent loss."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lapilli.engine.ask import Ask
from lapilli.engine.grammar import Constraint
from lapilli.engine.intake import Intake
from lapilli.engine.local import LocalModel
from lapilli.errors import ImageError, InputError, PromptError, TemplateError
from lapilli.inputs.templates import TemplateText


def png(seed: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def user(text: str, *pictures: int) -> dict[str, Any]:
    return {"role": "user", "content": text, "pictures": list(pictures)}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "a dog"}
TALK = (
    user("a cat", 0),
    assistant("a dog"),
    SYSTEM,
    user("is this a cat"),
    assistant("this is a dog"),
    user("what is a cat", 1),
)


@pytest.fixture
def intake(tiny: LocalModel) -> Intake:
    return Intake(tiny.checkpoint, None, None)


def test_a_chat_reads_as_in_process(tiny: LocalModel, intake: Intake) -> None:
    taken = intake.take(Ask(messages=TALK, pictures=(png(0), png(1)), sampling={"seed": 3}))
    given = [{**m, "images": [png(n) for n in m.get("pictures", ())]} for m in TALK]
    expected = tiny.prompt([{k: v for k, v in m.items() if k != "pictures"} for m in given])
    assert taken.prompt.token_ids == expected.token_ids
    assert [image.digest for image in taken.prompt.images] == [image.digest for image in expected.images]
    assert (taken.options.seed, taken.truncated, len(taken.pictures)) == (3, 0, 0)


def test_a_raw_prompt_reads_as_in_process(tiny: LocalModel, intake: Intake) -> None:
    text = "USER: <image>\nwhat is this ASSISTANT:"
    taken = intake.take(Ask(prompt=text, pictures=(png(),)))
    assert taken.prompt.token_ids == tiny.prompts.raw(text, [png()]).token_ids


def length(intake: Intake, *messages: dict[str, Any]) -> int:
    return len(intake.take(Ask(messages=messages, pictures=(png(0), png(1)))).prompt.token_ids)


def test_a_prompt_too_long_is_refused_with_both_counts(intake: Intake) -> None:
    whole = length(intake, *TALK)
    ask = Ask(messages=TALK, pictures=(png(0), png(1)), context=whole)
    with pytest.raises(
        PromptError, match=rf"has {whole} tokens, at most {whole - 1} fit into a context of {whole}: .*trunc"
    ):
        intake.take(ask)
    fits = Ask(messages=TALK, pictures=ask.pictures, context=whole + 1, truncate=True)
    assert intake.take(fits).truncated == 0


def test_truncation_drops_the_oldest_turns_and_says_how_much(intake: Intake) -> None:
    whole, some, last = length(intake, *TALK), length(intake, *TALK[2:]), length(intake, SYSTEM, TALK[-1])
    assert whole > some > last
    seen = set()
    for context in range(last + 1, whole + 1):
        taken = intake.take(
            Ask(messages=TALK, pictures=(png(0), png(1)), context=context, truncate=True, sampling={"max_tokens": 1})
        )
        kept = len(taken.prompt.token_ids)
        assert kept == (some if some < context else last)
        assert taken.truncated == whole - kept
        assert len(taken.prompt.images) == 1, "the picture of the last turn is the one that is left"
        seen.add(kept)
    assert seen == {some, last}


def test_truncation_leaves_room_for_an_answer_where_it_can(intake: Intake) -> None:
    some, last = length(intake, *TALK[2:]), length(intake, SYSTEM, TALK[-1])
    ask = Ask(messages=TALK, pictures=(png(0), png(1)), context=some + 1, truncate=True, sampling={"max_tokens": 8})
    assert len(intake.take(ask).prompt.token_ids) == last


def test_the_last_turn_is_never_cut(intake: Intake) -> None:
    last = length(intake, SYSTEM, TALK[-1])
    with pytest.raises(
        PromptError, match=f"has {last} tokens, at most {last - 1} fit .*: its last turn alone is too long"
    ):
        intake.take(Ask(messages=TALK, pictures=(png(0), png(1)), context=last, truncate=True))


def test_ids_that_come_first(tiny: LocalModel, intake: Intake) -> None:
    first = tiny.prompts.raw("USER: a cat ASSISTANT:").token_ids
    second = tiny.prompt("what is this").token_ids
    begun = second[1:] if second[0] == tiny.tokenizer.bos_id else second
    ask = Ask(messages=(user("what is this"),), before=tuple(first))
    taken = intake.take(ask)
    assert taken.prompt.token_ids == [*first, *begun]
    context = len(begun) + 4
    cut = intake.take(Ask(**{**vars(ask), "context": context, "truncate": True, "sampling": {"max_tokens": 1}}))
    assert cut.prompt.token_ids == [*first, *begun][-(context - 1) :]
    assert cut.truncated == len(first) - 3


@pytest.mark.parametrize(
    ("before", "message"), [((9999,), "9999, token ids go"), ((-1,), "-1"), ((3, 3), "of 2 features")]
)
def test_ids_that_cannot_come_first(intake: Intake, before: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        intake.take(Ask(messages=(user("a"),), before=before))


def test_rendering(intake: Intake) -> None:
    rendered = intake.render(Ask(messages=TALK[-1:], pictures=(b"no picture is looked at", png())))
    assert rendered == "USER: <image>\nwhat is a cat ASSISTANT:"
    assert intake.render(Ask(prompt="as it is")) == "as it is"


JINJA = TemplateText(language="jinja", text="{{ bos_token }}{% for m in messages %}[{{ m.content }}]{% endfor %}")


def test_a_template_of_the_asks_own(tiny: LocalModel, intake: Intake) -> None:
    ask = Ask(messages=(user("a cat"),), template=JINJA)
    assert intake.render(ask) == "<s>[a cat]"
    assert Intake(tiny.checkpoint, JINJA, None).render(Ask(messages=ask.messages)) == "<s>[a cat]"
    assert intake.take(ask).prompt.token_ids[0] == tiny.tokenizer.bos_id


def test_an_answer_is_limited_as_recommended_unless_told(tiny: LocalModel, intake: Intake) -> None:
    assert intake.take(Ask(prompt="a")).options.max_tokens == tiny.checkpoint.generation.max_new_tokens
    assert intake.take(Ask(prompt="a", sampling={"max_tokens": 3})).options.max_tokens == 3


@pytest.mark.parametrize(
    ("ask", "kind", "message"),
    [
        (Ask(), PromptError, "either messages or a prompt"),
        (Ask(messages=(user("a"),), prompt="a"), PromptError, "either messages or a prompt"),
        (Ask(messages=(user("a", 1),), pictures=(b"",)), PromptError, "shows picture 1, 1 pictures were given"),
        (Ask(messages=(user("a", 0),), pictures=(b"GIF",)), ImageError, "."),
        (Ask(messages=(user("a"),), heatmap=True), PromptError, "no picture is shown"),
        (Ask(prompt="a", sampling={"warmth": 1}), InputError, "warmth: no such sampling option"),
        (Ask(prompt="a", sampling={"top_p": 7}), InputError, "top_p is 7"),
        (Ask(prompt="a", constraint=("xml", "")), InputError, "not 'xml'"),
        (Ask(prompt="a", context=0), InputError, "context is 0"),
        (Ask(prompt="a", suffix="b"), PromptError, "no place for a suffix"),
        (Ask(messages=(user("a"),), template=TemplateText(language="jinja", text="{{")), TemplateError, "template"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(intake: Intake, ask: Ask, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        intake.take(ask)


def test_a_text_to_embed(tiny: LocalModel, intake: Intake) -> None:
    prompt, cut = intake.plain("a <image> </s> cat", True, None)
    assert cut == 0
    assert tiny.config.image_token_id not in prompt.token_ids
    assert not tiny.tokenizer.eos_ids & {*prompt.token_ids}
    whole = len(prompt.token_ids)
    shorter, cut = intake.plain("a <image> </s> cat", True, 4)
    assert (shorter.token_ids, cut) == (prompt.token_ids[:4], whole - 4)
    with pytest.raises(InputError, match=f"the input length exceeds the context length: it has {whole} tokens, .* 4"):
        intake.plain("a <image> </s> cat", False, 4)


def test_a_constraint_is_taken_as_it_was_made(intake: Intake) -> None:
    made = Constraint.json_schema({"type": "string", "format": "date", "pattern": "^[\\d-]+$"})
    assert intake.take(Ask(prompt="a", constraint=(made.kind, made.text))).constraint == made
