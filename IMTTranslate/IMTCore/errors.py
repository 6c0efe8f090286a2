"""The errors that a user can cause or meet. Each message says what, which file, and what to do.

The command line turns them into exit codes (`exit_code`), the panel into one message.
"""

from __future__ import annotations


class ImtError(Exception):
    """An error whose text is meant for the user."""

    exit_code = 1


class BadInput(ImtError):
    """The input cannot be used: the message names it, the reason and the remedy."""

    exit_code = 2


class BadModel(BadInput):
    """A model package is missing, damaged or not what its card says; nothing was loaded."""


class DeviceUnavailable(BadInput):
    """The requested compute device is not there."""


class OutputFailure(ImtError):
    """A result could not be written (folder missing, no permission, disk full)."""


class SomeCasesFailed(ImtError):
    """A run over many cases ended, but not every case succeeded."""

    exit_code = 3


class Cancelled(ImtError):
    """The user stopped the run."""

    exit_code = 130
