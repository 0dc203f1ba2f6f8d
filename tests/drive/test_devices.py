"""Devices that are not there are refused before the user's code is imported."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from gradcheck_cli.drive.devices import choose_device
from gradcheck_cli.errors import DeviceError
from tests.drive.conftest import Run


def test_cpu_and_auto() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("name", ["cuda:77", "tpu", "gpu", "0", "", "cuda:-1", "meta", "xla"])
def test_a_device_that_is_not_there(profile_file: Callable[..., Run], name: str) -> None:
    with pytest.raises(DeviceError) as caught:
        profile_file("raise RuntimeError('imported')", device=name)
    assert name in caught.value.message
    assert "cpu" in caught.value.hint


def test_the_number_of_cuda_devices_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(DeviceError, match="torch sees 2 CUDA devices"):
        choose_device("cuda:2")
