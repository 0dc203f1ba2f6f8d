"""The borders of the package: who may import whom, what loads torch, and how long a file may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gradcheck_cli

PACKAGE = Path(gradcheck_cli.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# What each part may import of the package, besides itself. What is not listed here fails.
MAY_IMPORT = {
    "__init__": {"integrations"},
    "__main__": {"cli"},
    "errors": set(),
    "records": set(),
    "config": {"records", "errors"},
    "archive": {"config", "records", "errors"},
    "drive": {"config", "records", "errors"},
    "observe": {"config", "records", "errors"},
    "diagnose": {"archive", "config", "records", "errors"},
    "report": {"archive", "config", "records", "errors"},
    "judgement": {"diagnose", "report", "archive", "config", "records", "errors"},
    "tracing": {"drive", "observe", "diagnose", "config", "records", "errors"},
    "loggers": {"report", "config", "records", "errors"},
    "pipeline": {
        "loggers",
        "tracing",
        "judgement",
        "drive",
        "observe",
        "diagnose",
        "report",
        "archive",
        "config",
        "records",
        "errors",
    },
    "integrations": {"judgement", "observe", "report", "archive", "config", "records", "errors"},
    "scaffold": set(),
    "testing": {"pipeline", "judgement", "report", "config", "records", "errors"},
    "pytest_plugin": {"testing", "config", "errors"},
    "cli": {
        "scaffold",
        "pipeline",
        "drive",
        "judgement",
        "diagnose",
        "report",
        "archive",
        "config",
        "records",
        "errors",
    },
}
MAY_IMPORT_TORCH = {"drive", "observe", "tracing", "pipeline", "integrations", "testing"}
BELONGS_TO = {
    "tape": "records",
    "clip_advice": "records",
    "signals": "records",
    "examination": "records",
    "audit": "records",
    "ranks": "records",
    "step_statistics": "records",
    "comparison": "records",
    "baseline": "records",
    "baseline_file": "archive",
    "judgement_baseline": "judgement",
    "blocks": "records",
    "norm_list": "archive",
    "targets": "config",
    "archive_signals": "archive",
    "archive_audit": "archive",
    "archive_ranks": "archive",
}
MAY_BE_LONG = {"records.py"}  # all the types that cross borders, in one place


def part_of(path: Path) -> str:
    """cli for cli/profile.py; config for config.py and for the modules beside it, config_values.py."""
    return joined(path.relative_to(PACKAGE).parts[0].removesuffix(".py"))


def joined(name: str) -> str:
    """The part that a top-level module belongs to: tapes and advice are made of records, and a report may hold one."""
    return "config" if name.startswith("config_") else BELONGS_TO.get(name, name)


def imports(tree: ast.AST, at_import: bool = False) -> Iterator[str]:
    """The dotted names that a file imports; `at_import`: only those that its own import loads."""
    for node in children(tree) if at_import else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports would escape these rules"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def children(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes that run when the file is imported: not those in functions, nor below TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not typing_only and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield node
            yield from children(node)


def own_parts(names: Iterator[str]) -> set[str]:
    """The parts of the package among the names: records for gradcheck_cli.records.Report."""
    found = {name.split(".")[1] for name in names if name.startswith("gradcheck_cli.")} - {"__version__"}
    return {joined(part) for part in found}


def is_torch(name: str) -> bool:
    return name.partition(".")[0] == "torch"


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))


@every_file
def test_imports_point_one_way(path: Path) -> None:
    part = part_of(path)
    assert part in MAY_IMPORT, f"say in {Path(__file__).name} what {part} may import"
    assert own_parts(imports(parse(path))) - {part} <= MAY_IMPORT[part]


def test_the_table_itself_points_one_way() -> None:
    """Nothing reaches itself again, and the two torch sides and the two pure sides do not know each other."""
    reached = {part: set(others) for part, others in MAY_IMPORT.items()}
    for _ in MAY_IMPORT:
        reached = {part: others.union(*(reached[other] for other in others)) for part, others in reached.items()}
    assert [part for part, others in reached.items() if part in others] == []
    for one, other in (("drive", "observe"), ("observe", "drive"), ("report", "diagnose"), ("diagnose", "report")):
        assert other not in reached[one]


@every_file
def test_torch_is_imported_where_it_is_needed_only(path: Path) -> None:
    if part_of(path) not in MAY_IMPORT_TORCH:
        assert [name for name in imports(parse(path)) if is_torch(name)] == []


@every_file
def test_the_shell_loads_torch_inside_functions_only(path: Path) -> None:
    if part_of(path) not in MAY_IMPORT_TORCH:
        assert own_parts(imports(parse(path), at_import=True)) & MAY_IMPORT_TORCH == set()


@every_file
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 250 or path.name in MAY_BE_LONG


def test_the_rules_see_what_they_forbid() -> None:
    """The rules themselves, on sources that break them."""
    source = (
        "import torch.nn\nfrom gradcheck_cli.diagnose import rule\ndef f():\n    from gradcheck_cli import pipeline\n"
    )
    assert [name for name in imports(ast.parse(source)) if is_torch(name)] == ["torch.nn"]
    assert own_parts(imports(ast.parse(source))) == {"diagnose", "pipeline"}
    assert own_parts(imports(ast.parse(source), at_import=True)) == {"diagnose"}
    nested = "class A:\n    try:\n        import torch\n    except ImportError: pass\n"
    assert list(imports(ast.parse(nested), at_import=True)) == ["torch"]


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["rules"], ["rules", "nan"], ["profile", "--help"], ["nan-trace", "--help"]],
)
def test_torch_stays_out_of_what_needs_none(arguments: list[str]) -> None:
    source = f"""
import sys
from gradcheck_cli.cli import main
sys.argv = ["gradcheck", *{arguments!r}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("torch" in sys.modules, {arguments!r}[-1] == "--help" and "numpy" in sys.modules, file=sys.stderr)
"""
    ended = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.split() == ["False", "False"]
    assert ended.stdout
