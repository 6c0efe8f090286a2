"""Write Resources/Documentation/commands.md: every command of `imt` with its options, as the parser has them.

    python Testing/make_command_reference.py            write it
    python Testing/make_command_reference.py --check    only say if it is old
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from generated_pages import ROOT, anchor, joined, table, write_page

HEAD = """\
# The commands of `imt`

Written by `python Testing/make_command_reference.py` from the parsers: change those, not this page. What the commands do, with examples:
[the command line](command-line.md). `imt COMMAND --help` says the same."""


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers below a parser, by name."""
    return next((action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)), {})


def commands(parser: argparse.ArgumentParser, depth: int = 2) -> Iterator[str]:
    """A command and those below it: usage, and a table of what it takes."""
    actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)]
    below = subcommands(parser)
    yield from (f"{'#' * depth} `{parser.prog}`", "", parser.description or "", "")
    yield from ("```text", *usage(parser, [used(action) for action in actions if is_needed(action)], bool(below)), "```", "")
    rows = [(f"`{named(action)}`", meaning(action)) for action in actions]
    if rows:
        yield from (*table(("argument", "meaning"), rows), "")
    helps = {choice.dest: choice.help for action in parser._actions if isinstance(action, argparse._SubParsersAction) for choice in action._choices_actions}
    for name, child in below.items():
        child.description = child.description or f"{(helps.get(name) or name)[:1].upper()}{(helps.get(name) or name)[1:]}."
        yield from commands(child, depth + 1)


def usage(parser: argparse.ArgumentParser, needed: list[str], has_commands: bool) -> list[str]:
    """How it is called: the parser's own lines if it has some, else one made of what it needs."""
    if parser.usage:
        return [line.strip() for line in parser.usage.splitlines() if line.strip()]
    return [" ".join([parser.prog, *needed, *(["COMMAND"] if has_commands else []), "[OPTIONS]"])]


def is_needed(action: argparse.Action) -> bool:
    """Whether the command does not run without it."""
    return action.required if action.option_strings else action.nargs not in ("?", "*")


def value_name(action: argparse.Action) -> str:
    """What stands for the value, with dots for several; nothing for a flag."""
    if action.nargs == 0:
        return ""
    name = action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar or ()) or action.dest.upper()
    return f"{name} ..." if action.nargs in ("+", "*") else name


def used(action: argparse.Action) -> str:
    """An argument as it stands in a command line."""
    return " ".join(part for part in (action.option_strings[-1] if action.option_strings else "", value_name(action)) if part)


def named(action: argparse.Action) -> str:
    """An argument as it stands in the table."""
    options = ", ".join(action.option_strings)
    return " ".join(part for part in (options, value_name(action)) if part)


def meaning(action: argparse.Action) -> str:
    """The help, the choices, the default, and whether it may be repeated."""
    text = action.help or ""
    if "%" in text:
        text %= {**vars(action), "prog": "imt"}
    parts = [text]
    if action.choices:
        parts.append("one of " + ", ".join(f"`{choice}`" for choice in action.choices))
    has_default = isinstance(action.default, str | int | float) and not isinstance(action.default, bool)
    if has_default and action.default not in ("", argparse.SUPPRESS) and "default" not in text:
        parts.append(f"default `{action.default}`")
    if isinstance(action, argparse._AppendAction) and "several times" not in text:
        parts.append("may be given several times")
    return "; ".join(part for part in parts if part)


def page() -> str:
    """The whole page."""
    sys.path.insert(0, str(ROOT / "IMTTranslate"))
    from IMTCommand.__main__ import build_parser

    parser = build_parser()
    contents = [f"- [`imt {name}`]({anchor(f'imt {name}')})" for name in subcommands(parser)]
    return joined([HEAD, "", *contents, "", *commands(parser)])


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or check it."""
    return write_page("commands.md", page(), __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
