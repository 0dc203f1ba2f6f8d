"""What modules and functions did on the probed steps: plain values, part of a recording.

Arrays have one row per probed step (`Probes.steps`); NaN where there is nothing. Large tensors are sampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from gradcheck_cli.records import Floats, Ints

SATURATING = ("sigmoid", "tanh", "softmax", "hardsigmoid", "hardtanh", "softsign", "relu6")
"""Kinds of activation of which saturation is measured; "relu" has zeros and dead units instead."""


class Site(NamedTuple):
    """A place where a function is called: the innermost `module`, the `kind` of function, and the how-manieth such
    `call` within one call of that module, from 0.

    Kinds: those of SATURATING and relu; sdpa and softmax for attention; rnn, lstm, gru and cell.
    """

    module: str
    kind: str
    call: int = 0

    @property
    def name(self) -> str:
        """blocks.0.attention, or with the kind where the module is the root."""
        return self.module or self.kind


@dataclass(frozen=True)
class LayerSignals:
    """What goes in and out of each probed module; (rows, probed modules), columns as `Recording.probed`.

    `input_rms` of its first floating tensor; `output_mean` and `output_zero_fraction` of its output.
    """

    input_rms: Floats
    output_mean: Floats
    output_zero_fraction: Floats


@dataclass(frozen=True)
class ActivationSignals:
    """Activation functions, modules or not; (rows, sites).

    `saturated`: fraction of elements where the derivative is under 5 % of its maximum (of softmax: of rows with one
    entry that near to 1; of relu6: of elements at 6), NaN for relu. `zero`: fraction of elements that are exactly 0.
    Over the latest calls that have 128 examples together, or else over all, (sites,): `units` is how many units
    or channels there are, `never_active` the fraction of them that gave nothing above 0 (kinds relu and relu6, else
    NaN), over `samples` examples.
    """

    sites: tuple[Site, ...]
    saturated: Floats
    zero: Floats
    units: Ints
    never_active: Floats
    samples: Ints


@dataclass(frozen=True)
class AttentionSignals:
    """Calls of attention; (rows, sites). `logit_std`: standard deviation over the keys a query sees, mean over queries.

    `entropy`: entropy of a query's weights over log of the number of keys it sees, median over the queries that see
    more than one.
    """

    sites: tuple[Site, ...]
    logit_std: Floats
    entropy: Floats


@dataclass(frozen=True)
class BlockSignals:
    """Blocks: like members of a ModuleList or Sequential that hold modules, in execution order; (rows, blocks).

    `output_rms` of the first floating tensor that a block returns; `branch_share`: RMS of output minus input over RMS
    of the output, where the shapes agree; `token_cosine`: mean cosine similarity of different tokens of an example,
    of outputs with three dimensions.
    """

    names: tuple[str, ...]
    output_rms: Floats
    branch_share: Floats
    token_cosine: Floats


@dataclass(frozen=True)
class RecurrenceSignals:
    """Recurrent modules: nn.RNN and its kin, and cells that are called again and again.

    `gradient_rms` (rows, sites, times): RMS of dL/dx_t of the input at each time step, of a cell the hidden state's;
    padded with NaN at the end. Longer series are sampled at even distances; `lengths` (sites,) are the true ones.
    """

    sites: tuple[Site, ...]
    gradient_rms: Floats
    lengths: Ints


@dataclass(frozen=True)
class RecurrentMatrix:
    """A hidden-to-hidden matrix before the first step, of LSTM and GRU the one of a gate; `gate` is "" for plain RNN.

    `radius` is the largest magnitude of an eigenvalue, `norm` the largest singular value.
    """

    parameter: str
    gate: str
    nonlinearity: str
    radius: float
    norm: float


@dataclass(frozen=True)
class WeightSignals:
    """Parameters before the first step; (parameters,), NaN where the parameter has fewer than two dimensions.

    `std` of the elements; `fan_in` and `fan_out` as torch.nn.init counts them. `recurrent` matrices.
    """

    std: Floats
    fan_in: Floats
    fan_out: Floats
    recurrent: tuple[RecurrentMatrix, ...]


@dataclass(frozen=True)
class Signals:
    """Everything of this kind.

    `output_variation` (rows,): how much the model's output depends on the example, as the standard deviation across
    the batch over the RMS. `same_class` (rows,): share of the examples whose largest output is the most frequent one,
    NaN where the output is no row of scores. `classes` (rows,): how many scores a row has.
    `input_variation` (rows,): how much its first floating input varies likewise.
    `gradient_dot` (rows, parameters): the gradient of the probed step times that of the next step, `gradient_square`
    the mean of the squares of both; of a sample of the elements of large parameters.
    """

    layers: LayerSignals
    activations: ActivationSignals
    attention: AttentionSignals
    blocks: BlockSignals
    recurrence: RecurrenceSignals
    weights: WeightSignals
    output_variation: Floats
    same_class: Floats
    classes: Floats
    input_variation: Floats
    gradient_dot: Floats
    gradient_square: Floats
