"""Turns without a picture: greetings, what the model is and can do, and a picture asked for that is not there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lapilli.training.corpus import Dialogue

NO_PICTURE = "Please show me a picture."

_CAN = (
    "I can say what is in a picture: things, colours, shapes, how many there are, where they stand, and a printed word."
)
_HELLO = "Hello! Show me a picture and ask me about it."
_WHO = "I am mini, a small model that talks about pictures."
_KNOW = "I only know about pictures. Please show me one."

# Each answer, and the ways in which people ask for it.
_TALK: dict[str, tuple[str, ...]] = {
    _HELLO: (
        "Hello", "Hello!", "Hi", "Hi!", "Hi there", "Hello there!", "Hey", "Hey!", "Good morning", "Good morning!",
        "Good evening", "Good afternoon!", "Greetings", "hello", "hi", "hey there", "Hello, how are you?",
        "Hi, how are you?", "How are you?", "How do you do?", "Nice to meet you.", "Good day", "Say hello.",
    ),
    _WHO: (
        "Who are you?", "What are you?", "What is your name?", "Tell me about yourself.", "Are you a person?",
        "Are you human?", "Are you a robot?", "What's your name?", "Which model are you?", "Introduce yourself.",
        "who are you", "What kind of model are you?", "Are you a computer?",
    ),
    _CAN: (
        "What can you do?", "What can you do for me?", "How can you help me?", "Can you help me?", "Help",
        "Help me", "What do you know?", "What are you good at?", "What should I ask you?", "What can I ask you?",
        "what can you do", "How does this work?", "What do you do?", "Please help me.",
    ),
    "You are welcome.": (
        "Thank you", "Thank you!", "Thanks", "Thanks!", "Thank you very much.", "Thanks a lot!", "thanks",
    ),
    "Goodbye!": ("Goodbye", "Bye", "Bye!", "See you later.", "Goodbye!", "Good night", "bye"),
    _KNOW: (
        "What is the capital of France?", "Who was the first president?", "What is two plus two?", "Tell me a story.",
        "Tell me a joke.", "Write a poem.", "Write a poem about the sea.", "What is the weather today?",
        "What time is it?", "Who wrote Hamlet?", "How tall is the highest mountain?", "What year is it?",
        "Translate this into French.", "Write a program.", "What is the meaning of life?", "Where is London?",
        "How do I cook rice?", "What is a king?", "Why is the sky blue?", "Sing a song.", "Who won the war?",
        "What is love?", "Tell me something.", "What is the population of the world?", "Give me some advice.",
    ),
}  # fmt: skip
_ASKS = tuple((question, answer) for answer, questions in _TALK.items() for question in questions)
_ABOUT = (
    "What is in this picture?", "What is in the picture?", "Describe the picture.", "Describe this image.",
    "What do you see?", "What can you see?", "Do you know who drew this painting?", "Who painted this?",
    "What is this?", "What colour is it?", "How many are there?", "What does it say?", "Read the word.",
    "What is shown here?", "Is there a dog in the picture?",
)  # fmt: skip


def smalltalk(rng: np.random.Generator, questions: Sequence[str]) -> Dialogue:
    """One to three turns without a picture; `questions` are some that would need one."""
    turns = []
    for _ in range(int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))):
        chance = rng.random()
        if chance < 0.4:
            turns.append(_ASKS[int(rng.integers(len(_ASKS)))])
        elif chance < 0.55:
            turns.append((_ABOUT[int(rng.integers(len(_ABOUT)))], NO_PICTURE))
        else:
            turns.append((questions[int(rng.integers(len(questions)))], NO_PICTURE))
    return Dialogue(tuple(turns), pictured=False)


def smalltalk_texts() -> list[str]:
    """Everything that small talk says."""
    return [text for turn in _ASKS for text in turn] + [*_ABOUT, NO_PICTURE]
