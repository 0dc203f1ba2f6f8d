"""What there is to profile in a folder, read from its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOST_FILES = 2000
ELSEWHERE = {"venv", "env", "site-packages", "node_modules", "build", "dist", "tests", "test", "docs"}
TRAINS = {"backward", "fit", "train"}
"""Methods by which a script trains: a loss's or an accelerator's, or a trainer's."""


@dataclass(frozen=True)
class Model:
    """A class of a module; `needs_arguments` to be made."""

    path: Path
    name: str
    needs_arguments: bool


@dataclass(frozen=True)
class TrainingScript:
    """A file that trains when it is run; `needs_arguments` on its command line."""

    path: Path
    needs_arguments: bool


@dataclass(frozen=True)
class Project:
    """Both, in the order of their paths, relative to the folder."""

    scripts: tuple[TrainingScript, ...]
    models: tuple[Model, ...]


def look(folder: Path) -> Project:
    """Read every Python file below a folder, but for tests and what is installed there. A broken one is passed over."""
    trees = [(path.relative_to(folder), tree) for path in source_files(folder) if (tree := parse(path))]
    return Project(
        tuple(TrainingScript(path, needs_command_line(tree)) for path, tree in trees if is_training_script(tree)),
        tuple(model for path, tree in trees for model in models_in(path, tree)),
    )


def source_files(folder: Path) -> list[Path]:
    """Python files, outermost first."""
    found: list[Path] = []
    folders = [folder]
    while folders and len(found) < MOST_FILES:
        entries = sorted(folders.pop(0).iterdir())
        found += [entry for entry in entries if entry.suffix == ".py" and entry.is_file()]
        folders += [e for e in entries if e.is_dir() and not e.is_symlink() and is_own(e)]
    return found[:MOST_FILES]


def is_own(folder: Path) -> bool:
    """Whether a folder holds source of the project's."""
    return not folder.name.startswith((".", "__")) and folder.name not in ELSEWHERE


def parse(path: Path) -> ast.Module | None:
    """A file's tree, if it has one."""
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return None


def is_training_script(tree: ast.Module) -> bool:
    """Whether something in the file trains, and something runs when the file does."""
    return any(name in TRAINS for name in methods_called(tree)) and any(map(runs, tree.body))


def methods_called(tree: ast.AST) -> Iterator[str]:
    """The names in `x.name(...)`; `train` only of what is called a trainer, since modules have one, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value).lower()
            if node.func.attr == "backward" or "trainer" in owner:
                yield node.func.attr


def runs(statement: ast.stmt) -> bool:
    """Whether a statement at the top level does something: a loop, a call, or what is behind `if __name__`."""
    if isinstance(statement, ast.If):
        return "__name__" in ast.unparse(statement.test)
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Call)
    return isinstance(statement, (ast.For, ast.While, ast.With))


def needs_command_line(tree: ast.Module) -> bool:
    """Whether an argument parser in it asks for an argument."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    return any(call.func.attr == "add_argument" and is_required(call) for call in calls)  # type: ignore[attr-defined]


def is_required(call: ast.Call) -> bool:
    """Whether `add_argument` adds one that must be given."""
    name = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else "-"
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    is_option = str(name).startswith("-")
    return given.get("required") == "True" or (not is_option and given.get("nargs") not in ("'?'", "'*'"))


def models_in(path: Path, tree: ast.Module) -> Iterator[Model]:
    """Classes at the top level that derive from nn.Module."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Module") for base in node.bases):
            yield Model(path, node.name, any(map(takes_more, node.body)))


def takes_more(statement: ast.stmt) -> bool:
    """Whether it is an `__init__` that cannot be called without arguments."""
    if not isinstance(statement, ast.FunctionDef) or statement.name != "__init__":
        return False
    arguments = statement.args
    optional = len(arguments.defaults)
    required = len(arguments.posonlyargs) + len(arguments.args) - 1 - optional
    return required > 0 or any(default is None for default in arguments.kw_defaults)
