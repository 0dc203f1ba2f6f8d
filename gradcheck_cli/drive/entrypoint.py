"""TARGET, `path/to/file.py:callable` or `package.module:callable`, to the callable's result."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from gradcheck_cli.drive.usercode import user_code
from gradcheck_cli.errors import TargetError
from gradcheck_cli.records import Location

FORM = "a target is path/to/file.py:callable or package.module:callable"


def find(target: str) -> Callable[..., Any]:
    """The callable that `target` names; its module is imported, which runs the user's code.

    Raises TargetError when there is no such file, module or callable, or when the import fails.
    """
    place, separator, name = target.rpartition(":")
    if not separator or not place or not name or os.sep in name:
        raise TargetError(f"{target!r} names no callable", without_callable(target))
    sys.argv = [place]  # gradcheck's own would end a file that parses arguments
    module = import_file(Path(place)) if place.endswith(".py") else import_module(place, Path.cwd())
    found = getattr(module, name, None)
    if callable(found):
        return found  # type: ignore[no-any-return]
    problem = "is not callable" if hasattr(module, name) else "does not exist"
    raise TargetError(f"{place} was imported, but {name!r} {problem} in it", known_callables(module, place))


def call(function: Callable[..., Any], target: str, arguments: Mapping[str, Any]) -> Any:
    """The callable's result for the keyword arguments given. Raises TargetError when they do not fit, or it fails."""
    check_arguments(function, target, arguments)
    with user_code(f"{target} failed", kind=TargetError):
        return function(**arguments)


def location_of(function: Callable[..., Any]) -> Location | None:
    """Where the callable is defined."""
    try:
        return Location.of(inspect.getsourcefile(function) or "", inspect.getsourcelines(function)[1])
    except (OSError, TypeError):
        return None


def import_file(path: Path) -> ModuleType:
    """Import a file as `python file.py` would find it: its folder first on sys.path.

    A file in a package is imported as a part of it, so that its relative imports work.
    """
    if not path.is_file():
        raise TargetError(f"there is no file {path}", f"{FORM}, seen from {Path.cwd()}")
    folder = path.parent.resolve()
    sys.path.insert(0, str(folder))
    root, dotted = place_in_package(path.resolve())
    if root != folder and dotted.partition(".")[0] not in sys.modules:
        return import_module(dotted, root)
    name = path.stem if path.stem.isidentifier() and path.stem not in sys.modules else f"gradcheck_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise TargetError(f"{path} cannot be imported", FORM)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with user_code(f"{path} cannot be imported", kind=TargetError):
        spec.loader.exec_module(module)
    return module


def place_in_package(path: Path) -> tuple[Path, str]:
    """The folder that an absolute path's outermost package lies in, and the dotted name from there."""
    folder, names = path.parent, [] if path.stem == "__init__" else [path.stem]
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    return folder, ".".join(names)


def import_module(name: str, root: Path) -> ModuleType:
    """Import a module by its dotted name, from `root` or where else Python finds it."""
    sys.path.insert(0, str(root))
    absent = TargetError(f"there is no module {name}", f"{FORM}; modules are looked for from {root}")
    if name.startswith("."):
        raise absent
    with user_code(f"{name} cannot be imported", kind=TargetError):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if f"{name}.".startswith(f"{error.name}."):  # and not another one, that it imports
                raise absent from error
            raise


def without_callable(target: str) -> str:
    """What to type instead of a target that lacks its callable."""
    path = Path(target.rstrip(":"))
    names = functions_in(path) if path.suffix == ".py" and path.is_file() else []
    return f"try {', '.join(f'{path}:{name}' for name in names[:5])}" if names else FORM


def functions_in(path: Path) -> list[str]:
    """Public functions at the top level of a file, without running it."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return []
    return [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]


def known_callables(module: ModuleType, place: str) -> str:
    """A hint that lists the functions that a module defines."""
    own = [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    ]
    return f"it defines {', '.join(f'{place}:{name}' for name in own)}" if own else "it defines no public function"


def check_arguments(function: Callable[..., Any], target: str, arguments: Mapping[str, Any]) -> None:
    """Raise TargetError unless the callable can be called with these keyword arguments."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    named = {
        name
        for name, parameter in parameters.items()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    unknown = sorted(set(arguments) - named)
    if unknown and not open_ended:
        takes = f"it takes {', '.join(sorted(named))}" if named else "it takes none"
        raise TargetError(f"{target} takes no argument {', '.join(unknown)}", takes)
    needed = [n for n in named if parameters[n].default is inspect.Parameter.empty and n not in arguments]
    if needed:
        settings = " ".join(f"--set {name}=VALUE" for name in sorted(needed))
        raise TargetError(
            f"{target} needs the arguments {', '.join(sorted(needed))}",
            f"give them with {settings}, or give them defaults",
        )
