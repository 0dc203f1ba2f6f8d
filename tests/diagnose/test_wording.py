from __future__ import annotations

from gradcheck_cli.diagnose.wording import count, describe_step, list_names
from tests.diagnose.recordings import make_recording


def test_long_lists_are_cut_and_say_so() -> None:
    assert list_names(["a", "b"]) == "a, b"
    assert list_names(list("abcdefg")) == "a, b, c, d, e and 2 more"


def test_numbers_agree_with_their_nouns() -> None:
    assert [count(n, "step") for n in (0, 1, 2)] == ["0 steps", "1 step", "2 steps"]


def test_a_step_is_given_with_its_batch() -> None:
    assert describe_step(make_recording().series, 17) == "step 17 (epoch 1, batch 1)"
