"""Reads the repository's own source: what each file imports and calls, and which rules a line asks to skip."""

import ast
import builtins
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("app", "models", "index", "migrations")
EVERYWHERE = (*PACKAGES, "benchmarks", "tests")
SKIP = re.compile(r"#\s*rule-skip:\s*(?P<rule>[a-z-]+)\s+(?P<reason>\S.*)")


@dataclass(frozen=True)
class Import:
    """One imported module, as a dotted name; `from a import b` counts as `a.b`."""

    target: str
    line: int
    inside_function: bool

    @property
    def root(self) -> str:
        return self.target.partition(".")[0]


@dataclass(frozen=True)
class Source:
    """One Python file, by its path below the root."""

    path: str
    text: str

    @property
    def package(self) -> str:
        return self.path.partition("/")[0]

    @property
    def tree(self) -> ast.Module:
        return _parsed(self.text)

    @cache  # noqa: B019 - as many as there are files
    def imports(self) -> tuple[Import, ...]:
        """Every import, relative ones made absolute."""
        return tuple(self._imports())

    @cache  # noqa: B019
    def calls(self) -> tuple[tuple[str, ast.Call], ...]:
        """Every call of something imported or built in, by its dotted name with aliases undone."""
        return tuple(self._calls())

    def _imports(self) -> Iterator[Import]:
        inside = {
            node
            for function in ast.walk(self.tree)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for node in ast.walk(function)
        }
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for name in node.names:
                    yield Import(name.name, node.lineno, node in inside)
            elif isinstance(node, ast.ImportFrom):
                folder = self.path.split("/")[: -node.level] if node.level else []
                module = ".".join([*folder, *([node.module] if node.module else [])])
                for name in node.names:
                    yield Import(f"{module}.{name.name}", node.lineno, node in inside)

    def _calls(self) -> Iterator[tuple[str, ast.Call]]:
        alias = {name: name for name in dir(builtins)}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for name in node.names:
                    root = name.name.partition(".")[0]
                    alias[name.asname or root] = name.name if name.asname else root
            elif isinstance(node, ast.ImportFrom) and node.module:
                alias |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and (name := dotted(node.func)):
                first, _, rest = name.partition(".")
                if first in alias:  # else a variable that happens to be called like a module
                    yield ".".join(part for part in (alias[first], rest) if part), node

    def skips(self, rule: str, line: int) -> bool:
        """Whether a line asks to be left out of a rule, and says why."""
        found = SKIP.search(self.text.splitlines()[line - 1])
        return found is not None and found["rule"] == rule


@dataclass(frozen=True)
class Finding:
    """One broken rule."""

    source: Source
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.source.path}:{self.line}: {self.what}"


@cache
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


def dotted(node: ast.expr) -> str | None:
    """`a.b.c` of a chain of attributes, None for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return None


@cache
def sources(*folders: str) -> list[Source]:
    """The Python files below folders of the repository."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


def unskipped(rule: str, findings: Iterable[Finding]) -> list[str]:
    """The findings no line excuses, as sentences."""
    return [str(finding) for finding in findings if not finding.source.skips(rule, finding.line)]
