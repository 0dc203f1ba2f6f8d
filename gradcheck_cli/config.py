"""Settings: flags over gradcheck.yaml over [tool.gradcheck] in pyproject.toml over defaults."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from gradcheck_cli.config_files import ConfigFile, find_configs
from gradcheck_cli.config_flags import as_flag
from gradcheck_cli.config_values import (
    Kind,
    acceptances,
    choice,
    clips,
    flag,
    mapping,
    number,
    optional,
    paths,
    severities,
    text,
    texts,
    tolerances,
    whole_number,
)
from gradcheck_cli.errors import ConfigError
from gradcheck_cli.records import Severity

TRACE_STEPS = 1000
CLIP_STEPS = 300
STABLE_STEPS = 5000
ADAPTIVE_CLIPS = ("zclip", "autoclip")
TARGETS = "targets"


def setting(default: Any, kind: Kind) -> Any:
    """A field that a configuration file may set; `kind` reads its value."""
    return field(default=default, metadata={"kind": kind})


@dataclass(frozen=True)
class Settings:
    """Everything that can be chosen. The names are those of the flags and of the configuration's keys.

    `percentile` of the gradient norms is the max_norm that recommend-clip gives, `horizon` the number of steps that
    its clip rate is promised for, `max_norm` the user's own value, which it judges. `until_stable` goes on until the
    interval of that percentile is narrow, `verify` trains again with the value, `verify_against` with these, too:
    numbers, or names of ADAPTIVE_CLIPS. `nproc` ranks are started on this machine, `strategy` synchronises them (None:
    DDP, unless the model does so itself), and none waits longer than `timeout` (seconds) for another.
    Only a command sets the last three: `one_epoch` ends a run with the first pass over the data, if not `steps` before;
    `to_the_end` lets a script run as long as it likes, whatever `steps` says; `given` are the names of what the user
    chose, which no Trainer overrules.
    """

    steps: int = setting(50, whole_number(1))
    device: str = setting("auto", text())
    precision: str = setting("fp32", choice("fp32", "bf16", "fp16"))
    accumulate: int = setting(1, whole_number(1))
    clip: float | None = setting(None, optional(number(above=0)))
    seed: int = setting(0, whole_number(0))
    set: Mapping[str, Any] = field(default_factory=dict, metadata={"kind": mapping()})
    optimizer: str | None = setting(None, optional(text()))
    lr: float | None = setting(None, optional(number(above=0)))
    checkpoint: str | None = setting(None, optional(text()))
    eval: bool = setting(False, flag())
    eager: bool = setting(False, flag())
    nproc: int = setting(1, whole_number(1))
    strategy: str | None = setting(None, optional(choice("ddp", "fsdp2", "none")))
    timeout: float = setting(300.0, number(above=0))
    probe_every: int = setting(10, whole_number(0))
    max_recorded_steps: int = setting(10_000, whole_number(2))
    stop_above: float | None = setting(None, optional(number(above=0)))
    keep_going: bool = setting(False, flag())
    check_scale: bool = setting(False, flag())
    percentile: float = setting(95.0, number(above=0.1, below=99.99))
    horizon: int = setting(500, whole_number(1, 100_000))
    max_norm: float | None = setting(None, optional(number(above=0)))
    until_stable: bool = setting(False, flag())
    verify: bool = setting(False, flag())
    verify_against: tuple[str, ...] = setting((), clips(*ADAPTIVE_CLIPS))
    large: float = setting(100.0, number(above=0))
    tiny: float = setting(1e-8, number(above=0))
    select: tuple[str, ...] = setting((), texts())
    ignore: tuple[str, ...] = setting((), texts())
    severity: Mapping[str, Severity] = field(default_factory=dict, metadata={"kind": severities()})
    baseline: str | None = setting(None, optional(text()))
    write_baseline: str | None = setting(None, optional(text()))
    accept: tuple[tuple[str, str], ...] = setting((), acceptances())
    tolerances: Mapping[str, float] = field(default_factory=dict, metadata={"kind": tolerances()})
    fail_on: str = setting("error", choice("error", "warning", "never"))
    format: str = setting("table", text())
    output: tuple[str, ...] = setting((), paths())
    log: tuple[str, ...] = setting((), paths("loggers"))
    step_summary: bool = setting(True, flag())
    quiet: bool = setting(False, flag())
    one_epoch: bool = False
    to_the_end: bool = False
    given: frozenset[str] = field(default=frozenset(), compare=False)


FLAGS_ONLY = ("write_baseline", "accept")
"""What no file can set: every run would write anew what it is held against."""
KINDS: dict[str, Kind] = {entry.name: entry.metadata["kind"] for entry in fields(Settings) if entry.metadata}


Values = Mapping[str, Any]
NONE: Values = {}


def load_script_settings(flags: Values, config: Path | None = None, own: Values = NONE) -> Settings:
    """As `load_settings`; where nothing gives `steps`, the script decides when it ends."""
    values = read_values(flags, config, own)
    return Settings(**values, to_the_end="steps" not in values)


def load_settings(flags: Values, config: Path | None = None, own: Values = NONE) -> Settings:
    """Settings from the flags that were given, the target's `own`, the configuration files, and defaults.

    `config` names the only file to read; without it those of the working directory are: gradcheck.yaml, and below
    it pyproject.toml. Raises ConfigError for a file that cannot be read, and for a key or value that is not known,
    with its line.
    """
    return Settings(**read_values(flags, config, own))


def load_trace_settings(flags: Values, config: Path | None = None, own: Values = NONE) -> Settings:
    """As `load_settings`; where nothing gives `steps`, TRACE_STEPS or one epoch, whichever is shorter."""
    values = read_values(flags, config, own)
    limits: dict[str, Any] = {} if "steps" in values else {"steps": TRACE_STEPS, "one_epoch": True}
    return Settings(**values, **limits)


def load_clip_settings(
    flags: Values, config: Path | None = None, own: Values = NONE, of_script: bool = False
) -> Settings:
    """As `load_settings`, for a run that is never clipped and ends with the first non-finite loss.

    A `clip` becomes the `max_norm` to judge where nothing gives that, and `verify_against` implies `verify`. Where
    nothing gives `steps`, CLIP_STEPS, with `until_stable` at most STABLE_STEPS, of a script until it ends.
    """
    values = read_values(flags, config, own)
    given = Settings(**{"steps": STABLE_STEPS if values.get("until_stable") else CLIP_STEPS, **values})
    return replace(
        given,
        max_norm=given.max_norm or given.clip,
        clip=None,
        to_the_end=of_script and "steps" not in values,
        keep_going=False,
        verify=given.verify or bool(given.verify_against),
        given=given.given | ({"max_norm"} if given.clip else set()),
    )


def read_values(flags: Values, config: Path | None, own: Values) -> dict[str, Any]:
    """What all of them give, by the names of Settings; what is given by several is the flags', or else the target's."""
    flags = {name: check(name, value, as_flag(name)) for name, value in flags.items()}
    values: dict[str, Any] = {}
    for file in find_configs(config):
        values.update(check_all(file))
    for layer in (own, flags):
        values |= {**layer, "set": {**values.get("set", {}), **layer.get("set", {})}}
    return {**values, "given": frozenset(values)}


def check_all(file: ConfigFile) -> dict[str, Any]:
    """The values by the names of Settings; raises ConfigError with the line of a key that does not fit."""
    general = {key: value for key, value in file.values.items() if key != TARGETS}
    return check_values(file, general, (), (TARGETS,))


def check_values(file: ConfigFile, values: Values, path: Sequence[str], also: Sequence[str]) -> dict[str, Any]:
    """As `check_all`, of the values below a path of keys; `also` are keys that may stand beside them."""
    checked = {}
    for key, value in values.items():
        name, where = str(key).replace("-", "_"), file.where(*path, key)
        words = ".".join([*path, str(key)])
        if name in FLAGS_ONLY:
            raise ConfigError(f"{where}: {words} is for the command line", f"type {as_flag(name)} when you mean it")
        if name not in KINDS:
            raise ConfigError(f"{where}: unknown key {words!r}", suggest(name, [*KINDS, *also]))
        checked[name] = check(name, value, f"{where}: {words}")
    return checked


def suggest(name: str, known: Sequence[str]) -> str:
    """The known name that is meant, if one is like it, or all."""
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"


def check(name: str, value: Any, where: str) -> Any:
    """The value of a setting in its own type; raises ConfigError that says where and what it should be."""
    kind = KINDS[name]
    try:
        return kind.read(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{where} must be {kind.words}, not {value!r}") from error
