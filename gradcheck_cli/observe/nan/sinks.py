"""The values that matter in a step: losses, gradients, buffers, parameters; which of them are not finite."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.utils._python_dispatch import _disable_current_modes

from gradcheck_cli.observe.nan.lineage import Suspect
from gradcheck_cli.observe.nan.provenance import OUTSIDE, Provenance
from gradcheck_cli.observe.nan.sites import Sites
from gradcheck_cli.observe.nan.sources import Sources
from gradcheck_cli.observe.nan.states import is_finite, state_of
from gradcheck_cli.observe.nan.whole_gradients import can_be_seen, whole_gradients
from gradcheck_cli.tape import Sink


class Sinks:
    """See `hooks.Observer`. Gradients are looked at before they are clipped, buffers before the update.

    Those in `known_bad` ("buffer:mask") were not finite before the first step: they are no sinks. Without a tracer
    that fills `provenance`, every value seems to come from outside the step.
    """

    def __init__(
        self,
        model: nn.Module,
        known_bad: Collection[str] = (),
        provenance: Provenance | None = None,
        sources: Sources | None = None,
        sites: Sites | None = None,
    ) -> None:
        self._model, self._known_bad = model, known_bad
        self._provenance, self._sources, self._sites = provenance or Provenance(), sources, sites or Sites({})
        self._unscaled: dict[int, tuple[Tensor, Tensor]] = {}
        self._sees_whole = False
        self.found: list[Sink] = []

    def before_backward(self, loss: Tensor) -> None:
        _, unscaled = self._unscaled.pop(id(loss), (loss, loss))
        if not self._sites.in_backward:
            self._check("loss", "", unscaled)

    def after_backward(self, loss: Tensor) -> None:
        pass

    def after_scale(self, loss: Tensor, scaled: Tensor) -> None:
        self._unscaled[id(scaled)] = (scaled, loss)

    def after_unscale(self, scaler: GradScaler, optimizer: Optimizer) -> None:
        self._check_gradients()

    def before_clip(self, parameters: Sequence[Tensor], max_norm: float | None) -> None:
        self._check_gradients()
        self._sites.begin("clip")

    def before_update(self, optimizer: Optimizer, has_closure: bool) -> None:
        self._check_gradients()
        self._check_buffers()
        self._sites.begin("optimizer")

    def after_update(self, optimizer: Optimizer) -> None:
        for name, parameter in self._model.named_parameters():
            self._check("parameter", name, parameter)
        self._sites.begin("forward")

    def after_scaler_step(self, optimizer: Optimizer) -> None:
        self._check_buffers()

    def add(self, sink: Sink) -> None:
        """Another bad value."""
        self.found.append(sink)

    @contextmanager
    def seeing_whole_gradients(self) -> Iterator[None]:
        """Look at gradients that are scattered among ranks before they are: afterwards they are those of all ranks."""
        if not can_be_seen():
            yield
            return
        self._sees_whole = True
        names = {id(parameter): name for name, parameter in self._model.named_parameters()}
        with whole_gradients(names, lambda name, gradient: self._check("gradient", name, gradient)):
            yield

    def _check_gradients(self) -> None:
        for name, parameter in self._model.named_parameters():
            gradient = parameter.grad
            if gradient is not None and not (self._sees_whole and hasattr(gradient, "to_local")):
                self._check("gradient", name, gradient)

    def _check_buffers(self) -> None:
        for name, buffer in self._model.named_buffers():
            self._check("buffer", name, buffer)

    def _check(self, what: str, name: str, tensor: Tensor) -> None:
        with _disable_current_modes():  # looking is no part of the step
            self._check_now(what, name, tensor)

    def _check_now(self, what: str, name: str, tensor: Tensor) -> None:
        known = f"{what}:{name}" in self._known_bad or any((s.what, s.name) == (what, name) for s in self.found if name)
        if known or is_finite(tensor):
            return
        nan_from, inf_from = Suspect.of(tensor.detach(), self._provenance.owners(tensor)).writers()
        source = self._sources.name(tensor) if self._sources and OUTSIDE in (*nan_from, *inf_from) else ""
        micro_batch = max(self._sites.micro_batch, 0)
        self.add(Sink(what, name, state_of(tensor.detach()), nan_from, inf_from, source, micro_batch))


def bad_from_the_start(model: nn.Module) -> frozenset[str]:
    """Buffers and frozen parameters that are not finite now, by "buffer:" or "parameter:" and their name.

    They may be meant so, as a mask of -inf is; a parameter that is trained cannot be.
    """
    frozen = [(name, parameter) for name, parameter in model.named_parameters() if not parameter.requires_grad]
    named = [("parameter", frozen), ("buffer", model.named_buffers())]
    return frozenset(f"{what}:{name}" for what, tensors in named for name, t in tensors if not is_finite(t))
