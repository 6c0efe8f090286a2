"""`imt`: the one command line of IMT. `python -m IMTCommand` is the same.

Exit codes: 0 good; 1 internal, engine or disk failure; 2 bad input, model or device; 3 some cases failed;
130 cancelled.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType

# Before torch is imported: its threads then sleep while they wait for each other. By default they spin, and beside any
# other busy program (Slicer's rendering, a second run) a translation takes many times as long.
os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")

if __package__ in (None, ""):  # started by path, as `python IMTCommand`
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from IMTCommand.dicom_series import given_series
from IMTCore.errors import BadInput, Cancelled, ImtError
from IMTCore.plain_text import shown
from IMTCore.version import VERSION

MAX_MESSAGE = 4000  # letters; what a hostile file has for a name may be longer

# Each command's module is imported only when it is called: `imt --help` needs no torch.
COMMANDS = {
    "translate": "translate a volume, or a folder or CSV of cases, into another modality",
    "register": "carry the labels of atlases over to a volume, or to a folder or CSV of cases",
    "segment": "segment a volume, or a folder or CSV of cases, with a translated second modality",
    "pipeline": "translate, register, segment and evaluate a cohort, with a report; goes on where it was stopped",
    "atlas": "check an atlas set (modalities, labels, grids, names), or build one",
    "experiment": "registration experiments: tables of methods, known transforms, weights by cross-validation",
    "check": "check before a run whether an image suits a model: modality, field of view, skull, resolution, intensities",
    "models": "list, show, verify, download, remove or import models",
    "dicom": "list the series of a DICOM study; write a translated volume as a new one, marked synthetic",
    "evaluate": "score a prediction against the truth: MAE, PSNR, SSIM, MI",
    "study": "make a reader study (which image is synthetic?) and score its readers",
    "doctor": "check this installation and say what to mend",
    "serve": "run requests from standard input, keeping models loaded (for the panels)",
}


class Parser(argparse.ArgumentParser):
    """argparse with this project's form of error message."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise BadInput(f"{message[:1].upper()}{message[1:]}. See: {self.prog} --help")


def build_parser() -> Parser:
    """The parser of `imt` with all its commands."""
    parser = Parser(prog="imt", description="Image modality translation for brain MRI. For research, not for diagnosis.")
    parser.add_argument("--version", action="version", version=f"imt {VERSION}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an internal error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for name, text in COMMANDS.items():
        module = importlib.import_module(f"IMTCommand.{name}_arguments")
        module.add_arguments(commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + "."))
    return parser


def _on_terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # no `except Exception` on the way takes it for a broken file or case


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    if removed := os.environ.pop("ITK_AUTOLOAD_PATH", None):  # Slicer sets it, and it makes ITK's wheels crash
        os.environ["IMT_REMOVED_ITK_AUTOLOAD_PATH"] = removed  # for `imt doctor` to tell
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    as_json = False
    debug = "--debug" in (sys.argv[1:] if arguments is None else arguments)
    try:
        if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
            signal.signal(signal.SIGTERM, _on_terminate)
        values = build_parser().parse_args(arguments)
        as_json = getattr(values, "progress", None) == "json"
        module = importlib.import_module(f"IMTCommand.{values.command}_command")
        with given_series(values):
            return int(module.run(values) or 0)
    except KeyboardInterrupt:
        return report("Cancelled: nothing was written.", Cancelled.exit_code, as_json)
    except ImtError as error:
        if debug:
            traceback.print_exc()
        return report(str(error), error.exit_code, as_json)
    except ModuleNotFoundError as error:
        if debug:
            traceback.print_exc()
        return report(f"The Python package {error.name!r} is missing. Run imt doctor: it says how to install it.", 1, as_json)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the last flush has a place to go
        return 1
    except OSError as error:
        if debug:
            traceback.print_exc()
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            what = "is too long for this system" if error.errno == errno.ENAMETOOLONG else "is a link that leads to itself"
            return report(f"The name {error.filename} {what}. Choose another.", BadInput.exit_code, as_json)
        where = f"{error.filename} cannot be used" if error.filename else "The system refuses to go on"
        return report(f"{where}: {error.strerror or error}. Check the disk and the permissions.", 1, as_json)
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # as pathlib says it before Python 3.13
            return report(f"{error}: this link leads to itself. Choose another file.", BadInput.exit_code, as_json)
        message = f"Internal error: {type(error).__name__}: {error}. Run again with --debug before the command and report it."
        return report(message, 1, as_json)


def report(message: str, code: int, as_json: bool) -> int:
    """Tell an error, as one line, and also as one of JSON if so; returns `code`."""
    message = one_line(message)
    if as_json:
        print(json.dumps({"stage": "error", "fraction": 1.0, "message": message, "exit_code": code}), flush=True)
    print(f"imt: {message}", file=sys.stderr, flush=True)
    return code


def one_line(message: str) -> str:
    """A message as one line that a terminal only shows: a file's name or content in it may hold control characters."""
    text = shown(" ".join(message.split()))
    return text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + " ..."


def console() -> None:
    """The entry point of `imt`. It leaves without torch's teardown, which takes half a second and does nothing."""
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    console()
