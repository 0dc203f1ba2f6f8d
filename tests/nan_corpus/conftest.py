"""What every test of the corpus needs."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling a model switches off what distributions check of their arguments, for the whole process."""
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", True)
