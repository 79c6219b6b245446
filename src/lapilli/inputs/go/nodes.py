"""What a program in Go's text/template is made of; see https://pkg.go.dev/text/template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

# --- operands: what stands between blanks within an action ---


@dataclass(frozen=True)
class Literal:
    value: str | int | float | bool | None


@dataclass(frozen=True)
class Dot:
    """`.`"""


@dataclass(frozen=True)
class Field:
    """`.A.B`"""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Variable:
    """`$x.A.B`; `$` alone is the data that the program was given."""

    name: str
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Function:
    name: str


@dataclass(frozen=True)
class Chain:
    """`(pipeline).A.B`"""

    pipe: Pipe
    fields: tuple[str, ...] = ()


Operand: TypeAlias = Literal | Dot | Field | Variable | Function | Chain


@dataclass(frozen=True)
class Command:
    line: int
    operands: tuple[Operand, ...]


@dataclass(frozen=True)
class Pipe:
    """Commands, each given the result of the one before; `declares` and `assigns` name variables for the last."""

    line: int
    commands: tuple[Command, ...]
    declares: tuple[str, ...] = ()
    assigns: tuple[str, ...] = ()


# --- nodes: what stands one after another ---


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Action:
    """`{{ pipeline }}`"""

    pipe: Pipe


@dataclass(frozen=True)
class Choice:
    """`{{ if }}` or `{{ with }}`: the block of the first pipeline that is true, which `with` makes the dot."""

    branches: tuple[tuple[Pipe, Block], ...]
    otherwise: Block
    moves_dot: bool


@dataclass(frozen=True)
class Range:
    pipe: Pipe
    body: Block
    otherwise: Block


@dataclass(frozen=True)
class Call:
    """`{{ template "name" pipeline }}`"""

    line: int
    name: str
    pipe: Pipe | None


@dataclass(frozen=True)
class Jump:
    """`{{ break }}` or `{{ continue }}`"""

    ends: bool


Node: TypeAlias = Text | Action | Choice | Range | Call | Jump
Block: TypeAlias = tuple[Node, ...]


@dataclass(frozen=True)
class Program:
    """A template that was read: its own nodes, the templates it defines, and every name it looks up, in lower case."""

    main: Block
    defined: Mapping[str, Block]
    names: frozenset[str]


# --- looking into programs ---


def children(node: Node) -> Iterator[Block]:
    """The blocks within a node, in the order of the text."""
    if isinstance(node, Choice):
        yield from (block for _, block in node.branches)
        yield node.otherwise
    elif isinstance(node, Range):
        yield node.body
        yield node.otherwise


def pipes(node: Node) -> Iterator[Pipe]:
    """The pipelines of a node itself."""
    if isinstance(node, (Action, Range)):
        yield node.pipe
    elif isinstance(node, Choice):
        yield from (pipe for pipe, _ in node.branches)
    elif isinstance(node, Call) and node.pipe is not None:
        yield node.pipe


def names_in(pipe: Pipe) -> Iterator[str]:
    """The fields that a pipeline looks up."""
    for command in pipe.commands:
        for operand in command.operands:
            if isinstance(operand, Field):
                yield from operand.names
            elif isinstance(operand, Variable):
                yield from operand.fields
            elif isinstance(operand, Chain):
                yield from names_in(operand.pipe)
                yield from operand.fields


def names_below(block: Block) -> Iterator[str]:
    """The fields that a block looks up, at any depth."""
    for node in block:
        for pipe in pipes(node):
            yield from names_in(pipe)
        for inner in children(node):
            yield from names_below(inner)


def cut_after(block: Block, name: str) -> tuple[Block, bool]:
    """The block up to and with the first action that writes the field `name`, and whether there is one."""
    kept: list[Node] = []
    for node in block:
        if isinstance(node, Action) and name in names_in(node.pipe):
            return (*kept, node), True
        found = False
        if isinstance(node, Choice):
            branches = []
            for pipe, inner in node.branches:
                inner, found = ((), True) if found else cut_after(inner, name)
                branches.append((pipe, inner))
            otherwise, found = ((), True) if found else cut_after(node.otherwise, name)
            node = replace(node, branches=tuple(branches), otherwise=otherwise)
        elif isinstance(node, Range):
            body, found = cut_after(node.body, name)
            otherwise, found = ((), True) if found else cut_after(node.otherwise, name)
            node = replace(node, body=body, otherwise=otherwise)
        kept.append(node)
        if found:
            return tuple(kept), True
    return tuple(kept), False
