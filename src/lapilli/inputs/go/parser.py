"""Reads a program in Go's text/template; every fault is named with its line, as Go does when it parses."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

from lapilli.errors import TemplateError
from lapilli.inputs.go.functions import FUNCTIONS
from lapilli.inputs.go.lexer import Token, unquote, words
from lapilli.inputs.go.nodes import (
    Action,
    Block,
    Call,
    Chain,
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
    Program,
    Range,
    Text,
    Variable,
    names_below,
)

MAX_SOURCE = 1 << 18
_DEEPEST = 50
_MOST_VARIABLES = 500
# What cannot begin a value.
_ENDS = frozenset({"|", ")", "=", ":=", ","})


@functools.lru_cache(maxsize=32)
def parse(source: str) -> Program:
    """Read a program.

    Raises TemplateError for one that is too large, nested too deep, or wrong, with the line of the fault.
    """
    if len(source) > MAX_SOURCE:
        raise TemplateError(f"the chat template has {len(source)} characters, {MAX_SOURCE} are allowed")
    return _Parser(words(source)).program()


class _Parser:
    def __init__(self, tokens: Iterator[Token]) -> None:
        self._tokens = list(tokens)
        self._at = 0
        self._variables = ["$"]
        self._defined: dict[str, Block] = {}
        self._depth = 0
        self._loops = 0

    def program(self) -> Program:
        main, _ = self._block(within="")
        blocks = [main, *self._defined.values()]
        names = frozenset(name.lower() for block in blocks for name in names_below(block))
        return Program(main, self._defined, names)

    # --- tokens ---

    @property
    def _line(self) -> int:
        token = self._tokens[min(self._at, len(self._tokens) - 1)] if self._tokens else None
        return token.line if token else 1

    def _fail(self, what: str, line: int | None = None) -> TemplateError:
        return TemplateError(f"line {self._line if line is None else line} of the template: {what}")

    def _peek(self) -> Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _next(self) -> Token:
        token = self._peek()
        if token is None:
            raise self._fail("it ends too early")
        self._at += 1
        return token

    def _skip_blank(self) -> bool:
        blank = (token := self._peek()) is not None and token.kind == "blank"
        self._at += blank
        return blank

    def _expect(self, kind: str, what: str) -> Token:
        self._skip_blank()
        token = self._next()
        if token.kind != kind:
            raise self._fail(f"{what} is needed, there is {token.text[:20]!r}", token.line)
        return token

    def _is_sign(self, *signs: str) -> bool:
        token = self._peek()
        return token is not None and token.kind == "sign" and token.text in signs

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._fail(f"it is nested deeper than {_DEEPEST} levels")

    # --- blocks ---

    def _block(self, *, within: str) -> tuple[Block, Token | None]:
        """Nodes up to the `end` or `else` of the block they are `within`, which is returned with them."""
        self._deeper()
        nodes: list[Node] = []
        scope = len(self._variables)
        while (token := self._peek()) is not None:
            self._at += 1
            if token.kind == "text":
                nodes.append(Text(token.text))
                continue
            self._skip_blank()
            word = self._peek()
            keyword = word.text if word is not None and word.kind == "name" else ""
            if keyword in ("end", "else"):
                if not within:
                    raise self._fail(f"{keyword} without a block to belong to")
                self._at += 1
                break
            node = self._node(keyword, token.line, within)
            if node is not None:
                nodes.append(node)
        else:
            if within:
                raise self._fail(f"{{{{ {within} }}}} has no {{{{ end }}}}")
            word = None
        del self._variables[scope:]
        self._depth -= 1
        return tuple(nodes), word

    def _node(self, keyword: str, line: int, within: str) -> Node | None:
        reader = {
            "if": self._choice,
            "with": self._choice,
            "range": self._range,
            "template": self._call,
            "define": self._define,
            "block": self._inline,
            "break": self._jump,
            "continue": self._jump,
        }.get(keyword)
        if reader is None:
            pipe = self._pipe("close")
            if not pipe.commands:
                raise self._fail("an action without a value", line)
            return Action(pipe)
        self._at += 1
        if keyword == "define" and within:
            raise self._fail("define stands at the outermost level only", line)
        return reader(keyword, line)

    def _choice(self, keyword: str, line: int) -> Node:
        scope = len(self._variables)
        branches: list[tuple[Pipe, Block]] = []
        otherwise: Block = ()
        while True:
            pipe = self._control(keyword)
            body, closing = self._block(within=keyword)
            branches.append((pipe, body))
            assert closing is not None
            if closing.text == "end":
                self._expect("close", "}}")
                break
            self._skip_blank()
            again = self._peek()
            if again is not None and again.kind == "name" and again.text in ("if", "with"):
                self._at += 1
                if again.text != keyword:
                    # Another kind of choice within the else: it takes the rest, and the end.
                    otherwise = (self._choice(again.text, again.line),)
                    break
                continue
            otherwise = self._rest(keyword)
            break
        del self._variables[scope:]
        return Choice(tuple(branches), otherwise, keyword == "with")

    def _rest(self, keyword: str) -> Block:
        """What stands after `else`, up to `end`."""
        self._expect("close", "}}")
        body, closing = self._block(within=keyword)
        if closing is None or closing.text != "end":
            raise self._fail("an else after the last else")
        self._expect("close", "}}")
        return body

    def _range(self, keyword: str, line: int) -> Node:
        scope = len(self._variables)
        pipe = self._control(keyword)
        self._loops += 1
        body, closing = self._block(within=keyword)
        self._loops -= 1
        assert closing is not None
        otherwise: Block = ()
        if closing.text == "else":
            otherwise = self._rest(keyword)
        else:
            self._expect("close", "}}")
        del self._variables[scope:]
        return Range(pipe, body, otherwise)

    def _jump(self, keyword: str, line: int) -> Node:
        if not self._loops:
            raise self._fail(f"{keyword} outside of a range", line)
        self._expect("close", "}}")
        return Jump(keyword == "break")

    def _call(self, keyword: str, line: int) -> Node:
        name = self._name()
        pipe = self._pipe("close")
        return Call(line, name, pipe if pipe.commands else None)

    def _define(self, keyword: str, line: int) -> None:
        name = self._name()
        self._expect("close", "}}")
        self._body_of(name, keyword)

    def _inline(self, keyword: str, line: int) -> Node:
        name = self._name()
        pipe = self._control(keyword)
        self._body_of(name, keyword)
        return Call(line, name, pipe)

    def _body_of(self, name: str, keyword: str) -> None:
        outer, self._variables = self._variables, ["$"]
        loops, self._loops = self._loops, 0
        body, closing = self._block(within=keyword)
        if closing is None or closing.text != "end":
            raise self._fail(f"an else that {keyword} does not have")
        self._expect("close", "}}")
        self._variables, self._loops = outer, loops
        if name in self._defined:
            raise self._fail(f"template {name[:40]!r} is defined twice")
        self._defined[name] = body

    def _name(self) -> str:
        token = self._expect("string", "the name of a template")
        name = unquote(token)
        if not isinstance(name, str):
            raise self._fail(f"{token.text[:20]} is not the name of a template", token.line)
        return name

    # --- pipelines ---

    def _control(self, keyword: str) -> Pipe:
        pipe = self._pipe("close", variables=2 if keyword == "range" else 1)
        if not pipe.commands:
            raise self._fail(f"{keyword} without a value", pipe.line)
        return pipe

    def _pipe(self, ends: str, *, variables: int = 1) -> Pipe:
        """A pipeline up to `}}` or `)`, which is taken too."""
        self._skip_blank()
        line = self._line
        declares, assigns = self._declaration(variables)
        commands: list[Command] = []
        while True:
            command = self._command()
            if command is not None:
                if commands and not isinstance(command.operands[0], (Function, Field, Variable, Chain)):
                    raise self._fail("a value that is no function stands after |", command.line)
                commands.append(command)
            token = self._next()
            if token.kind == "sign" and token.text == "|":
                if command is None:
                    raise self._fail("nothing stands before |", token.line)
                continue
            if (token.kind == "close" and ends == "close") or (token.text == ")" and ends == ")"):
                if command is None and (commands or declares or assigns):
                    raise self._fail("a value is missing", token.line)
                break
            raise self._fail(f"unexpected {token.text[:20]!r}", token.line)
        self._variables += declares
        if len(self._variables) > _MOST_VARIABLES:
            raise self._fail(f"more than {_MOST_VARIABLES} variables are in use at once", line)
        return Pipe(line, tuple(commands), declares, assigns)

    def _declaration(self, most: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The variables before `:=` or `=`; none where the pipeline begins with something else."""
        begin, names = self._at, []
        while (token := self._peek()) is not None and token.kind == "variable":
            self._at += 1
            names.append(token.text)
            self._skip_blank()
            if self._is_sign(",") and len(names) < most:
                self._at += 1
                self._skip_blank()
                continue
            if self._is_sign(":=", "="):
                new = self._next().text == ":="
                if not new:
                    for name in names:
                        self._require_variable(name)
                return (tuple(names), ()) if new else ((), tuple(names))
            break
        self._at = begin
        return (), ()

    def _command(self) -> Command | None:
        operands: list[Operand] = []
        while True:
            blank = self._skip_blank()
            line = self._line
            token = self._peek()
            if token is None or token.kind == "close" or (token.kind == "sign" and token.text in _ENDS):
                break
            if operands and not blank:
                raise self._fail(f"a blank is needed before {token.text[:20]!r}", token.line)
            operands.append(self._operand(self._next()))
        return Command(line, tuple(operands)) if operands else None

    def _operand(self, token: Token) -> Operand:
        value = self._term(token)
        fields = []
        while (following := self._peek()) is not None and following.kind == "field":
            self._at += 1
            fields.append(following.text[1:])
        if not fields:
            return value
        if isinstance(value, Field):
            return Field((*value.names, *fields))
        if isinstance(value, Variable):
            return Variable(value.name, tuple(fields))
        if isinstance(value, Chain):
            return Chain(value.pipe, tuple(fields))
        if isinstance(value, Function):
            return Chain(Pipe(token.line, (Command(token.line, (value,)),)), tuple(fields))
        raise self._fail(f"{token.text[:20]!r} has no fields", token.line)

    def _term(self, token: Token) -> Operand:
        if token.kind == "string":
            return Literal(unquote(token))
        if token.kind == "number":
            return Literal(self._number(token))
        if token.kind == "field":
            return Field((token.text[1:],))
        if token.kind == "variable":
            self._require_variable(token.text)
            return Variable(token.text)
        if token.kind == "name":
            return self._word(token)
        if token.text == ".":
            return Dot()
        if token.text == "(":
            self._deeper()
            pipe = self._pipe(")")
            self._depth -= 1
            if not pipe.commands:
                raise self._fail("nothing stands between ( and )", token.line)
            return Chain(pipe)
        raise self._fail(f"unexpected {token.text[:20]!r}", token.line)

    def _word(self, token: Token) -> Operand:
        constants: Mapping[str, bool | None] = {"true": True, "false": False, "nil": None}
        if token.text in constants:
            return Literal(constants[token.text])
        if token.text not in FUNCTIONS:
            known = ", ".join(sorted(FUNCTIONS))
            raise self._fail(f"function {token.text[:40]!r} is not defined; known are {known}", token.line)
        return Function(token.text)

    def _number(self, token: Token) -> int | float:
        text = token.text.replace("_", "")
        if len(text) > 40:
            raise self._fail("a number of more than 40 digits", token.line)
        if "x" in text.lower():
            return int(text, 16)
        return float(text) if set(text.lower()) & {".", "e"} else int(text)

    def _require_variable(self, name: str) -> None:
        if name not in self._variables:
            raise self._fail(f"variable {name[:40]!r} is not defined")
