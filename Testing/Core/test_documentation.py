"""The pages say what is there: links, pictures, command lines, Python, files and options are checked against the project."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest
from markdown_pages import Page, imt_words, pages
from source_tree import MODULES, ROOT, load_script, module_files, project_files

from IMTCommand.__main__ import build_parser
from IMTCore.errors import BadInput
from IMTCore.version import VERSION

PAGES = pages()
IMAGES = ROOT / "Resources" / "Images"
GENERATED = sorted(path.stem for path in (ROOT / "Testing").glob("make_*.py") if path.stem != "make_screenshots")
# What Slicer brings: it need not be installed here.
SLICERS_OWN = {"slicer", "qt", "ctk", "vtk"}
# Options of other programs that the pages name: pip, make's compiler, pytest, torchrun, Slicer, git, Slurm.
FOREIGN_OPTIONS = {
    *("--no-index", "--find-links", "--index-url", "--only-binary", "--platform", "--python-version", "--target", "--dry-run", "--report"),
    *("--nproc-per-node", "--nnodes", "--rdzv-endpoint", "--no-deps", "--requirement", "--implementation", "--abi"),
    *("--testing", "--no-splash", "--no-main-window", "--additional-module-paths", "--python-script"),
    *("--help", "--array", "--dependency", "--gres", "--mem", "--time", "--cpus-per-task", "--export", "--wrap"),
}
# The keys of the Citation File Format 1.2.0.
CITATION_KEYS = {
    *("abstract", "authors", "cff-version", "commit", "contact", "date-released", "doi", "identifiers", "keywords", "license", "license-url"),
    *("message", "preferred-citation", "references", "repository", "repository-artifact", "repository-code", "title", "type", "url", "version"),
}
REFERENCE_KEYS = {"authors", "doi", "isbn", "issue", "journal", "number", "pages", "publisher", "title", "type", "url", "volume", "year"}


def named(page: Page) -> str:
    return str(page)


# --- Links and pictures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_to_a_file_and_a_heading(page):
    wrong = []
    for _, address in page.links:
        if re.match(r"[a-z]+:", address):
            continue
        file, _, anchor = address.partition("#")
        target = (page.path.parent / file).resolve() if file else page.path
        if not target.exists() or (anchor and anchor not in Page(target).anchors):
            wrong.append(address)
    assert not wrong


def test_every_picture_is_shown_somewhere():
    shown = {(page.path.parent / address).resolve() for page in PAGES for is_picture, address in page.links if is_picture}
    assert {path.name for path in project_files() if path.parent == IMAGES} == {path.name for path in shown if path.parent == IMAGES}


def test_pictures_of_readers_who_do_not_see_them_are_told():
    """A picture outside a table of pictures has a text in its place."""
    for page in PAGES:
        lines = [line for line in page.prose.splitlines() if "![](" in line]
        assert all(line.strip().startswith("|") for line in lines), f"{page}: {lines}"


# --- Commands ------------------------------------------------------------------------------------------------------


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    return next((action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)), {})


@cache
def parser() -> argparse.ArgumentParser:
    return build_parser()


@cache
def project_options() -> set[str]:
    """Every option that any script of the project declares; the trainers make theirs from the fields of their settings."""
    options = set(FOREIGN_OPTIONS)
    for path in (path for path in project_files() if path.suffix == ".py"):
        text = path.read_text(encoding="utf-8")
        options.update(re.findall(r"""["'](--[a-z][\w-]*)["']""", text))
        if path.parent.name == "Training":
            options.update("--" + field.replace("_", "-") for field in re.findall(r"^    (\w+): ", text, re.MULTILINE))
    return options


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_line_parses(page):
    wrong = []
    for words in page.shell_lines():
        arguments = imt_words(words)
        if arguments is None:
            continue
        try:
            parser().parse_args(arguments)
        except (BadInput, SystemExit) as error:
            wrong.append(f"imt {' '.join(arguments)}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_named_in_a_text_exists_with_its_options(page):
    wrong = []
    for code in page.inline_code:
        words = re.sub(r"[|,;]", " ", code).split()
        if words[:1] != ["imt"]:
            continue
        current, rest = parser(), words[1:]
        while rest and subparsers(current) and not rest[0].startswith("-"):
            if rest[0] not in subparsers(current):
                break
            current, rest = subparsers(current)[rest[0]], rest[1:]
        known = {option for action in current._actions for option in action.option_strings}
        is_name = rest and subparsers(current) and re.fullmatch(r"[a-z]+", rest[0])
        if is_name or {word for word in rest if word.startswith("--")} - known - {"--debug"}:
            wrong.append(code)
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_option_is_declared_by_some_script(page):
    code = [*page.inline_code, *(" ".join(words) for words in page.shell_lines())]
    options = {option for text in code for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", text)}
    unknown = options - project_options()
    assert not unknown


def test_every_make_target_exists():
    targets = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        lines = [*(code.split() for code in page.inline_code), *page.shell_lines()]
        named_targets = {words[1] for words in lines if words[0] == "make" and len(words) > 1 and re.fullmatch("[a-z]+", words[1])}
        assert not named_targets - targets, page


# --- Python --------------------------------------------------------------------------------------------------------


def top_level_names(path: Path) -> set[str]:
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            names |= {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}
    return names


def import_problem(module: str, name: str | None) -> str | None:
    """Why `from module import name` would fail, or None."""
    files = module_files()
    if module in files:
        missing = name is not None and name not in top_level_names(files[module]) and f"{module}.{name}" not in files
        return f"{module} has no {name}" if missing else None
    top = module.partition(".")[0]
    if top in SLICERS_OWN or top == "slicer_harness" or importlib.util.find_spec(top) is not None:
        return None
    return f"there is no module {module}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_python_block_compiles_and_imports_what_exists(page):
    wrong = []
    for block in page.blocks("python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Import):
                wrong += [import_problem(alias.name, None) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                wrong += [import_problem(node.module or "", alias.name) for alias in node.names]
    assert not [problem for problem in wrong if problem]


def logic_methods(name: str) -> dict[str, ast.FunctionDef]:
    """The methods of a logic class, which its module's file defines."""
    tree = ast.parse(next(path for path in MODULES if f"{path.name}Logic" == name).joinpath(f"{name.removesuffix('Logic')}.py").read_text("utf-8"))
    found = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    return {node.name: node for node in found.body if isinstance(node, ast.FunctionDef)}


def accepted_keywords(method: ast.FunctionDef) -> set[str]:
    """The keywords that a method takes: its arguments, and the fields of the record that it makes of its `**options`."""
    names = {argument.arg for argument in [*method.args.args, *method.args.kwonlyargs]}
    calls = [node for node in ast.walk(method) if isinstance(node, ast.Call)]
    makers = {ast.unparse(call.func) for call in calls if any(keyword.arg is None for keyword in call.keywords)}
    for node in (node for node in ast.walk(method) if isinstance(node, ast.ImportFrom) and node.module):
        for maker in makers & {alias.name for alias in node.names}:
            tree = ast.parse(module_files()[node.module].read_text(encoding="utf-8"))
            record = next(part for part in tree.body if isinstance(part, ast.ClassDef) and part.name == maker)
            names |= {field.target.id for field in record.body if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)}
    return names


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_the_logics_have_the_methods_and_arguments_that_are_shown(page):
    wrong = []
    for block in page.blocks("python"):
        made = re.search(r"^logic = (IMT\w+Logic)\(\)", block, re.MULTILINE)
        for node in ast.walk(ast.parse(block)) if made else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "logic":
                method = logic_methods(made[1]).get(node.func.attr)
                if method is None or {keyword.arg for keyword in node.keywords} - accepted_keywords(method):
                    wrong.append(ast.unparse(node))
    assert not wrong


# --- Files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_file_of_the_project_that_a_page_names_exists(page):
    names = {path.name for path in project_files()}
    places = [ROOT, *MODULES, *(module / f"{module.name}Lib" for module in MODULES), page.path.parent]
    words = [word for code in page.inline_code for word in code.split()] + [word for words in page.shell_lines() for word in words]
    wrong = set()
    for word in words:
        word = word.rstrip(".,:;")
        if re.search(r"[<>*…={}$]", word):
            continue
        if re.match(r"(IMT\w+|Resources|Testing)/", word) and not any((place / word).exists() for place in places):
            wrong.add(word)
        elif re.fullmatch(r"[\w.-]+\.(py|ui|cff|toml|sh)", word) and word not in names and not word.startswith("."):
            wrong.add(word)
    assert not wrong


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_every_module_has_a_page_with_the_same_chapters(module):
    wanted = {"tutorial", "command-line", "scripting", "troubleshooting"}
    assert wanted <= Page(module / "README.md").anchors


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_what_the_steps_tell_to_press_is_in_the_panels(page):
    """Words in bold in numbered steps: buttons, rows and sections, or the names of sample data."""
    steps = re.findall(r"^\d+\. .*(?:\n +\S.*)*", page.prose, re.MULTILINE)
    bold = {" ".join(words.split()).rstrip(".:").lower() for step in steps for words in re.findall(r"\*\*([^*\[\]]+)\*\*", step)}
    assert not {words for words in bold if words not in panel_texts()}


@cache
def panel_texts() -> str:
    """All that the panels' forms and files hold, and the list of sample data, in small letters."""
    files = (path for path in project_files() if any(path.is_relative_to(module) for module in MODULES))
    shown = (path for path in files if path.suffix == ".ui" or path.name == "IMT-sample-data.json" or re.search(r"(Panel|SlicerLib)/\w+\.py$", path.as_posix()))
    return "\n".join(path.read_text(encoding="utf-8") for path in shown).lower()


@pytest.mark.parametrize("script", GENERATED)
def test_generated_pages_are_up_to_date(script, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "Testing"))
    path = ROOT / "Testing" / f"{script}.py"
    assert load_script(path).main(["--check"]) == 0, f"run  python Testing/{script}.py"


def test_a_page_that_is_old_is_told_and_then_written(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "Testing"))
    import generated_pages

    monkeypatch.setattr(generated_pages, "PAGES", tmp_path / "pages")
    monkeypatch.setattr(generated_pages, "ROOT", tmp_path)
    assert generated_pages.write_page("a.md", "new\n", None, ["--check"]) == 1
    assert not (tmp_path / "pages").exists()
    assert generated_pages.write_page("a.md", "new\n", None, []) == 0
    assert (tmp_path / "pages" / "a.md").read_text() == "new\n"
    assert generated_pages.write_page("a.md", "new\n", None, ["--check"]) == 0


# --- Citation and changes ------------------------------------------------------------------------------------------


def test_the_citation_file_is_of_its_format_and_of_this_version():
    yaml = pytest.importorskip("yaml", reason="PyYAML, which comes with distributed, is not installed")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0"
    assert {"authors", "cff-version", "message", "title"} <= cited.keys() <= CITATION_KEYS
    assert cited["version"] == VERSION
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for reference in cited["references"]:
        assert {"authors", "title", "type"} <= reference.keys() <= REFERENCE_KEYS
        assert reference["title"] in " ".join(readme.split())
        assert all(author["family-names"] in readme for author in reference["authors"])
        assert reference.get("doi", "") in readme


def test_the_changes_begin_with_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(.+?)\] - (?:unreleased|\d{4}-\d{2}-\d{2})$", text, re.MULTILINE)
    assert versions[:1] == [VERSION]
    assert len(re.findall("^## ", text, re.MULTILINE)) == len(versions)
    kinds = set(re.findall("^### (.+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
