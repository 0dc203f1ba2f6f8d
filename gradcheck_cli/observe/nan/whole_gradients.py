"""The gradients of one rank as FSDP2 has them before it sends their parts to the others."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from gradcheck_cli.observe.hooks import patched

HOME = "torch.distributed.fsdp._fully_shard._fsdp_param_group"
NAME = "foreach_reduce"


def can_be_seen() -> bool:
    """Whether FSDP2 is in use, and has the function that all of them pass through."""
    return hasattr(sys.modules.get(HOME), NAME)


@contextmanager
def whole_gradients(names: Mapping[int, str], look: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call `look` with the name and the gradient of each parameter, at the moment before they are scattered.

    `names` are those of the parameters that the optimizer holds, by identity.
    """

    def looking(call: Callable[..., Any]) -> Callable[..., Any]:
        def foreach_reduce(parameters: Any, gradients: Any, *args: Any, **kwargs: Any) -> Any:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                look(names.get(id(parameter.sharded_param), ""), gradient)
            return call(parameters, gradients, *args, **kwargs)

        return foreach_reduce

    with patched(sys.modules[HOME], NAME, looking):
        yield
