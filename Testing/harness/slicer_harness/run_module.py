"""Open a scripted module offscreen: python -m slicer_harness.run_module PATH/Module.py [--test] [--screenshot panel.png]

Exit code 0: good; 1: an exception; 2: an exception in a slot or an observer, which Slicer would only have printed.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import traceback


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", help="the module's .py file")
    parser.add_argument("--load", action="append", default=[], metavar="FILE", help="load a volume before the panel opens")
    parser.add_argument("--code", help="Python to run when the panel is open; it finds widget, slicer, qt and ctk")
    parser.add_argument("--test", action="store_true", help="run the module's <name>Test")
    parser.add_argument("--screenshot", metavar="PNG", help="picture of the panel")
    parser.add_argument("--size", default="520x760", help="of the panel, WIDTHxHEIGHT")
    parser.add_argument("--developer", action="store_true", help="developer mode: with the section Reload && Test")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> None:
    import slicer

    from . import host

    for path in options.load:
        slicer.util.loadVolume(path, properties={})
    widget = host.open_module(options.module, tuple(int(part) for part in options.size.split("x")))
    module = widget.parent.module()
    print(f"opened {module.name}: title {module.title!r}, categories {module.categories}")
    if options.code:
        exec(options.code, {"widget": widget, "slicer": slicer, "qt": sys.modules["qt"], "ctk": sys.modules["ctk"]})
        slicer.app.processEvents()
    if options.test:
        module.instance.runTest(msec=1)
        print("the module's own test passed")
    if options.screenshot:
        print("wrote", host.screenshot(widget, options.screenshot))


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    from . import dressing, host

    with tempfile.TemporaryDirectory(prefix="slicer_harness_") as workdir:
        try:
            host.start(workdir, developer_mode=options.developer)
            _run(options)
        except Exception:
            traceback.print_exc()
            return 1
    if dressing.slot_errors:
        print(f"{len(dressing.slot_errors)} exception(s) in slots or observers")
        return 2
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # Qt, VTK and Python would take each other down in no certain order
