"""The button that checks the system: what `imt doctor` finds, in a panel's log."""

from __future__ import annotations

from collections.abc import Callable

from .jobs import Job

PARTS = ("packages", "computing", "folders", "models", "surroundings")  # of `imt doctor`, that every module needs


class SystemCheck:
    """Runs the check at a click; the button rests meanwhile.

    :param button: the button.
    :param log: takes a line.
    :param more: parts of `imt doctor` that this module needs besides, such as "engines", which takes longest.
    """

    def __init__(self, button, log: Callable[[str], None], more: tuple[str, ...] = ()) -> None:
        self._button, self._log, self._more = button, log, more
        self._job: Job | None = None
        button.connect("clicked(bool)", self.onClicked)

    def cancel(self) -> None:
        """End the check that runs."""
        if self._job is not None:
            self._job.cancel()

    def onClicked(self, *_unused) -> None:
        """Start the check."""
        from slicer.i18n import tr as _

        self._button.enabled = False
        self._log(_("Checking the system…"))
        self._job = Job([["doctor", "--slicer", _slicerVersion(), "--only", *PARTS, *self._more]], title=_("Check system"))
        self._job.logged.connect(self._log)
        self._job.ended.connect(self._onEnded)
        try:
            self._job.start()
        except (RuntimeError, OSError) as error:
            self._button.enabled = True
            self._log(_("Error: {text}").format(text=error))

    def _onEnded(self) -> None:
        from slicer.i18n import tr as _

        self._button.enabled = True
        verdicts = {"finished": _("The system is fit for IMT."), "failed": _("Something must be mended: see above.")}
        self._log(verdicts.get(self._job.state, _("Cancelled.")))


def _slicerVersion() -> str:
    """Such as "5.12": which numpy, scipy and SimpleITK it brought follows from that."""
    import slicer

    return f"{slicer.app.majorVersion}.{slicer.app.minorVersion}"
