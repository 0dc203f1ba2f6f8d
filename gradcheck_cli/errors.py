"""Every error that gradcheck raises on purpose. The command line shows them and exits 2; see `cli/`."""

from __future__ import annotations


class GradcheckError(Exception):
    """Something the user can mend.

    `message` says what is wrong and where; `hint` says what to do about it; `details` is shown as it is
    (a trimmed traceback, say).
    """

    def __init__(self, message: str, hint: str = "", details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details


class TargetError(GradcheckError):
    """TARGET cannot be loaded or does not return what the entrypoint contract asks for."""


class ConfigError(GradcheckError):
    """A setting is unknown, unreadable or out of range."""


class DeviceError(GradcheckError):
    """The device asked for is not on this machine."""


class UserCodeError(GradcheckError):
    """The user's own code raised or called `sys.exit`; `details` is their traceback."""


class RecordingError(GradcheckError):
    """A saved recording cannot be read."""


class OutputError(GradcheckError):
    """A report cannot be written."""
