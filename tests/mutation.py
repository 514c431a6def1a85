"""Small faults put into the files that a verdict rests on, one at a time: their tests must fail at each.

    python -m tests.mutation [--only TEXT]      every fault that no test notices (`make mutants`); 1 where one is new

A comparison is turned round or moved by its edge, a condition is negated, `and` becomes `or`, a number changes by one,
a sign or a truth is swapped, a call whose value nobody takes is left out. Those in ``SAME`` change nothing that a test
could see, each with its reason.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib.abc
import importlib.util
import io
import os
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from tests.places import ROOT

UNITS = "tests/runtime"
TESTS: dict[str, list[str]] = {
    "runtime/vision/scoring.py": [
        f"{UNITS}/vision/test_scoring_verdicts.py", f"{UNITS}/vision/test_scoring_numbers.py",
        f"{UNITS}/inspector/test_part_views.py",
        "--deselect", f"{UNITS}/vision/test_scoring_verdicts.py::test_verdict_ok_is_produced_by_decide_alone",
    ],
    "runtime/records/ledger.py": [f"{UNITS}/records/test_ledger.py"],
    "runtime/inspector/triggers.py": [f"{UNITS}/inspector/test_triggers.py"],
    "runtime/inspector/part_views.py": [
        f"{UNITS}/inspector/test_part_views.py", f"{UNITS}/inspector/test_combined_station.py",
    ],
}  # fmt: skip
ONLY_IN = {
    "runtime/vision/scoring.py": {"decide", "outside_range", "_damage", "combine", "_conflict", "_stray", "_within"}
}
"""Functions of a file that is too large to try whole."""

SAME: dict[str, str] = {
    "threshold} do not compare": "a finite score and a finite threshold always compare; here for whoever changes that",
}
"""A part of a fault's name, and why no test can notice it."""

LIMIT_S = 60
TURNED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}  # fmt: skip


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """What a node may become."""
    if isinstance(node, ast.Compare):
        for at, operator in enumerate(node.ops):
            for other in TURNED[type(operator)]:
                yield ast.Compare(node.left, [*node.ops[:at], other(), *node.ops[at + 1 :]], node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        for at in range(len(node.values)):
            rest = [*node.values[:at], *node.values[at + 1 :]]
            yield rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, ast.If | ast.IfExp):
        other = copy.copy(node)
        other.test = ast.UnaryOp(ast.Not(), node.test)
        yield other
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        yield ast.BinOp(node.left, ast.Sub() if isinstance(node.op, ast.Add) else ast.Add(), node.right)
    elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
        yield ast.AugAssign(node.target, ast.Sub(), node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int):
        yield ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield ast.Pass()
    elif isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        yield ast.Return(ast.Constant(None))


class Change(ast.NodeTransformer):
    """Puts ``new`` in the place of ``old``."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        if node is self.old:
            return ast.copy_location(self.new, node)
        return super().visit(node)


def mutants(file: str) -> Iterator[tuple[str, str]]:
    """(name, source) of every fault of a file; a name is the line as it was and as it is."""
    text = (ROOT / file).read_text()
    lines = text.splitlines()
    count = sum(1 for _ in ast.walk(ast.parse(text)))
    for number in range(count):
        for which in range(20):
            tree = ast.parse(text)
            wanted = {id(n) for top in tree.body for n in ast.walk(top)
                      if file not in ONLY_IN or getattr(top, "name", "") in ONLY_IN[file]}  # fmt: skip
            for one in ast.walk(tree):  # a record that is not frozen works alike
                wanted -= {id(n) for decorator in getattr(one, "decorator_list", ()) for n in ast.walk(decorator)}
            node = next(each for at, each in enumerate(ast.walk(tree)) if at == number)
            made = list(variants(node)) if id(node) in wanted else []
            if which >= len(made):
                break
            was, now = ast.unparse(node), ast.unparse(made[which])
            line = lines[getattr(node, "lineno", 1) - 1].strip()
            short = now.splitlines()[0] if isinstance(node, ast.stmt) else now
            name = f"{file}: {line}  [{was.splitlines()[0]} -> {short}]"
            yield name, ast.unparse(ast.fix_missing_locations(Change(node, made[which]).visit(tree)))


class Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads one module from other source."""

    def __init__(self, file: str, source: str) -> None:
        self.name = "asperity." + file.removesuffix(".py").replace("/", ".")
        self.path, self.source = ROOT / file, source

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)


def passes(file: str, source: str) -> bool:
    """Whether the file's tests pass with this source, in a process of its own."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            sys.meta_path.insert(0, Mutated(file, source))
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", f"--timeout={LIMIT_S}"]
                code = int(pytest.main([*options, *TESTS[file]]))
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def main() -> int:
    """Try every fault; 1 where one is noticed by no test and has no reason."""
    parser = argparse.ArgumentParser(description="put small faults into the files that a verdict rests on")
    parser.add_argument("--only", default="", help="faults whose name contains this")
    only = parser.parse_args().only
    tried = survived = 0
    for file in TESTS:
        if not passes(file, Path(ROOT / file).read_text()):
            print(f"WRONG     the tests of {file} fail as it is")
            return 1
        for name, source in mutants(file):
            if only not in name:
                continue
            tried += 1
            if passes(file, source):
                why = next((why for part, why in SAME.items() if part in name), "")
                survived += not why
                print(f"{'same' if why else 'SURVIVED':9} {name}  {why}".rstrip(), flush=True)
    print(f"{tried} faults, {survived} of them noticed by no test")
    return 1 if survived or not tried else 0


if __name__ == "__main__":
    sys.exit(main())
