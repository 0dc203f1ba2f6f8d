"""Results beyond the number format: half precision by kind of operator, then everything."""

from __future__ import annotations

from gradcheck_cli.diagnose.nan.cause import FORWARD, Cause
from gradcheck_cli.diagnose.nan.evidence import Evidence
from gradcheck_cli.diagnose.nan.rewriting import rewrite, snippet
from gradcheck_cli.diagnose.nan.wording import largest, result

PRODUCTS = (
    *("mm", "addmm", "bmm", "baddbmm", "matmul", "linear", "mv", "addmv", "dot", "convolution", "mkldnn_convolution"),
    *("addbmm", "mkldnn_linear", "convolution_overrideable", "thnn_conv2d", "slow_conv2d_forward"),
)
LAYERS = ("Linear", "Bilinear", "Conv1d", "Conv2d", "Conv3d", "LSTM", "GRU", "RNN", "MultiheadAttention")
HALF_END = "float16 ends at 65504"


def overflows_half(evidence: Evidence) -> bool:
    return evidence.kind == "inf" and evidence.half


def reach(evidence: Evidence) -> str:
    return f"{result(evidence)}: the inputs of {evidence.op} reach {largest(*(o.state for o in evidence.inputs))}"


def repair_product(evidence: Evidence) -> str:
    """Two tensors are scaled; a layer has a weight, which is learned at its own scale."""
    if evidence.op in ("mm", "bmm", "baddbmm", "matmul", "mv", "dot") and not layer_weight(evidence):
        to = "({X} * {X}.shape[-1] ** -0.5) @ {Y}"
        return rewrite("matmul", "bmm", "mm", to=to, instead="(x * x.shape[-1] ** -0.5) @ y")(evidence)
    return (
        "with torch.autocast(x.device.type, enabled=False):\n"
        "    y = layer.float()(x.float())  # this layer in float32; or bfloat16 for all"
    )


def layer_weight(evidence: Evidence) -> bool:
    return evidence.origin.module_type in LAYERS


HALF_MATMUL = Cause(
    id="half-matmul-overflow",
    title="Matrix product that overflows half precision",
    phases=FORWARD,
    ops=PRODUCTS,
    applies_if=overflows_half,
    what_happens="A product sums many terms; float16 ends at 65504, which 64 terms of 32 · 32 exceed.",
    how_to_fix="Use bfloat16, scale the factors before the product, or compute this layer in float32.",
    because=lambda e: f"{reach(e)}, and {HALF_END}",
    repair=repair_product,
)

HALF_SQUARE = Cause(
    id="half-square-overflow",
    title="Square that overflows half precision",
    phases=FORWARD,
    ops=("square", "pow", "mul", "cumprod", "prod"),
    applies_if=overflows_half,
    what_happens="The square of 256 is 65536, beyond float16.",
    how_to_fix="Compute it in float32: `x.float().square()`.",
    because=lambda e: f"{reach(e)}, and {HALF_END}",
    repair=rewrite("square", to="{X}.float().square()", instead="x.float() ** 2"),
)

HALF_RESIDUAL = Cause(
    id="half-residual-overflow",
    title="Residual stream that outgrows half precision",
    phases=FORWARD,
    ops=("add", "sub"),
    applies_if=overflows_half,
    what_happens="Each block adds to the residual stream; in float16 it overflows after enough of them.",
    how_to_fix="Keep the residual stream in float32 or use bfloat16; scale the blocks' outputs down.",
    because=lambda e: f"{reach(e)}, and {HALF_END}",
    repair=rewrite("add", to="{X}.float() + {y}", instead="x = x.float() + block(x)"),
)

CAST_OVERFLOW = Cause(
    id="fp16-cast-overflow",
    title="Cast to half precision of a number beyond it",
    phases=FORWARD,
    ops=("to_copy", "copy"),
    applies_if=overflows_half,
    what_happens="float16 ends at 65504, and autocast casts the inputs of every matrix product to it.",
    how_to_fix="Use bfloat16, normalise before the layer, or switch autocast off around it.",
    because=lambda e: f"the values reach {largest(e.input)}, and {HALF_END}: {result(e)}",
    repair=snippet("with torch.autocast(device_type, enabled=False):\n    y = layer(x.float())"),
)

HALF_OVERFLOW = Cause(
    id="half-overflow",
    title="A result beyond half precision",
    phases=FORWARD,
    ops=(),
    applies_if=overflows_half,
    what_happens="float16 ends at 65504: sums, products and powers of ordinary activations exceed it.",
    how_to_fix="Use bfloat16, or compute this operator in float32.",
    because=lambda e: f"{reach(e)}, and {HALF_END}",
    repair=snippet("x = x.float()  # before this operator"),
)

OVERFLOWS = (HALF_MATMUL, HALF_SQUARE, HALF_RESIDUAL, CAST_OVERFLOW, HALF_OVERFLOW)
