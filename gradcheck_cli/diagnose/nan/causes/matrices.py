"""Matrices that cannot be inverted."""

from __future__ import annotations

from gradcheck_cli.diagnose.nan.cause import ANY, FORWARD, Cause
from gradcheck_cli.diagnose.nan.evidence import Evidence
from gradcheck_cli.diagnose.nan.rewriting import rewrite
from gradcheck_cli.diagnose.nan.wording import result

JITTER = " + 1e-6 * torch.eye({X}.shape[-1], device={X}.device)"
DEFINITE = "cholesky", "MultivariateNormal"


def repair_matrix(evidence: Evidence) -> str:
    """The matrix with a little of the identity."""
    instead = "x = x" + JITTER.format(X="x") + "  # before this operator"
    if "det" in evidence.op or "det(" in evidence.text:
        return rewrite("logdet", "slogdet", "det", to=f"torch.linalg.slogdet({{x}}{JITTER})", instead=instead)(evidence)
    if "MultivariateNormal" in evidence.text:
        instead = "covariance = covariance" + JITTER.format(X="covariance")
    names = ("inv", "inverse", "cholesky")
    return rewrite(*names, to=f"torch.linalg.{{name}}({{x}}{JITTER})", instead=instead)(evidence)


def explain_refusal(evidence: Evidence) -> str:
    if any(word in f"{evidence.text} {evidence.op}" for word in DEFINITE):
        return "torch refused the matrix: it is not positive definite, as with equal samples or a variance of 0"
    return "torch refused the matrix: it is singular, as where two of its rows are equal or one is 0"


SINGULAR_MATRIX = Cause(
    id="logdet-of-singular-matrix",
    title="Determinant or inverse of a singular matrix",
    phases=(*FORWARD, "backward"),
    ops=("linalg_slogdet", "logdet", "linalg_det", "linalg_inv_ex", "linalg_solve_ex", "linalg_cholesky_ex", "where"),
    applies_if=lambda e: e.op != "where" or "logdet" in e.text,
    what_happens=(
        "The determinant of a singular matrix is 0, its logarithm -inf, its inverse infinite. Equal rows or channels"
        " make a matrix singular; `logdet` of a negative determinant is NaN."
    ),
    how_to_fix="Add a small multiple of the identity, or parametrise the matrix by a decomposition (LU, Cholesky).",
    because=lambda e: f"a matrix is singular: {result(e)}",
    repair=repair_matrix,
)

MATRIX_REFUSED = Cause(
    id="singular-matrix-refused",
    title="A matrix that torch could not invert or decompose",
    phases=ANY,
    ops=(),
    applies_if=lambda e: e.refused,
    refusal=r"cholesky|MultivariateNormal\(|\b(inv|inverse|solve)\(|linalg_(check_errors|inv|solve)",
    what_happens=(
        "An inverse needs a matrix that is not singular, a Cholesky decomposition one that is positive definite: a"
        " covariance of equal samples, a kernel of two equal inputs and a flat transform are not, and torch raises."
    ),
    how_to_fix="Add a small multiple of the identity to the matrix.",
    because=explain_refusal,
    repair=repair_matrix,
)

MATRICES = (MATRIX_REFUSED, SINGULAR_MATRIX)
