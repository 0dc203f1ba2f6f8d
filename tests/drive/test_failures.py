"""User code that fails: which step, what was recorded up to then, and the user's own frames and no others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gradcheck_cli.errors import GradcheckError, UserCodeError
from tests.drive.conftest import Run, assert_only_the_users_frames

Profile = Callable[..., Run]

HEAD = """from tiny import *

def fail_from(number, fail):
    '''A training step whose call `number` fails.'''
    calls = []
    def step(model, batch):
        calls.append(0)
        return fail(model, batch) if len(calls) > number else mse(model(batch[0]), batch[1])
    return step

"""


def step_that(fails: str) -> str:
    """A file whose third step runs the statement."""
    body = f"def fail(model, batch):\n    {fails}\n\n"
    build = "def build(): return {'model': net(), 'dataloader': data(), 'training_step': fail_from(2, fail)}\n"
    return HEAD + body + build


def failure(profile_file: Profile, source: str, **settings: Any) -> GradcheckError:
    """The error of a run that recorded two steps before it."""
    report, error = profile_file(source, steps=10, **settings)
    assert error is not None
    assert len(report.series) == 2
    assert report.run.ended == "failed"
    assert report.exit_code == 2
    assert report.error == error.message
    return error


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("raise ValueError('bad batch')", "ValueError: bad batch"),
        ("raise ValueError", "ValueError: (no message)"),
        ("raise SystemExit", "sys.exit(None)"),
        ("raise SystemExit(0)", "sys.exit(0)"),
        ("import sys; sys.exit('no data')", "sys.exit('no data')"),
        ("import asyncio; raise asyncio.CancelledError", "CancelledError"),
        ("raise StopIteration", "StopIteration"),
        ("return model(batch)", "TypeError"),
    ],
)
def test_a_step_that_fails(profile_file: Profile, statement: str, message: str) -> None:
    error = failure(profile_file, step_that(statement))
    assert isinstance(error, UserCodeError)
    assert "step 2, batch 2" in error.message
    assert message in error.message
    assert "tuple of 2: (Tensor(2, 3) float32, Tensor(2, 1) float32)" in error.hint
    assert_only_the_users_frames(error.details)
    assert "in fail\n" in error.details


def test_a_traceback_through_libraries_keeps_the_users_frames_and_causes(profile_file: Profile) -> None:
    source = step_that(
        "import json\n    try: json.loads('{')\n    except ValueError as error: raise KeyError('first') from error"
    )
    error = failure(profile_file, source)
    assert_only_the_users_frames(error.details)
    assert error.details.count("in fail\n") == 2
    assert "JSONDecodeError" in error.details
    assert "direct cause" in error.details


@pytest.mark.parametrize(
    ("statement", "message", "hint"),
    [
        ("return 3.5", "is float, not a tensor", "return the loss tensor"),
        ("return None", "is NoneType, not a tensor", "return the loss tensor"),
        ("return {'loss': model(batch[0]).sum()}", "{'loss': Tensor() float32}, not a tensor", "return the loss"),
        ("return model(batch[0])", "has shape (2, 1), not one number", "loss.mean()"),
        ("return mse(model(batch[0]), batch[1]).detach()", "does not require grad", ".detach()"),
        ("return torch.tensor(3)", "does not require grad", "integers"),
    ],
)
def test_a_loss_that_cannot_be_used(profile_file: Profile, statement: str, message: str, hint: str) -> None:
    error = failure(profile_file, step_that(statement))
    assert "step 2, batch 2" in error.message
    assert message in error.message
    assert hint in error.hint


def test_a_training_step_that_does_the_backward_itself_is_told_not_to(profile_file: Profile) -> None:
    error = failure(profile_file, step_that("loss = mse(model(batch[0]), batch[1]); loss.backward(); return loss"))
    assert "backward failed in step 2" in error.message
    assert "without a backward" in error.hint


def test_a_batch_the_model_cannot_take(profile_file: Profile) -> None:
    source = "from tiny import *\ndef build(): return net(), data(2) + [(torch.ones(2, 5), torch.ones(2, 1))], mse"
    error = failure(profile_file, source)
    assert "mat1 and mat2 shapes cannot be multiplied (2x5 and 3x4)" in error.message
    assert "Tensor(2, 5) float32" in error.hint
    assert error.details == "", "no frame is the user's, so there is no traceback to show"


def test_the_step_and_epoch_are_named(profile_file: Profile) -> None:
    source = step_that("raise ValueError").replace("data()", "data(1)")
    assert "step 2, batch 0 of epoch 2" in failure(profile_file, source).message


def test_an_optimizer_or_scheduler_that_fails(profile_file: Profile) -> None:
    source = """
        from tiny import *

        class Picky(torch.optim.Optimizer):
            calls = 0
            def step(self, closure=None):
                self.calls += 1
                if self.calls == 3: raise ValueError("no more")

        def build():
            model = net()
            return model, data(), mse, Picky(model.parameters(), {"lr": 0.1})
    """
    error = failure(profile_file, source)
    assert "the optimizer failed in step 2: ValueError: no more" in error.message
    assert_only_the_users_frames(error.details)


FAILING_DATA = """from tiny import *

def batches():
    yield from data(2)
    {statement}

class Loader:
    def __iter__(self): return batches()

def build(): return net(), Loader(), mse
"""


@pytest.mark.parametrize("statement", ["raise OSError('disk gone')", "raise SystemExit(0)"])
def test_a_dataloader_that_fails(profile_file: Profile, statement: str) -> None:
    error = failure(profile_file, FAILING_DATA.format(statement=statement))
    assert "the dataloader failed in epoch 0, at batch 2" in error.message
    assert "disk gone" in error.message or "sys.exit(0)" in error.message
    assert_only_the_users_frames(error.details)


def test_a_short_window_is_still_trained_when_the_next_epoch_fails(profile_file: Profile) -> None:
    source = """
        from tiny import *

        class Loader:
            epochs = 0
            def __iter__(self):
                self.epochs += 1
                if self.epochs == 2: raise OSError("gone")
                return iter(data(3))

        def build(): return net(), Loader(), mse
    """
    assert "the dataloader failed in epoch 1" in failure(profile_file, source, accumulate=2).message


def test_a_dataloader_that_cannot_be_iterated_at_all(profile_file: Profile) -> None:
    with pytest.raises(UserCodeError, match="the dataloader failed in epoch 0: ValueError: shut"):
        profile_file("""
            from tiny import *
            class Loader:
                def __iter__(self): raise ValueError("shut")
            def build(): return net(), Loader(), mse
        """)


def test_nothing_of_a_failed_run_stays_behind(profile_file: Profile) -> None:
    import signal

    import torch

    before = signal.getsignal(signal.SIGINT), torch.autograd.backward
    failure(profile_file, step_that("raise ValueError"))
    assert (signal.getsignal(signal.SIGINT), torch.autograd.backward) == before


def test_a_worker_process_that_fails_is_shown_like_the_users_own_code(profile_file: Profile) -> None:
    source = """
        from tiny import *

        class Samples(torch.utils.data.Dataset):
            def __len__(self): return 6
            def __getitem__(self, i):
                if i == 4: raise ValueError("bad sample")
                return torch.ones(3), torch.ones(1)

        def build(): return net(), torch.utils.data.DataLoader(Samples(), batch_size=2, num_workers=1), mse
    """
    error = failure(profile_file, source)
    assert error.message == "the dataloader failed in epoch 0, at batch 2: ValueError: bad sample"
    assert_only_the_users_frames(error.details)
    assert 'raise ValueError("bad sample")' in error.details
