"""Enough of IEC 61131-3 Structured Text to run the blocks of examples/ without a compiler: translated to Python.

Assignments, IF, FOR, arrays from 0, calls of blocks and functions, TON and R_TRIG; no overflow of integers. Where
matiec is at hand the same tests run on what it compiled (``test_plc.py``), which is the authority.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

TOKEN = re.compile(r"\s*(T#\d+m?s|\d+\.\d+|\d+|[A-Za-z_]\w*|:=|<>|<=|>=|[-+*/=<>()\[\],.;:])")
LEVELS: tuple[dict[str, str], ...] = (
    {"OR": "or"},
    {"AND": "and"},
    {"=": "==", "<>": "!="},
    {"<": "<", ">": ">", "<=": "<=", ">=": ">="},
    {"+": "+", "-": "-"},
    {"*": "*", "/": "/", "MOD": "%"},
)
"""Operators, those that bind least first."""
UNIT = re.compile(r"\b(FUNCTION_BLOCK|FUNCTION)\s+(\w+)[^\n;]*\n(.*?)END_\1", re.S)
SECTION = re.compile(r"\bVAR(?:_INPUT|_OUTPUT)?\b(.*?)END_VAR", re.S)
DECLARED = re.compile(r"(\w+) : (?:ARRAY\[0\.\.(\d+)\] OF )?(\w+)(?: := ([^;]+))?;")
STRUCT = re.compile(r"(\w+) : STRUCT(.*?)END_STRUCT", re.S)


class Ton:
    """On-delay timer."""

    def __init__(self, program: Program) -> None:
        self._program, self.Q = program, False
        self._since_ms: int | None = None

    def __call__(self, IN: bool, PT: int) -> None:
        now_ms = self._program.now_ms
        self._since_ms = (now_ms if self._since_ms is None else self._since_ms) if IN else None
        self.Q = self._since_ms is not None and now_ms - self._since_ms >= PT


class RTrig:
    """Rising edge."""

    def __init__(self, program: Program) -> None:
        self.Q = self._before = False

    def __call__(self, CLK: bool) -> None:
        self.Q, self._before = CLK and not self._before, CLK


class Program:
    """The functions and blocks of some sources; ``now_ms`` is the PLC's clock."""

    def __init__(self, *sources: str) -> None:
        self.now_ms = 0
        text = re.sub(r"\(\*.*?\*\)", "", "".join(sources), flags=re.S)
        self.arrays = {name: int(last) + 1 for name, last in re.findall(r"(\w+) : ARRAY\[0\.\.(\d+)\]", text)}
        self.structs = {name: re.findall(r"(\w+) : \w+;", rows) for name, rows in STRUCT.findall(text)}
        self.units = {name: (kind, body) for kind, name, body in UNIT.findall(text)}
        self.names: dict[str, Callable[..., Any]] = {
            "UINT_TO_UDINT": int, "UDINT_TO_INT": int, "UDINT_TO_REAL": float, "UINT_TO_USINT": int,
            "UDINT_TO_ULINT": int, "ULINT_TO_LINT": lambda bits: bits - 2**64 if bits >= 2**63 else bits,
            "EXPT": pow, "divide": divide,
            "copy": copy.copy, **{n: self._function(n) for n, (kind, _) in self.units.items() if kind == "FUNCTION"},
        }  # fmt: skip
        self._codes: dict[str, Any] = {}

    def code(self, unit: str) -> Any:
        """The statements of a function or block."""
        if unit not in self._codes:
            self._codes[unit] = compile(Translation(SECTION.sub("", self.units[unit][1])).source(), unit, "exec")
        return self._codes[unit]

    def initial(self, kind: str, value: str) -> Any:
        """What a variable is before it is assigned to."""
        if kind in ("TON", "R_TRIG"):
            return Ton(self) if kind == "TON" else RTrig(self)
        if kind in self.arrays:
            return [0] * self.arrays[kind]
        if kind in self.structs:
            return SimpleNamespace(**dict.fromkeys(self.structs[kind], 0))
        if kind in self.units:
            return Block(self, kind)
        if value:
            return duration_ms(value)
        return False if kind == "BOOL" else 0

    def _function(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            called = Block(self, name)
            inputs = re.findall(r"(\w+) :", SECTION.findall(self.units[name][1])[0])
            called(**dict(zip(inputs, arguments, strict=True)))
            return getattr(called, name)

        return call


class Block(SimpleNamespace):
    """An instance; its variables are attributes."""

    def __init__(self, program: Program, name: str) -> None:
        self._program, self._name = program, name
        for section in SECTION.findall(program.units[name][1]):
            for variable, last, kind, value in re.findall(DECLARED, section):
                first = program.initial(kind, value)
                setattr(self, variable, [first] * (int(last) + 1) if last else first)

    def __call__(self, **inputs: Any) -> None:
        vars(self).update(inputs)
        exec(self._program.code(self._name), {**self._program.names, "s": self})


class Translation:
    """Statements to Python; every variable becomes an attribute of ``s``."""

    def __init__(self, body: str) -> None:
        self._tokens = TOKEN.findall(body)
        assert "".join(self._tokens) == re.sub(r"\s", "", body), "there is more than this translates"
        self._at = 0

    def source(self) -> str:
        lines = self._statements("", ())
        assert self._at == len(self._tokens)
        return "\n".join(lines)

    def _next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self, *expected: str) -> str:
        token = self._next()
        assert not expected or token in expected, (token, expected)
        self._at += 1
        return token

    def _statements(self, indent: str, ends: tuple[str, ...]) -> list[str]:
        lines: list[str] = []
        while self._next() not in ("", *ends):
            if self._next() in ("IF", "FOR"):
                lines += self._if(indent) if self._next() == "IF" else self._for(indent)
                continue
            target = self._postfix()
            if self._next() == ":=":
                self._take()
                lines.append(f"{indent}{target} = copy({self._expression()})")
            else:
                lines.append(indent + target)
            self._take(";")
        return lines or [f"{indent}pass"]

    def _if(self, indent: str) -> list[str]:
        lines: list[str] = []
        word = self._take("IF")
        while word in ("IF", "ELSIF"):
            lines.append(f"{indent}{'if' if word == 'IF' else 'elif'} {self._expression()}:")
            self._take("THEN")
            lines += self._statements(indent + "  ", ("ELSIF", "ELSE", "END_IF"))
            word = self._take("ELSIF", "ELSE", "END_IF")
        if word == "ELSE":
            lines += [f"{indent}else:", *self._statements(indent + "  ", ("END_IF",))]
            self._take("END_IF")
        self._take(";")
        return lines

    def _for(self, indent: str) -> list[str]:
        self._take("FOR")
        counter = self._postfix()
        self._take(":=")
        first = self._expression()
        self._take("TO")
        head = f"{indent}for {counter} in range({first}, {self._expression()} + 1):"
        self._take("DO")
        lines = [head, *self._statements(indent + "  ", ("END_FOR",))]
        self._take("END_FOR")
        self._take(";")
        return lines

    def _expression(self, level: int = 0) -> str:
        if level == len(LEVELS):
            if self._next() in ("NOT", "-"):
                return f"({'not ' if self._take() == 'NOT' else '-'}{self._expression(level)})"
            return self._postfix()
        left = self._expression(level + 1)
        while self._next() in LEVELS[level]:
            operator = LEVELS[level][self._take()]
            right = self._expression(level + 1)
            left = f"divide({left}, {right})" if operator == "/" else f"({left} {operator} {right})"
        return left

    def _postfix(self) -> str:
        token = self._take()
        if token == "(":
            inner = self._expression()
            self._take(")")
            return f"({inner})"
        if token.startswith("T#"):
            return str(duration_ms(token))
        if token[0].isdigit():
            return token
        if token in ("TRUE", "FALSE"):
            return token.capitalize()
        if self._next() == "(" and (token.isupper() or "_TO_" in token):
            return f"{token}({self._arguments()})"
        path = f"s.{token}"
        while self._next() in (".", "[", "("):
            opening = self._take()
            if opening == ".":
                path += f".{self._take()}"
            elif opening == "[":
                path += f"[{self._expression()}]"
                self._take("]")
            else:
                self._at -= 1
                path += f"({self._arguments()})"
        return path

    def _arguments(self) -> str:
        self._take("(")
        given: list[str] = []
        while self._next() != ")":
            if self._tokens[self._at + 1] == ":=":
                name, _ = self._take(), self._take(":=")
                given.append(f"{name}={self._expression()}")
            else:
                given.append(self._expression())
            if self._next() == ",":
                self._take()
        self._take(")")
        return ", ".join(given)


def divide(left: float, right: float) -> float:
    """As ST does it: whole numbers stay whole."""
    return left // right if isinstance(left, int) and isinstance(right, int) else left / right


def duration_ms(text: str) -> int:
    """``T#500ms`` or ``T#2s``."""
    return int(text[2:-2]) if text.endswith("ms") else 1000 * int(text[2:-1])
