"""gradcheck as a process, as in the tests of the command line."""

from tests.cli.conftest import environment, folder, gradcheck, start, write

__all__ = ["environment", "folder", "gradcheck", "start", "write"]
