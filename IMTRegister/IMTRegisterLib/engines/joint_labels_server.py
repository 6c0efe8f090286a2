"""The process of one joint label fusion: `python -m IMTRegisterLib.engines.joint_labels_server ARGUMENT...`.

The arguments are antsJointFusion's own. Standard library and antspyx only.
"""

from __future__ import annotations

import contextlib
import signal
import sys


def main(arguments: list[str]) -> int:
    """Run antsJointFusion; its exit code."""
    if sys.platform == "linux":  # the kernel ends this process with its parent
        import ctypes

        pr_set_pdeathsig = 1
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    from ants.internal import get_lib_fn

    return int(get_lib_fn("antsJointFusion")(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
