"""Passages about invented people, places and things, and questions about what they tell and what they do not.

Every fact has several wordings, and so has every question; an answer is a span of the passage, as it stands there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lapilli.training.cloze import NOT_THERE, asked
from lapilli.training.invented import Split, firm, listed, person, pick, place

Value = Callable[[np.random.Generator, Split], str]


def _words(text: str) -> Value:
    items = [item.strip() for item in text.split(",")]
    return lambda rng, split: pick(rng, items)


def _year(rng: np.random.Generator, split: Split) -> str:
    return str(int(rng.integers(1450, 2024)))


_MONTHS = listed("January February March April May June July August September October November December")


def _date(rng: np.random.Generator, split: Split) -> str:
    day = int(rng.integers(1, 29))
    return f"{day} {pick(rng, _MONTHS)}" if rng.random() < 0.5 else f"{pick(rng, _MONTHS)} {day}"


def _amount(units: str, least: int, most: int) -> Value:
    names = units.split("|")

    def value(rng: np.random.Generator, split: Split) -> str:
        number = int(np.exp(rng.uniform(np.log(least), np.log(most))))
        return f"{number:,} {pick(rng, names)}".strip()

    return value


def _list(value: Value) -> Value:
    return lambda rng, split: f"{value(rng, split)} and {value(rng, split)}"


_JOB = _words(
    "painter, engineer, physician, botanist, composer, lawyer, carpenter, astronomer, baker, poet, sailor, teacher, "
    "weaver, historian, chemist, architect, pilot, farmer, judge, sculptor, nurse, printer, geologist, singer"
)
_THING = _words(
    "a water pump, the silent clock, a folding bridge, a seed drill, an ink that never fades, a steam plough, "
    "a paper lamp, a wind organ, a new kind of glass, a map of the southern stars, a cure for river fever, "
    "a loom for silk, a cheap compass, the double lens, a book on mosses, a theory of tides, a copper alloy"
)
_STUFF = _words(
    "granite, oak, red brick, limestone, iron, marble, cedar, copper, slate, sandstone, glass, concrete, bronze, clay"
)
_GOODS = _words(
    "wool, salt, timber, wheat, copper, silk, olive oil, glass, fish, coffee, tea, machine parts, paper, cheese, "
    "ships, cement, cotton, bicycles, wine, sugar, leather shoes, rubber, ceramic tiles, clocks"
)
_COLOUR = _words("red, blue, dark green, white, yellow, black, purple, orange, grey, pale pink, silver, brown")
_ANIMAL = _words("beetles, mice, small fish, worms, frogs, berries, seeds, moths, roots, snails, leaves, ants, nectar")
_HABITAT = _words(
    "dry grassland, pine forests, river banks, salt marshes, high mountains, caves, mangrove swamps, tundra, deserts, "
    "coral reefs, old walls, peat bogs"
)
_REASON = _words(
    "heavy rain, a lack of money, a strike, a fire in the roof, an outbreak of fever, the war, a broken axle, "
    "bad weather, a dispute over land, an earthquake, low demand, a lost letter"
)
_LANGUAGE = _words("Latin, Greek, French, Dutch, Persian, Finnish, Welsh, Arabic, Portuguese, Malay, Polish, Czech")
_FOOD = _words(
    "lentil soup, smoked eel, rye bread, plum cake, goat cheese, fried dough, honey wine, barley beer, pickled herring"
)


@dataclass(frozen=True)
class Fact:
    """One thing that can be told: wordings with {n} for the name and {v} for the value, and questions with {n}."""

    value: Value
    told: Sequence[str]
    questions: Sequence[str]


_PERSON = (
    Fact(
        _year,
        ("{n} was born in {v}.", "Born in {v}, {n} grew up in a large family.", "In {v}, {n} was born."),
        (
            "When was {n} born?",
            "In what year was {n} born?",
            "What is the birth year of {n}?",
            "{n} was born in which year?",
        ),
    ),
    Fact(
        place,
        ("{n} came from {v}.", "{n} was a native of {v}.", "The home town of {n} was {v}.", "{n} grew up in {v}."),
        (
            "Where did {n} come from?",
            "What was the home town of {n}?",
            "Where did {n} grow up?",
            "Which town was {n} from?",
        ),
    ),
    Fact(
        _JOB,
        (
            "{n} worked as a {v}.",
            "{n} was a well-known {v}.",
            "By trade, {n} was a {v}.",
            "For many years {n} earned a living as a {v}.",
        ),
        (
            "What was the profession of {n}?",
            "What did {n} work as?",
            "What was {n}'s job?",
            "How did {n} earn a living?",
        ),
    ),
    Fact(
        _THING,
        ("{n} invented {v}.", "{n} became famous for {v}.", "The best work of {n} is {v}.", "It was {n} who made {v}."),
        ("What did {n} invent?", "What is {n} famous for?", "What did {n} make?", "What was the best work of {n}?"),
    ),
    Fact(
        person,
        ("{n} married {v}.", "{n} and {v} were married for thirty years.", "The wife of {n} was {v}."),
        (
            "Whom did {n} marry?",
            "Who was married to {n}?",
            "Who was the wife of {n}?",
            "What was the name of {n}'s wife?",
        ),
    ),
    Fact(
        _year,
        ("{n} died in {v}.", "In {v}, {n} died of a fever.", "{n} passed away in {v}."),
        ("When did {n} die?", "In what year did {n} die?", "What year did {n} pass away?"),
    ),
    Fact(
        person,
        ("{n} was a pupil of {v}.", "{v} taught {n} to draw.", "{n} learnt everything from {v}."),
        ("Who taught {n}?", "Who was the teacher of {n}?", "From whom did {n} learn?"),
    ),
    Fact(
        _LANGUAGE,
        ("{n} spoke {v} at home.", "The letters of {n} are written in {v}.", "{n} wrote only in {v}."),
        ("Which language did {n} use?", "What language did {n} write in?", "In which language did {n} write?"),
    ),
)
_PLACE = (
    Fact(
        _amount("people|inhabitants|residents", 300, 4_000_000),
        ("{n} has {v}.", "{n} is home to {v}.", "About {v} live in {n}."),
        ("How many people live in {n}?", "What is the population of {n}?", "How many inhabitants does {n} have?"),
    ),
    Fact(
        person,
        ("{n} was founded by {v}.", "{v} founded {n}.", "The founder of {n} was {v}."),
        ("Who founded {n}?", "Who was the founder of {n}?", "By whom was {n} founded?"),
    ),
    Fact(
        _year,
        ("{n} was founded in {v}.", "The town of {n} dates from {v}.", "{n} became a city in {v}."),
        ("When was {n} founded?", "In what year was {n} founded?", "Since when has {n} been there?"),
    ),
    Fact(
        _GOODS,
        (
            "{n} is known for its {v}.",
            "The main product of {n} is {v}.",
            "Most of the {v} in the region comes from {n}.",
            "{n} sells {v} to its neighbours.",
        ),
        ("What is {n} known for?", "What is the main product of {n}?", "What does {n} sell?", "What does {n} produce?"),
    ),
    Fact(
        place,
        ("{n} lies on the river {v}.", "The river {v} flows through {n}.", "{n} stands where the {v} meets the sea."),
        ("Which river flows through {n}?", "On which river does {n} lie?", "What river is {n} on?"),
    ),
    Fact(
        person,
        ("The mayor of {n} is {v}.", "{v} has been mayor of {n} since spring.", "{n} is led by {v}."),
        ("Who is the mayor of {n}?", "Who leads {n}?", "What is the name of the mayor of {n}?"),
    ),
    Fact(
        _FOOD,
        ("Visitors to {n} like the {v}.", "The favourite dish in {n} is {v}.", "In {n} people eat {v} on holidays."),
        ("What do people eat in {n}?", "What is the favourite dish in {n}?", "Which food is liked in {n}?"),
    ),
    Fact(
        _date,
        (
            "The market in {n} opens on {v}.",
            "{n} celebrates its festival on {v}.",
            "Every year on {v} there is a parade in {n}.",
        ),
        ("When is the festival in {n}?", "On what day does {n} celebrate?", "On which date is there a feast in {n}?"),
    ),
)
_FIRM = (
    Fact(
        person,
        ("{n} was started by {v}.", "{v} set up {n}.", "The founder of {n} is {v}."),
        ("Who started {n}?", "Who set up {n}?", "Who is the founder of {n}?", "Who founded {n}?"),
    ),
    Fact(
        _GOODS,
        ("{n} makes {v}.", "{n} is a maker of {v}.", "The company {n} sells {v}."),
        ("What does {n} make?", "What does {n} sell?", "What is made by {n}?", "What are the products of {n}?"),
    ),
    Fact(
        place,
        ("{n} has its head office in {v}.", "The head office of {n} is in {v}.", "{n} is based in {v}."),
        ("Where is {n} based?", "Where is the head office of {n}?", "In which town does {n} have its head office?"),
    ),
    Fact(
        _amount("workers|people|staff", 5, 90_000),
        ("{n} employs {v}.", "{v} work for {n}.", "{n} has {v} on its payroll."),
        ("How many people does {n} employ?", "How many people work for {n}?", "How large is the staff of {n}?"),
    ),
    Fact(
        _amount("million dollars|million euros|billion dollars", 2, 900),
        ("{n} earned {v} last year.", "Last year {n} had sales of {v}.", "The sales of {n} reached {v}."),
        ("How much did {n} earn?", "What were the sales of {n}?", "How much did {n} sell?"),
    ),
    Fact(
        firm,
        ("{n} was bought by {v}.", "{v} bought {n}.", "{n} now belongs to {v}."),
        ("Who bought {n}?", "Which company bought {n}?", "To whom does {n} belong?"),
    ),
    Fact(
        _REASON,
        (
            "{n} closed its plant because of {v}.",
            "Owing to {v}, {n} stopped work in May.",
            "Work at {n} stopped because of {v}.",
        ),
        ("Why did {n} close its plant?", "Why did work at {n} stop?", "What was the reason that {n} stopped work?"),
    ),
)
_BUILDING = (
    Fact(
        person,
        ("{n} was designed by {v}.", "The architect of {n} was {v}.", "{v} drew the plans for {n}."),
        ("Who designed {n}?", "Who was the architect of {n}?", "Who drew the plans for {n}?"),
    ),
    Fact(
        _year,
        ("{n} was built in {v}.", "{n} was finished in {v}.", "Work on {n} ended in {v}."),
        ("When was {n} built?", "In what year was {n} finished?", "When did work on {n} end?"),
    ),
    Fact(
        _STUFF,
        ("{n} is made of {v}.", "The walls of {n} are of {v}.", "{v} was used for {n}."),
        ("What is {n} made of?", "What are the walls of {n} made of?", "Which material was used for {n}?"),
    ),
    Fact(
        _amount("metres|feet", 8, 400),
        ("{n} is {v} high.", "{n} rises {v} above the street.", "The height of {n} is {v}."),
        ("How high is {n}?", "How tall is {n}?", "What is the height of {n}?"),
    ),
    Fact(
        _amount("dollars|crowns|pounds|gold coins", 900, 9_000_000),
        ("{n} cost {v}.", "The price of {n} was {v}.", "{v} were spent on {n}."),
        ("How much did {n} cost?", "What was the price of {n}?", "How much was spent on {n}?"),
    ),
    Fact(
        _REASON,
        (
            "{n} was closed because of {v}.",
            "{n} had to be rebuilt after {v}.",
            "The opening of {n} was delayed by {v}.",
        ),
        ("Why was {n} closed?", "What delayed {n}?", "What happened to {n}?"),
    ),
    Fact(
        _COLOUR,
        ("The roof of {n} is {v}.", "{n} has a {v} roof.", "{n} was painted {v}."),
        ("What colour is {n}?", "Which colour is the roof of {n}?", "What is the colour of {n}?"),
    ),
)
_ANIMALS = (
    Fact(_HABITAT, ("The {n} lives in {v}.", "The {n} is found in {v}.", "The home of the {n} is {v}."),
         ("Where does the {n} live?", "Where is the {n} found?", "What is the habitat of the {n}?")),
    Fact(_ANIMAL, ("The {n} eats {v}.", "The {n} feeds on {v}.", "{v} are the food of the {n}."),
         ("What does the {n} eat?", "What is the food of the {n}?", "What does the {n} feed on?")),
    Fact(_amount("grams|kilograms|pounds", 3, 700),
         ("A grown {n} weighs {v}.", "The weight of a {n} is {v}.", "A {n} can reach {v}."),
         ("How much does a {n} weigh?", "How heavy is a {n}?", "What is the weight of a {n}?")),
    Fact(_COLOUR, ("The {n} is {v}.", "The {n} has {v} fur.", "The back of the {n} is {v}."),
         ("What colour is the {n}?", "What is the colour of the {n}?")),
    Fact(_amount("years|months|days", 2, 80),
         ("A {n} lives for {v}.", "The {n} can live {v}.", "The life of a {n} lasts {v}."),
         ("How long does a {n} live?", "How old can a {n} become?")),
    Fact(person, ("The {n} was first described by {v}.", "{v} discovered the {n}.", "The {n} is named after {v}."),
         ("Who discovered the {n}?", "Who first described the {n}?", "After whom is the {n} named?")),
    Fact(_list(_COLOUR), ("The eggs of the {n} are {v}.", "The {n} lays {v} eggs."),
         ("What colour are the eggs of the {n}?",)),
)  # fmt: skip


def _building(rng: np.random.Generator, split: Split) -> str:
    kind = pick(rng, ("Tower", "Bridge", "Library", "Theatre", "Castle", "Hall", "Museum", "Station", "Lighthouse"))
    return f"the {place(rng, split)} {kind}"


def _animal(rng: np.random.Generator, split: Split) -> str:
    return f"{place(rng, split)} {pick(rng, ('owl', 'fox', 'lizard', 'bat', 'finch', 'toad', 'shrew', 'crab', 'hare'))}"


_KINDS: tuple[tuple[Value, Sequence[Fact]], ...] = (
    (person, _PERSON), (place, _PLACE), (firm, _FIRM), (_building, _BUILDING), (_animal, _ANIMALS),
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A passage, a question about it, and its answer: a span of the passage, or that it is not there."""

    passage: str
    question: str
    answer: str


