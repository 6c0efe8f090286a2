"""Write Resources/Documentation/doctor.md: every failure of an installation that `imt doctor` knows.

    python Testing/make_doctor_page.py            write it
    python Testing/make_doctor_page.py --check    only say if it is old
"""

from __future__ import annotations

import sys

from generated_pages import ROOT, joined, table, write_page

sys.path.insert(0, str(ROOT / "IMTTranslate"))
from IMTCommand.doctor_problems import PROBLEMS

HEAD = """\
# What `imt doctor` finds

Written by `python Testing/make_doctor_page.py` from `IMTTranslate/IMTCommand/doctor_problems.py`: change that, not this page.

`imt doctor` looks at the installation, says what is wrong and what to do about it; in Slicer the button **Check system** in a module's
log section does the same. The word in brackets at the end of a remedy is the first column here. *bad*: nothing works until it is
mended (the exit code is 1); *warning*: something does not work, or will not always; *note*: something optional is not there.

`imt doctor --only packages models` looks at those parts alone (packages, computing, folders, models, engines, surroundings); starting
the registration engines takes longest. `imt doctor --json` prints the same without private data (folders, names of the user, the
computer and your own models): put that into a bug report."""


def page() -> str:
    """The whole page."""
    rows = [(f"`{name}`", problem.state, problem.text, problem.found, problem.remedy) for name, problem in PROBLEMS.items()]
    return joined([HEAD, "", *table(("problem", "state", "what is wrong", "how it is found", "what to do"), rows)])


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or check it; returns the exit code."""
    return write_page("doctor.md", page(), __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
