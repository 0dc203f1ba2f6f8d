"""Repairs as code, made from the user's own expression."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gradcheck_cli.diagnose.nan.evidence import Evidence

OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.Pow: "pow",
    ast.MatMult: "matmul",
}
NAMESPACES = ("torch", "F", "functional", "nn", "special", "linalg", "math")
ATOMS = (ast.Name, ast.Attribute, ast.Call, ast.Subscript, ast.Constant)
STATEMENT_TAILS = ("", " pass")
GENERAL = {"x": "x", "X": "x", "y": "y", "Y": "y", "rest": ""}


@dataclass(frozen=True)
class Match:
    """A call or an operator in the source: its operands, and the other arguments as they were written."""

    name: str
    node: ast.expr
    operands: tuple[ast.expr, ...]
    rest: str

    def fields(self, source: str) -> dict[str, str]:
        """x and y as a term, X and Y in brackets if need be, rest with a comma before it."""
        found = GENERAL | {"rest": self.rest, "name": self.name}
        for name, operand in zip("xy", self.operands, strict=False):
            text = text_of(operand, source)
            found[name.upper()] = in_brackets(operand, text)
            found[name] = text if isinstance(operand, (ast.BinOp, ast.UnaryOp)) else found[name.upper()]
        return found


def rewrite(*names: str, to: str, inner: str = "", instead: str = "") -> Callable[[Evidence], str]:
    """A repair that puts the operands of a call or operator into a template.

    `names` are functions, methods or operators ("sqrt", "div"), `inner` one whose operands to take from within
    the first operand. The template has {x}, {y} (terms), {X}, {Y} (as operands of anything) and {rest} (", dim=-1"),
    {name} the one that was found.
    Where the source does not show it, `instead`, or the template in terms of x and y.
    """

    def repair(evidence: Evidence) -> str:
        source = parse(evidence.text)
        match = find(source, names) if source else None
        if match and inner:
            match = find(match.operands[0], (inner,)) if match.operands else None
        if match is None or operands_needed(to) > len(match.operands):
            return instead or to.format(**GENERAL, name=evidence.op)
        return to.format(**match.fields(evidence.text))

    return repair


def snippet(code: str) -> Callable[[Evidence], str]:
    """A repair that is the same for all."""
    return lambda evidence: code


def operands_needed(template: str) -> int:
    """How many operands it needs."""
    return 2 if "{y}" in template or "{Y}" in template else 1


def parse(text: str) -> ast.AST | None:
    """An expression or the line of a statement; None where it is only a part of one."""
    for tail in STATEMENT_TAILS:
        try:
            return ast.parse(text + tail)
        except (SyntaxError, ValueError):
            continue
    return None


def find(tree: ast.AST, names: tuple[str, ...]) -> Match | None:
    """The call or operator of one of these names: the whole expression, or the only one in it."""
    matches = list(matches_in(tree, names))
    outermost = root(tree)
    whole = [match for match in matches if match.node is outermost]
    return whole[0] if whole else matches[0] if len(matches) == 1 else None


def root(tree: ast.AST) -> ast.AST:
    """The expression that is the whole text."""
    body = tree.body if isinstance(tree, ast.Module) else []
    return body[0].value if len(body) == 1 and isinstance(body[0], ast.Expr) else tree


def matches_in(tree: ast.AST, names: tuple[str, ...]) -> Iterator[Match]:
    """All calls and operators of these names."""
    for node in ast.walk(tree):
        match = match_operator(node, names) if isinstance(node, ast.BinOp) else None
        match = match_call(node, names) if isinstance(node, ast.Call) else match
        if match:
            yield match


def match_operator(node: ast.BinOp, names: tuple[str, ...]) -> Match | None:
    """a / b."""
    name = OPERATORS.get(type(node.op), "")
    return Match(name, node, (node.left, node.right), "") if name in names else None


def match_call(node: ast.Call, names: tuple[str, ...]) -> Match | None:
    """torch.sqrt(x), sqrt(x) or x.sqrt(); in place too."""
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    name = name.removesuffix("_")
    if name not in names:
        return None
    is_method = isinstance(function, ast.Attribute) and not is_namespace(function.value)
    operands = [function.value, *node.args] if is_method and isinstance(function, ast.Attribute) else list(node.args)
    others = [*operands[1:], *node.keywords]
    return Match(name, node, tuple(operands), "".join(f", {ast.unparse(other)}" for other in others))


def is_namespace(node: ast.expr) -> bool:
    """Whether it is a module like torch.nn.functional, or self, and no tensor."""
    while isinstance(node, ast.Attribute):
        if node.attr in NAMESPACES:
            return True
        node = node.value
        if isinstance(node, ast.Name) and node.id == "self":
            return False
    return isinstance(node, ast.Name) and node.id in (*NAMESPACES, "self")


def text_of(node: ast.expr, source: str) -> str:
    """As the user wrote it, on one line."""
    text = ast.get_source_segment(source, node)
    return text if text and "\n" not in text else ast.unparse(node)


def in_brackets(node: ast.expr, text: str) -> str:
    """Brackets around all but names, calls and the like."""
    return text if isinstance(node, ATOMS) else f"({text})"