@dataclass(frozen=True)
class MadePassages:
    """Passages of one share of names; `filler` are sentences that tell nothing about them."""

    split: Split = "train"
    filler: Sequence[str] = ()
    absent: float = 0.15

    def __call__(self, rng: np.random.Generator) -> Asked:
        """One passage with one question; the share `absent` asks what is not told."""
        things = [self._thing(rng) for _ in range(int(rng.integers(1, 4)))]
        lines: list[str] = []
        told: list[tuple[str, Fact, str]] = []
        untold: list[tuple[str, Fact]] = []
        for name, facts in things:
            order = rng.permutation(len(facts))
            count = int(rng.integers(2, 5)) if len(things) > 1 else int(rng.integers(3, 7))
            for number, fact in enumerate(facts[int(i)] for i in order):
                if number < count:
                    value = fact.value(rng, self.split)
                    lines.append(_capital(pick(rng, fact.told).format(n=name, v=value)))
                    told.append((name, fact, value))
                else:
                    untold.append((name, fact))
        if self.filler and rng.random() < 0.4:
            lines.insert(int(rng.integers(len(lines) + 1)), pick(rng, self.filler))
        if rng.random() < 0.4:
            lines = [lines[int(i)] for i in rng.permutation(len(lines))]
        else:
            lines = _referring(lines, [name for name, _ in things], rng)
        passage = " ".join(lines)
        if untold and rng.random() < self.absent:
            name, fact = pick(rng, untold)
            answer = NOT_THERE
        else:
            name, fact, answer = pick(rng, told)
            if answer not in passage:
                answer = _capital(answer)
        return Asked(passage, _capital(pick(rng, fact.questions).format(n=name)), answer)

    def _thing(self, rng: np.random.Generator) -> tuple[str, Sequence[Fact]]:
        name, facts = pick(rng, _KINDS)
        return name(rng, self.split), facts


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


@dataclass(frozen=True)
class PassageQuestions:
    """The same as turns of a conversation: what is asked, and what is to be said."""

    made: MadePassages

    def __call__(self, rng: np.random.Generator) -> tuple[str, str]:
        one = self.made(rng)
        return asked(one.passage, one.question, rng), one.answer


def _referring(lines: Sequence[str], names: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Some lines with a pronoun for the name with which the line before them began, too."""
    words = {name: pick(rng, ("He", "She")) if name[0].isupper() and " " in name else "It" for name in names}
    found, last = [], ""
    for line in lines:
        name = next((each for each in names if line.startswith(_capital(each))), "")
        swap = name and name == last and rng.random() < 0.5
        found.append(words[name] + line[len(name) :] if swap else line)
        last = name
    return found
