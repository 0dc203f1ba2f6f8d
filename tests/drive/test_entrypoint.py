"""How a target is found and called."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from gradcheck_cli import pipeline
from gradcheck_cli.config import Settings
from gradcheck_cli.errors import TargetError
from tests.drive.conftest import Run
from tests.drive.training import batches, parts

Profile = Callable[..., Run]
TUPLE = "from tiny import *\ndef build(): return net(), data(), mse\n"


def refusal(call: Callable[[], Any]) -> TargetError:
    with pytest.raises(TargetError) as caught:
        call()
    assert caught.value.hint
    return caught.value


def test_a_file_in_the_working_directory(profile_file: Profile) -> None:
    report, error = profile_file(TUPLE)
    assert error is None
    assert len(report.series) == 3
    assert report.run.target == "train.py:build"
    assert report.run.location is not None
    assert (Path(report.run.location.file).name, report.run.location.line) == ("train.py", 2)


@pytest.mark.parametrize("form", ["absolute", "relative", "symlink"])
def test_a_file_elsewhere_finds_its_siblings(folder: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    (folder / "train.py").write_text(TUPLE)
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder / "sub")
    (folder / "sub" / "link.py").symlink_to(folder / "train.py")
    path = {"absolute": str(folder / "train.py"), "relative": "../train.py", "symlink": "../sub/../train.py"}[form]
    assert pipeline.profile(f"{path}:build", Settings(steps=2))[1] is None


def test_a_dotted_module(folder: Path) -> None:
    (folder / "project").mkdir()
    (folder / "project" / "__init__.py").write_text("")
    (folder / "project" / "parts.py").write_text("from tiny import net, data, mse")
    (folder / "project" / "train.py").write_text("from .parts import *\ndef build(): return net(), data(), mse")
    assert pipeline.profile("project.train:build", Settings(steps=2))[1] is None


def test_a_file_in_a_package_may_import_relatively(folder: Path) -> None:
    inner = folder / "outer" / "inner"
    inner.mkdir(parents=True)
    for package in (inner, inner.parent):
        (package / "__init__.py").write_text("")
    (folder / "outer" / "parts.py").write_text("from tiny import net, data")
    (inner / "losses.py").write_text("from tiny import mse")
    (inner / "sibling.py").write_text("")
    source = "from ..parts import *\nfrom .losses import mse\nimport sibling\ndef build(): return net(), data(), mse"
    (inner / "train.py").write_text(source)
    assert pipeline.profile("outer/inner/train.py:build", Settings(steps=2))[1] is None


@pytest.mark.parametrize("target", ["circle/train.py:build", "circle/__init__.py:build", "circle:build"])
def test_a_package_whose_init_imports_the_target(folder: Path, target: str) -> None:
    (folder / "circle").mkdir()
    (folder / "circle" / "__init__.py").write_text("from .train import build")
    (folder / "circle" / "train.py").write_text(TUPLE)
    assert pipeline.profile(target, Settings(steps=1))[1] is None


@pytest.mark.parametrize("name", ["random.py", "torch.py", "yaml.py", "2-nets.py", "with space.py", "__main__.py"])
def test_a_file_named_like_a_module_or_like_none(profile_file: Profile, name: str) -> None:
    before = sys.modules.get(Path(name).stem)
    assert profile_file(TUPLE, name)[1] is None
    assert sys.modules.get(Path(name).stem) is before


def test_classes_of_the_target_can_be_dataclasses_and_be_pickled(profile_file: Profile) -> None:
    source = """
        import pickle
        from dataclasses import dataclass
        from tiny import *

        @dataclass
        class Batch:
            x: torch.Tensor
            y: "torch.Tensor"

        class Net(nn.Linear): pass

        def step(model, batch): return mse(model(batch.x), batch.y)

        def build():
            model = pickle.loads(pickle.dumps(Net(3, 1)))
            return {"model": model, "dataloader": [Batch(x, y) for x, y in data()], "training_step": step}
    """
    for name in ("train.py", "random.py"):
        assert profile_file(source, name)[1] is None


def test_worker_processes_can_load_the_targets_dataset(profile_file: Profile) -> None:
    source = """
        from tiny import *

        class Squares(torch.utils.data.Dataset):
            def __len__(self): return 4
            def __getitem__(self, i): return torch.full((3,), float(i)), torch.ones(1)

        def build(): return net(), torch.utils.data.DataLoader(Squares(), batch_size=2, num_workers=1), mse
    """
    assert len(profile_file(source)[0].series) == 3


def test_main_guard_does_not_run_and_arguments_are_the_files_own(profile_file: Profile) -> None:
    source = """
        import argparse, sys
        from tiny import *
        parser = argparse.ArgumentParser()
        parser.add_argument("--width", type=int, default=4)
        args = parser.parse_args()
        assert sys.argv == ["train.py"]
        def build(): return net(), data(), mse
        if __name__ == "__main__":
            raise RuntimeError("training started")
    """
    assert profile_file(source)[1] is None


def test_any_callable_will_do(profile: Profile) -> None:
    class Build:
        def __init__(self) -> None:
            self.model, self.dataloader, self.loss_fn = nn.Linear(3, 1), batches(2), nn.MSELoss()

    assert profile(Build)[1] is None
    assert profile(lambda *args, **kwargs: (nn.Linear(3, 1), batches(2), nn.MSELoss()))[1] is None


@pytest.mark.parametrize(
    ("target", "message", "hint"),
    [
        ("missing.py:build", "there is no file missing.py", "path/to/file.py:callable"),
        ("missing.module:build", "there is no module missing.module", "package.module:callable"),
        ("tiny.deeper:build", "there is no module tiny.deeper", "package.module:callable"),
        ("tiny.py", "'tiny.py' names no callable", "tiny.py:net"),
        ("tiny.py:", "'tiny.py:' names no callable", "tiny.py:net"),
        (":build", "':build' names no callable", "path/to/file.py:callable"),
        ("tiny.py:nett", "'nett' does not exist", "tiny.py:net, tiny.py:data, tiny.py:sgd"),
        ("tiny:nett", "'nett' does not exist", "tiny:net, tiny:data, tiny:sgd"),
        ("tiny.py:__doc__", "'__doc__' is not callable", "tiny.py:net"),
        ("./tiny:net", "there is no module ./tiny", "path/to/file.py:callable"),
    ],
)
def test_a_target_that_cannot_be_found(folder: Path, target: str, message: str, hint: str) -> None:
    error = refusal(lambda: pipeline.profile(target, Settings()))
    assert message in error.message
    assert hint in error.hint


def test_a_module_that_is_missing_inside_the_target_is_not_the_target(folder: Path) -> None:
    (folder / "project").mkdir()
    (folder / "project" / "__init__.py").write_text("import not_installed")
    for target in ("project.train:build", "project:build"):
        with pytest.raises(TargetError) as caught:
            pipeline.profile(target, Settings())
        assert "No module named 'not_installed'" in caught.value.message
        assert "import not_installed" in caught.value.details


# How it is called.


def test_set_gives_yaml_values_by_name(profile: Profile) -> None:
    given: dict[str, Any] = {}

    def build(width: int = 1, *, names: Any = (), **others: Any) -> Any:
        given.update(width=width, names=names, **others)
        return nn.Linear(3, 1), batches(2), nn.MSELoss()

    profile(build, set={"width": 7, "names": ["a"], "more": None})
    assert given == {"width": 7, "names": ["a"], "more": None}


def takes_two(width: int, depth: int = 2) -> Any:
    return parts()


def test_a_missing_argument_is_asked_for(profile: Profile) -> None:
    error = refusal(lambda: profile(takes_two))
    assert "needs the arguments width" in error.message
    assert "--set width=VALUE" in error.hint
    assert profile(takes_two, set={"width": 3})[1] is None


def test_an_unknown_argument_lists_the_known_ones(profile: Profile) -> None:
    error = refusal(lambda: profile(takes_two, set={"witdh": 3}))
    assert "takes no argument witdh" in error.message
    assert "depth, width" in error.hint
    assert "takes none" in refusal(lambda: profile(parts_without_arguments, set={"x": 1})).hint


def parts_without_arguments() -> Any:
    return parts()


def test_target_names_survive_pickle(profile_file: Profile) -> None:
    """What a worker process or torch.save needs: the target's module can be found by its name."""
    profile_file(TUPLE + "class Thing: pass\n", "things.py")
    thing = sys.modules["things"].Thing
    assert type(pickle.loads(pickle.dumps(thing()))) is thing
