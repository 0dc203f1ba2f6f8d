"""Entrypoints as in the tests of driving."""

from tests.drive.conftest import folder, fresh_interpreter, profile

__all__ = ["folder", "fresh_interpreter", "profile"]
