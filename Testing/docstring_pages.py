"""Signatures and docstrings of Python files as Markdown, read from the source: nothing is imported, so Slicer is not needed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from generated_pages import ROOT

FOLDERS = ("IMTTranslate", "IMTRegister", "IMTSegment")
HEADINGS = re.compile(r"(Args|Attributes|Returns|Raises|Yields):")
FIELD = re.compile(r":(param|return|raises|raise)\s*([^:]*):\s*")

Definition = ast.FunctionDef | ast.ClassDef


@cache
def source(module: str) -> ast.Module:
    """The syntax tree of a module of the project, such as IMTCore.volume."""
    for folder in FOLDERS:
        path = ROOT / folder / Path(*module.split(".")).with_suffix(".py")
        if path.is_file():
            return ast.parse(path.read_text(encoding="utf-8"))
    raise SystemExit(f"There is no module {module}.")


def definition(module: str, name: str) -> Definition:
    """A function or class of a module, by name."""
    for node in source(module).body:
        if isinstance(node, Definition) and node.name == name:
            return node
    raise SystemExit(f"{module} defines no {name}.")


def describe(module: str, name: str) -> list[str]:
    """A function, or a class with its fields and public methods, as lines of Markdown."""
    node = definition(module, name)
    lines = [f"#### `{name}`", "", f"`from {module} import {name}`", ""]
    if isinstance(node, ast.FunctionDef):
        return lines + code(signature(node)) + docstring(node)
    return lines + code(class_head(node)) + docstring(node) + list(methods(node))


def code(text: str) -> list[str]:
    """A Python block."""
    return ["```python", *text.splitlines(), "```", ""]


def signature(node: ast.FunctionDef) -> str:
    """`def name(…) -> …: ...`, one argument a line if it is long; without `self` and `cls`."""
    arguments = [argument for argument in argument_texts(node.args) if argument not in ("self", "cls")]
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"def {node.name}({', '.join(arguments)}){result}: ..."
    if len(line) <= 110:
        return line
    return f"def {node.name}(\n    " + ",\n    ".join(arguments) + f",\n){result}: ..."


def argument_texts(arguments: ast.arguments) -> Iterator[str]:
    """Each argument as it stands in a signature."""
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    for argument, default in zip(plain, defaults, strict=True):
        yield with_default(ast.unparse(argument), default)
    if arguments.vararg:
        yield f"*{ast.unparse(arguments.vararg)}"
    elif arguments.kwonlyargs:
        yield "*"
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield with_default(ast.unparse(argument), default)
    if arguments.kwarg:
        yield f"**{ast.unparse(arguments.kwarg)}"


def with_default(text: str, default: ast.expr | None) -> str:
    """An argument and its default."""
    if default is None:
        return text
    return f"{text} = {ast.unparse(default)}" if ":" in text else f"{text}={ast.unparse(default)}"


def class_head(node: ast.ClassDef) -> str:
    """The class's line, and its fields or its way to make one."""
    bases = f"({', '.join(ast.unparse(base) for base in node.bases)})" if node.bases else ""
    fields = [ast.unparse(field) for field in node.body if isinstance(field, ast.AnnAssign) and not ast.unparse(field.target).startswith("_")]
    made = [signature(child) for child in node.body if isinstance(child, ast.FunctionDef) and child.name == "__init__"]
    body = fields or [line for text in made for line in text.splitlines() if text != "def __init__(): ..."] or ["..."]
    decorators = "".join(f"@{ast.unparse(decorator)}\n" for decorator in node.decorator_list)
    return f"{decorators}class {node.name}{bases}:\n" + "\n".join(f"    {line}" for line in body)


def methods(node: ast.ClassDef) -> Iterator[str]:
    """The public methods and properties."""
    for child in node.body:
        if isinstance(child, ast.FunctionDef) and not child.name.startswith("_") and ast.get_docstring(child):
            if any(ast.unparse(decorator) == "property" for decorator in child.decorator_list):
                yield f"`{node.name}.{child.name}`: {first_line(child)}"
                yield ""
            else:
                yield from (f"**`{node.name}.{child.name}`**", "", *code(signature(child)), *docstring(child))


def first_line(node: Definition) -> str:
    """The first paragraph of a docstring on one line."""
    return " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())


def docstring(node: Definition) -> list[str]:
    """A docstring as Markdown: sections and `:param:` fields become lists, `>>>` a block."""
    lines: list[str] = []
    section, in_example = "", False
    text = re.sub(r"(?<=\S) (:raises )", r"\n\1", ast.get_docstring(node) or "")
    for line in text.splitlines():
        is_example = line.startswith(">>>") or (in_example and bool(line))
        if is_example != in_example:
            lines += ["```pycon"] if is_example else ["```", ""]
            in_example = is_example
        if is_example:
            lines.append(line)
        elif HEADINGS.fullmatch(line):
            section = line[:-1]
            lines += [line, ""]
        elif section and line.startswith("    "):
            add_item(lines, line, names=section not in ("Returns", "Yields"))
        elif field := FIELD.match(line):
            named = {"param": f"`{field[2]}`", "return": "returns"}.get(field[1], f"raises `{field[2]}`")
            lines.append(f"- {named}: {line[field.end() :]}")
        elif line.startswith("    ") and lines and lines[-1].startswith("- "):
            lines[-1] += " " + line.strip()
        else:
            section = "" if line else section
            lines.append(line)
    lines += ["```"] if in_example else []
    return [*lines, ""]


def add_item(lines: list[str], line: str, names: bool) -> None:
    """An entry of a section (four spaces), with its name if entries have one, or the rest of the entry before it (more)."""
    name, colon, text = line.strip().partition(": ")
    continues = lines[-1].startswith("- ")
    if line.startswith("     ") and continues:
        lines[-1] += " " + line.strip()
    elif names and colon and re.fullmatch(r"[\w., *]+", name):
        lines.append(f"- `{name}`: {text}")
    elif continues:
        lines[-1] += " " + line.strip()
    else:
        lines.append(f"- {line.strip()}")
