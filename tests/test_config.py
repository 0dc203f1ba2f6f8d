"""Settings: flags over gradcheck.yaml over [tool.gradcheck] over defaults, and errors with key and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gradcheck_cli.config import KINDS, Settings, load_clip_settings, load_settings, load_trace_settings
from gradcheck_cli.errors import ConfigError
from gradcheck_cli.records import Severity


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def error_of(flags: dict[str, Any] | None = None, config: str | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_settings(flags or {}, Path(config) if config else None)
    return caught.value


def error_in(yaml: str) -> ConfigError:
    Path("gradcheck.yaml").write_text(yaml)
    return error_of()


def test_defaults() -> None:
    settings = load_settings({})
    assert settings == Settings()
    assert (settings.steps, settings.device, settings.precision, settings.fail_on) == (50, "auto", "fp32", "error")


def test_each_source_goes_over_the_next() -> None:
    Path("pyproject.toml").write_text("[tool.gradcheck]\nsteps = 1\nseed = 2\naccumulate = 3\n")
    Path("gradcheck.yaml").write_text("steps: 10\nseed: 20\n")
    settings = load_settings({"steps": 100})
    assert (settings.steps, settings.seed, settings.accumulate, settings.device) == (100, 20, 3, "auto")


def test_nan_trace_has_a_limit_of_its_own_where_none_is_given() -> None:
    settings = load_trace_settings({"seed": 3})
    assert (settings.steps, settings.one_epoch, settings.seed) == (1000, True, 3)
    assert load_trace_settings({"steps": 5000}) == Settings(steps=5000)
    Path("gradcheck.yaml").write_text("steps: 50\n")
    assert load_trace_settings({}) == Settings(steps=50)
    assert "unknown key 'one_epoch'" in error_in("one_epoch: true\n").message


def test_recommend_clip_has_limits_of_its_own_where_none_is_given() -> None:
    settings = load_clip_settings({"seed": 3})
    assert (settings.steps, settings.seed, settings.percentile, settings.horizon) == (300, 3, 95.0, 500)
    assert load_clip_settings({"until_stable": True}).steps == 5000
    assert load_clip_settings({"until_stable": True, "steps": 70}).steps == 70
    Path("gradcheck.yaml").write_text("steps: 50\nuntil_stable: true\n")
    assert load_clip_settings({}).steps == 50


def test_recommend_clip_never_clips_but_judges_the_configured_value() -> None:
    Path("gradcheck.yaml").write_text("clip: 2.5\nkeep_going: true\n")
    settings = load_clip_settings({})
    assert (settings.clip, settings.max_norm, settings.keep_going) == (None, 2.5, False)
    assert load_clip_settings({"max_norm": 4.0}).max_norm == 4.0
    Path("gradcheck.yaml").write_text("clip: 2.5\nmax-norm: 3\n")
    assert load_clip_settings({}).max_norm == 3.0


def test_what_to_verify_against_implies_to_verify() -> None:
    assert not load_clip_settings({}).verify
    settings = load_clip_settings({"verify_against": ["1.0,zclip", "5e-1"]})
    assert (settings.verify, settings.verify_against) == (True, ("1", "zclip", "0.5"))
    for yaml in ("[1.0, zclip, 5e-1]", "1.0, zclip,0.5"):
        Path("gradcheck.yaml").write_text(f"verify_against: {yaml}\n")
        assert load_clip_settings({}).verify_against == ("1", "zclip", "0.5")
    Path("gradcheck.yaml").write_text("verify_against: 2\n")
    assert load_clip_settings({}).verify_against == ("2",)


def test_a_file_that_is_named_is_the_only_one() -> None:
    Path("gradcheck.yaml").write_text("steps: 10\nseed: 20\n")
    Path("other.yml").write_text("steps: 7\n")
    Path("other.toml").write_text("[tool.gradcheck]\nsteps = 8\n")
    assert load_settings({}, Path("other.yml")) == Settings(steps=7)
    assert load_settings({}, Path("other.toml")) == Settings(steps=8)


def test_every_kind_of_value() -> None:
    Path("gradcheck.yaml").write_text("""
        steps: 5
        clip: 1
        lr: 1e-3
        tiny: 1e-9
        fail-on: warning
        keep_going: true
        select: [GC1, GC203]
        ignore: GC107, GC108
        severity: {GC107: error, GC201: info}
        set: {width: 3, names: [a, 1e-2]}
        output: [a.json, "b,c.npz"]
        checkpoint:
    """)
    assert load_settings({}) == Settings(
        steps=5,
        clip=1.0,
        lr=1e-3,
        tiny=1e-9,
        fail_on="warning",
        keep_going=True,
        select=("GC1", "GC203"),
        ignore=("GC107", "GC108"),
        severity={"GC107": Severity.ERROR, "GC201": Severity.INFO},
        set={"width": 3, "names": ["a", 0.01]},
        output=("a.json", "b,c.npz"),
    )


def test_toml_tables() -> None:
    Path("pyproject.toml").write_text("""
        [tool.other]
        steps = "many"
        [tool.gradcheck]
        output = "a,b.json"
        [tool.gradcheck.severity]
        GC107 = "warning"
        [tool.gradcheck.set]
        width = 4
    """)
    severity = {"GC107": Severity.WARNING}
    assert load_settings({}) == Settings(output=("a,b.json",), severity=severity, set={"width": 4})


def test_arguments_for_the_callable_are_joined() -> None:
    Path("gradcheck.yaml").write_text("set: {width: 3, depth: 2}\n")
    assert load_settings({"set": {"width": 9}}).set == {"width": 9, "depth": 2}


@pytest.mark.parametrize("content", ["", "# nothing yet\n", "{}", "---\n"])
def test_an_empty_file_sets_nothing(content: str) -> None:
    Path("gradcheck.yaml").write_text(content)
    Path("pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert load_settings({}) == Settings()


WRONG: dict[str, Any] = {
    "steps": ["many", 0, -1, 2.5, True, None, [3], float("inf"), float("nan")],
    "accumulate": [0, "2"],
    "seed": [-1, 0.5],
    "probe_every": [-1],
    "max_recorded_steps": [1],
    "clip": [0, -1, "one", float("nan"), float("inf"), True, 10**400],
    "lr": [0, "fast"],
    "percentile": [0, 100, -1, 101, "95", float("nan"), None],
    "horizon": [0, 2.5, None, 10**9],
    "max_norm": [0, -1, "one", float("inf")],
    "until_stable": [1],
    "verify": ["yes"],
    "verify_against": [0, -1, "adamclip", ["1", "nan"], [True], [None], [[1]], {"zclip": 1}],
    "large": [0, None],
    "precision": ["fp8", 16, None],
    "fail_on": ["info", True],
    "device": [0, None],
    "eval": ["yes", 1],
    "quiet": [None],
    "select": [3, [101], {"GC101": 1}.keys() and 5],
    "output": [3, [4]],
    "set": ["width=3", [1]],
    "severity": [{"GC107": "fatal"}, {"GC107": None}, "error", ["GC107"]],
    "format": [None],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_value_of_the_wrong_kind(name: str, value: Any) -> None:
    error = error_of({name: value})
    assert error.message.startswith(f"--{name.replace('_', '-')} must be ")
    assert error.message.endswith(f"not {value!r}")


def test_the_key_and_its_line_are_named() -> None:
    error = error_in("device: cpu\n\nsteps: many\n")
    assert error.message == "gradcheck.yaml:3: steps must be a whole number of at least 1, not 'many'"


def test_the_line_is_that_of_the_key_itself() -> None:
    """Not of a like-named one deeper down."""
    assert "gradcheck.yaml:3:" in error_in("set:\n  steps: 3\nsteps: many\n").message
    assert "gradcheck.yaml:2:" in error_in("{device: cpu,\n steps: many}\n").message
    Path("gradcheck.yaml").unlink()
    Path("pyproject.toml").write_text("[tool.other]\nsteps = 1\n[tool.gradcheck]\nseed = 1\nsteps = 'many'\n")
    assert "pyproject.toml:5: steps" in error_of().message
    Path("pyproject.toml").write_text("[tool.gradcheck.severity]\nGC107 = 'fatal'\n")
    assert "pyproject.toml:1: severity" in error_of().message


def test_an_unknown_key() -> None:
    error = error_in("seed: 1\nstpes: 3\n")
    assert error.message == "gradcheck.yaml:2: unknown key 'stpes'"
    assert error.hint == "did you mean 'steps'?"
    assert "known keys: steps, device" in error_in("xyz: 3\n").hint


@pytest.mark.parametrize("source", ["steps: [1,\n", "steps: 1\n\t- x\n", "a: b: c\n", "x: *nowhere\n", "[1]: 2\n---\n"])
def test_broken_yaml_is_named_with_its_line(source: str) -> None:
    error = error_in(source)
    assert error.message.startswith("gradcheck.yaml:")
    assert error.message.split(":")[1].isdigit()
    assert error.hint


@pytest.mark.parametrize("source", ["- steps\n", "steps", "3"])
def test_yaml_without_keys(source: str) -> None:
    assert "expected keys and values" in error_in(source).message


def test_a_date_that_does_not_exist() -> None:
    assert "gradcheck.yaml" in error_in("steps: 2020-13-45\n").message


def test_broken_toml_is_named_with_its_line() -> None:
    Path("pyproject.toml").write_text("[tool.gradcheck]\nsteps = \n")
    assert "pyproject.toml" in error_of().message
    assert "line 2" in error_of().message


@pytest.mark.parametrize("source", ["tool = 3\n", "[tool]\ngradcheck = 3\n"])
def test_toml_where_the_table_is_something_else(source: str) -> None:
    Path("pyproject.toml").write_text(source)
    assert "[tool.gradcheck]" in error_of().message


def test_a_named_toml_file_needs_the_table() -> None:
    """Else its keys would be passed over in silence."""
    Path("gradcheck.toml").write_text("steps = 3\n")
    error = error_of(config="gradcheck.toml")
    assert "gradcheck.toml has no table [tool.gradcheck]" in error.message


def test_files_that_cannot_be_read() -> None:
    Path("folder.yaml").mkdir()
    Path("binary.yaml").write_bytes(b"\xff\xfe\x00")
    for name, words in {"missing.yaml": "No such file", "folder.yaml": "directory", "binary.yaml": "UTF-8"}.items():
        error = error_of(config=name)
        assert name in error.message
        assert words in error.message
        assert error.hint


@pytest.mark.parametrize("name", KINDS)
def test_every_setting_takes_its_own_default(name: str) -> None:
    default = getattr(Settings(), name)
    assert getattr(load_settings({name: default}), name) == default
