"""A LightningModule with its data, made into a workload: its training_step and configure_optimizers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from gradcheck_cli.drive.adapters.configuration import read_configuration
from gradcheck_cli.drive.adapters.parts import PROFILE_SCRIPT, Adapted, base_of, overrides
from gradcheck_cli.drive.adapters.schedules import Place, Schedules
from gradcheck_cli.drive.usercode import user_code
from gradcheck_cli.errors import TargetError

PACKAGES = ("lightning", "pytorch_lightning")
MEMBERS = ("dataloader", "datamodule", "trainer", "loss_fn", "training_step", "optimizer", "scheduler")
PRECISIONS = {"32-true": "fp32", "bf16-mixed": "bf16", "16-mixed": "fp16"}
ALONE = f"what needs a Trainer: return (module, data, trainer), or {PROFILE_SCRIPT}"
NOT_CALLED = (
    *("on_fit_start", "on_train_start", "on_train_epoch_start", "on_train_epoch_end"),
    *("on_train_batch_start", "on_train_batch_end", "on_before_backward", "on_after_backward", "backward"),
    *("on_before_optimizer_step", "on_before_zero_grad", "optimizer_step", "optimizer_zero_grad"),
    *("configure_gradient_clipping", "lr_scheduler_step", "transfer_batch_to_device"),
)


@dataclass(frozen=True)
class Fit:
    """A module, its data (a DataModule, a loader, or None for the module's own), the trainer, and parts given apart."""

    module: Any
    data: Any = None
    trainer: Any = None
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def datamodule(self) -> Any:
        """The data, if it is a DataModule."""
        return self.data if base_of(self.data, "LightningDataModule", *PACKAGES) else None


def find_fit(returned: Any) -> Fit | None:
    """The LightningModule in what an entrypoint returned, with what goes with it; None without one."""
    if is_module(returned):
        return Fit(returned)
    if isinstance(returned, (tuple, list)) and not hasattr(returned, "model"):
        known = 0 < len(returned) <= 3 and is_module(returned[0]) and (len(returned) < 3 or is_trainer(returned[2]))
        return Fit(*returned) if known else None
    members = returned if isinstance(returned, Mapping) else members_of(returned)
    if not is_module(members.get("model")):
        return None
    given = {key: value for key, value in members.items() if value is not None}
    module, trainer = given.pop("model"), given.pop("trainer", None)
    data = [given.pop(key) for key in ("datamodule", "dataloader") if key in given]
    return Fit(module, data[0] if data else None, trainer, given)


def members_of(returned: Any) -> dict[str, Any]:
    """The attributes of an object with a model; nothing of any other."""
    try:
        has_model = hasattr(returned, "model")
    except Exception:  # a property of theirs: whoever reads the entrypoint's result says so
        return {}
    if isinstance(returned, nn.Module) or not has_model or not is_module(returned.model):
        return {}
    return {key: getattr(returned, key) for key in ("model", *MEMBERS) if hasattr(returned, key)}


def is_module(value: Any) -> bool:
    """Whether it is a LightningModule, of either package."""
    return base_of(value, "LightningModule", *PACKAGES) is not None


def is_trainer(value: Any) -> bool:
    """Whether it is Lightning's Trainer."""
    return base_of(value, "Trainer", *PACKAGES) is not None


def parts_of_fit(fit: Fit) -> Adapted:
    """The parts of a workload; those that were given apart stay.

    Raises TargetError for manual optimization, several optimizers and several loaders.
    """
    check_automatic(fit.module)
    with user_code(f"{type(fit.module).__name__} cannot be made ready to train", ALONE, kind=TargetError):
        set_up(fit)
        loader = find_loader(fit)
        place = Place(fit.module)
        optimizer, configured = (None, []) if "optimizer" in fit.given else read_configuration(fit.module)
    schedules = Schedules([one for one in configured if not one.needs_metric], place)
    batches = schedules.epochs(loader) if hasattr(loader, "__iter__") else loader  # which is refused later
    parts = {"model": fit.module, "dataloader": batches, "optimizer": optimizer}
    if optimizer is not None:
        parts["scheduler"] = schedules
    if "loss_fn" not in fit.given:
        parts["training_step"] = stepping(fit, place)
    waiting = [type(one.scheduler).__name__ for one in configured if one.needs_metric]
    notes = (*notes_on(fit), *(f"{name} is not stepped" for name in waiting))
    return Adapted({**parts, **fit.given}, notes, settings_of(fit.trainer) if fit.trainer is not None else {})


def check_automatic(module: Any) -> None:
    """Raise TargetError for a module that calls its optimizers itself."""
    if not getattr(module, "automatic_optimization", True):
        raise TargetError(f"{type(module).__name__} optimizes manually, which takes a Trainer", PROFILE_SCRIPT)


def set_up(fit: Fit) -> None:
    """What `Trainer.fit` calls before training, in its order."""
    owners = [owner for owner in (fit.datamodule, fit.module) if owner is not None]
    for owner in owners:
        if fit.trainer is not None:
            owner.trainer = fit.trainer
        owner.prepare_data()
    for owner in owners:
        owner.setup("fit")
    if hasattr(fit.module, "configure_model"):
        fit.module.configure_model()


def find_loader(fit: Fit) -> Any:
    """The training data. Raises TargetError for several loaders at once."""
    if fit.data is None or fit.datamodule is not None:
        loader = (fit.datamodule or fit.module).train_dataloader()
    else:
        loader = fit.data
    several = loader.values() if isinstance(loader, Mapping) else loader if isinstance(loader, (list, tuple)) else ()
    if any(base_of(one, "DataLoader", "torch") for one in several):
        raise TargetError(f"there are {len(loader)} loaders, which a Trainer combines", PROFILE_SCRIPT)
    return loader


def stepping(fit: Fit, place: Place) -> Callable[[nn.Module, Any], Tensor]:
    """The module's training_step as `training_step(model, batch)`."""
    module = fit.module
    takes_index = len(inspect.signature(module.training_step).parameters) > 1
    before, after = (hooked(fit, name) for name in ("on_before_batch_transfer", "on_after_batch_transfer"))

    def training_step(model: nn.Module, batch: Any) -> Tensor:
        index, place.batches = place.batches, place.batches + 1
        batch = after(before(batch))
        with silenced(module):
            output = module.training_step(batch, index) if takes_index else module.training_step(batch)
        return output["loss"] if isinstance(output, Mapping) else output  # type: ignore[no-any-return]

    return training_step


def hooked(fit: Fit, name: str) -> Callable[[Any], Any]:
    """A hook for batches, the DataModule's where it has one, as in Lightning."""
    base = base_of(fit.datamodule, "LightningDataModule", *PACKAGES)
    owner = fit.datamodule if base and overrides(fit.datamodule, base, name) else fit.module
    hook = getattr(owner, name)
    return lambda batch: hook(batch, 0)


@contextmanager
def silenced(module: Any) -> Iterator[None]:
    """`self.log` and `self.log_dict` do nothing: without a running Trainer they warn, or raise."""
    own = {name: vars(module)[name] for name in ("log", "log_dict") if name in vars(module)}
    vars(module).update(log=ignore, log_dict=ignore)
    try:
        yield
    finally:
        for name in ("log", "log_dict"):
            vars(module).pop(name, None)
        vars(module).update(own)


def ignore(*args: Any, **kwargs: Any) -> None:
    """Log nothing."""


def notes_on(fit: Fit) -> tuple[str, ...]:
    """What of the module and its trainer is not used."""
    base = base_of(fit.module, "LightningModule", *PACKAGES)
    own = [name for name in NOT_CALLED if overrides(fit.module, base, name)]
    notes: tuple[str, ...] = ()
    if own:
        notes += (f"only a Trainer calls {', '.join(own)} of the module: {PROFILE_SCRIPT}",)
    if fit.trainer is not None and str(fit.trainer.precision) not in PRECISIONS:
        notes += (f"the Trainer's precision {fit.trainer.precision} is not used",)
    if fit.trainer is not None and fit.trainer.gradient_clip_val and not clips_norm(fit.trainer):
        notes += ("the Trainer clips by value: gradients are not clipped here",)
    return notes


def settings_of(trainer: Any) -> dict[str, Any]:
    """How it is set, as `Adapted.trainer` has it."""
    return {
        "accumulate": trainer.accumulate_grad_batches,
        "clip": trainer.gradient_clip_val or None if clips_norm(trainer) else None,
        "precision": PRECISIONS.get(str(trainer.precision), "fp32"),
    }


def clips_norm(trainer: Any) -> bool:
    """Whether its clipping, if any, is of the norm and not of each value."""
    return str(trainer.gradient_clip_algorithm or "norm").endswith("norm")
