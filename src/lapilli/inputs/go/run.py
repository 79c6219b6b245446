"""Runs a program in Go's text/template, within limits.

Nothing here reaches out of the program: values are plain data made by us, a field is looked up in a map or among the
known fields of a record and never as an attribute of Python's, and functions are a fixed list. Every step and every
character costs from a budget, and depth is bounded, so that no program runs long: a child process is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lapilli.errors import TemplateError
from lapilli.inputs.go.functions import FUNCTIONS
from lapilli.inputs.go.nodes import (
    Action,
    Block,
    Call,
    Choice,
    Command,
    Dot,
    Field,
    Function,
    Jump,
    Literal,
    Node,
    Operand,
    Pipe,
    Range,
    Text,
    Variable,
)
from lapilli.inputs.go.values import Record, Wrong, is_true, kind_of, look_up, write

_DEEPEST = 80


@dataclass
class Budget:
    """What is left to spend: steps, and characters written or made on the way."""

    steps: int = 200_000
    characters: int = 16 << 20
    output: int = 4 << 20


def run(main: Block, defined: Mapping[str, Block], data: Mapping[str, Any], budget: Budget) -> str:
    """Run a block with the templates it may call; `budget` is spent, and may be given to several runs in a row.

    Raises TemplateError, with the line, for what goes wrong and for more than the budget allows.
    """
    runner = _Runner(defined, data, budget)
    try:
        runner.block(main, data)
    except Wrong as error:
        raise TemplateError(f"line {runner.line} of the template: {error}") from None
    except RecursionError:
        raise TemplateError(f"line {runner.line} of the template: it is nested too deep") from None
    return "".join(runner.written)


@dataclass
class _Runner:
    defined: Mapping[str, Block]
    data: Any
    budget: Budget
    written: list[str] = field(default_factory=list)
    variables: list[tuple[str, list[Any]]] = field(default_factory=list)
    line: int = 1
    depth: int = 0

    def __post_init__(self) -> None:
        self.variables = [("$", [self.data])]

    # --- nodes ---

    def block(self, nodes: Block, dot: Any) -> Jump | None:
        """Run nodes one after another; a jump out of the range around them ends them."""
        self.depth += 1
        if self.depth > _DEEPEST:
            raise Wrong(f"it calls itself or is nested deeper than {_DEEPEST} levels")
        scope = len(self.variables)
        jump = None
        for node in nodes:
            jump = self._node(node, dot)
            if jump is not None:
                break
        del self.variables[scope:]
        self.depth -= 1
        return jump

    def _node(self, node: Node, dot: Any) -> Jump | None:
        self._step()
        if isinstance(node, Text):
            self._write(node.text)
        elif isinstance(node, Action):
            value = self._pipe(node.pipe, dot)
            if not node.pipe.declares and not node.pipe.assigns:
                self._write(write(value))
        elif isinstance(node, Choice):
            return self._choice(node, dot)
        elif isinstance(node, Range):
            return self._range(node, dot)
        elif isinstance(node, Call):
            self._call(node, dot)
        else:
            return node
        return None

    def _choice(self, node: Choice, dot: Any) -> Jump | None:
        scope = len(self.variables)
        jump = None
        for pipe, body in node.branches:
            value = self._pipe(pipe, dot)
            if is_true(value):
                jump = self.block(body, value if node.moves_dot else dot)
                break
        else:
            jump = self.block(node.otherwise, dot)
        del self.variables[scope:]
        return jump

    def _range(self, node: Range, dot: Any) -> Jump | None:
        scope = len(self.variables)
        over = self._pipe(node.pipe, dot)
        names = node.pipe.declares or node.pipe.assigns
        ran = False
        jump = None
        for key, value in self._items(over):
            ran = True
            self._step()
            inner = len(self.variables)
            # One variable is the element, two are its place and the element.
            for name, held in zip(names, (key, value) if len(names) == 2 else (value,), strict=False):
                self._variable(name)[0] = held
            jump = self.block(node.body, value)
            del self.variables[inner:]
            if jump is not None and jump.ends:
                break
        if not ran:
            jump = self.block(node.otherwise, dot)
        del self.variables[scope:]
        # As in Go, a break ends this range even from its else, where a continue is for the range around it.
        return jump if not ran and jump is not None and not jump.ends else None

    def _items(self, value: Any) -> Any:
        if value is None:
            return ()
        if isinstance(value, (Record, str, bool, float)):
            raise Wrong(f"range cannot go over {kind_of(value)}")
        if isinstance(value, Mapping):
            self._spend(len(value))
            return ((key, value[key]) for key in sorted(value))
        return enumerate(value if isinstance(value, Sequence) else range(value))

    def _call(self, node: Call, dot: Any) -> None:
        self.line = node.line
        if node.name not in self.defined:
            raise Wrong(f"template {node.name[:40]!r} is not defined")
        given = None if node.pipe is None else self._pipe(node.pipe, dot)
        outer, self.variables = self.variables, [("$", [given])]
        self.block(self.defined[node.name], given)
        self.variables = outer

    # --- pipelines ---

    def _pipe(self, pipe: Pipe, dot: Any) -> Any:
        self.line = pipe.line
        value: Any = None
        for place, command in enumerate(pipe.commands):
            value = self._command(command, dot, (value,) if place else ())
        self.variables += [(name, [value]) for name in pipe.declares]
        for name in pipe.assigns:
            self._variable(name)[0] = value
        return value

    def _command(self, command: Command, dot: Any, piped: tuple[Any, ...]) -> Any:
        self._step()
        self.line = command.line
        first, *rest = command.operands
        if isinstance(first, Function):
            return self._apply(first.name, rest, dot, piped)
        if rest or piped:
            raise Wrong("a value that is no function is given arguments")
        if first == Literal(None):
            raise Wrong("nil is no value by itself")
        return self._operand(first, dot)

    def _apply(self, name: str, operands: Sequence[Operand], dot: Any, piped: tuple[Any, ...]) -> Any:
        function = FUNCTIONS[name]
        count = len(operands) + len(piped)
        if count < function.least or (function.most is not None and count > function.most):
            few = count < function.least
            needed = f"at least {function.least}" if few else f"at most {function.most}"
            raise Wrong(f"{name} is given {count} values, it takes {needed}")
        if name in ("and", "or"):
            return self._first(operands, dot, piped, wanted=name == "or")
        values = [*(self._operand(operand, dot) for operand in operands), *piped]
        # Reading what is long takes time, too.
        self._spend(sum(len(value) for value in values if isinstance(value, (str, Sequence, Mapping))) // 16)
        result = function.run(*values)
        if isinstance(result, str):
            self._spend(len(result))
        return result

    def _first(self, operands: Sequence[Operand], dot: Any, piped: tuple[Any, ...], *, wanted: bool) -> Any:
        """The first value whose truth is as wanted, or the last; what comes after it is never looked at."""
        value: Any = None
        for operand in operands:
            value = self._operand(operand, dot)
            if is_true(value) == wanted:
                return value
        return piped[0] if piped else value

    def _operand(self, operand: Operand, dot: Any) -> Any:
        self._step()
        if isinstance(operand, Literal):
            return operand.value
        if isinstance(operand, Dot):
            return dot
        if isinstance(operand, Field):
            return self._fields(dot, operand.names)
        if isinstance(operand, Variable):
            return self._fields(self._variable(operand.name)[0], operand.fields)
        if isinstance(operand, Function):
            return self._apply(operand.name, (), dot, ())
        self.depth += 1
        if self.depth > _DEEPEST:
            raise Wrong(f"it is nested deeper than {_DEEPEST} levels")
        value = self._fields(self._pipe(operand.pipe, dot), operand.fields)
        self.depth -= 1
        return value

    def _fields(self, value: Any, names: Sequence[str]) -> Any:
        for name in names:
            value = look_up(value, name)
        return value

    # --- variables and limits ---

    def _variable(self, name: str) -> list[Any]:
        return next(held for known, held in reversed(self.variables) if known == name)

    def _step(self) -> None:
        self.budget.steps -= 1
        if self.budget.steps < 0:
            raise Wrong("the program runs too long")

    def _spend(self, characters: int) -> None:
        self.budget.characters -= characters
        if self.budget.characters < 0:
            raise Wrong("the program makes too much text")

    def _write(self, text: str) -> None:
        self.budget.output -= len(text)
        if self.budget.output < 0:
            raise Wrong("the program writes too much")
        self.written.append(text)
