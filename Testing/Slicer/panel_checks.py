"""What the tests of all panels share: the panel as its users have it, and what must be true of every panel."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import slicer

from slicer_harness.host import choose

ROOT = Path(__file__).resolve().parents[2]
INTERACTIVE = {"QCheckBox", "QComboBox", "QSpinBox", "QDoubleSpinBox", "QLineEdit", "QPushButton", "QPlainTextEdit", "QTextBrowser"}
INTERACTIVE |= {"QTableWidget", "qMRMLNodeComboBox", "qMRMLTableView", "ctkPathLineEdit", "ctkSliderWidget", "QProgressBar"}
HEAVY = {"torch", "SimpleITK", "nibabel", "pydicom", "safetensors", "scipy", "PIL", "matplotlib", "itk", "ants", "picsl_greedy"}
OPEN = """
import sys
from slicer_harness import host
host.start()
before = set(sys.modules)
widget = host.open_module(sys.argv[1])
import slicer
node = slicer.util.addVolumeFromArray(__import__("numpy").zeros((4, 8, 9)), name="Kopf T1")
widget.ui.inputSelector.setCurrentNode(node)
exec(sys.argv[2])
print("NEW", *sorted(set(sys.modules) - before))
import os
sys.stdout.flush()
os._exit(0)
"""


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Let Qt work until the condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "this never happened"
        slicer.app.processEvents()
        time.sleep(0.005)


class OpenPanel:
    """An open panel as a user has it before the eyes."""

    verb = ""  # what the button says
    seconds = 60.0  # no run of a test takes longer

    def __init__(self, widget) -> None:
        self.widget = widget
        self.ui = widget.ui

    @property
    def parameters(self):
        """The scene's parameter node, as the panel has it."""
        return self.widget._parameterNode

    def start(self) -> None:
        """Click the button."""
        assert self.ui.applyButton.enabled, self.ui.applyButton.toolTip
        assert self.ui.applyButton.text == self.verb
        self.ui.applyButton.click()

    def wait(self) -> None:
        """Until nothing runs."""
        wait_until(lambda: not self.widget.panel.isRunning(), self.seconds)

    def run(self) -> str:
        """Click the button and wait; returns what the panel says then."""
        self.start()
        self.wait()
        return self.ui.statusLabel.text

    def is_shown(self, widget) -> bool:
        """Whether the panel shows a widget (its section may be closed)."""
        return not widget.isHidden()


def bound_names(ui: Path) -> dict[str, str]:
    """Widget → SlicerParameterName, as the .ui file says."""
    found = {}
    for widget in ET.parse(ui).iter("widget"):
        for entry in widget.findall("property[@name='SlicerParameterName']"):
            found[widget.get("name")] = entry.find("string").text
    return found


def without_tooltip(ui: Path) -> list[str]:
    """The widgets that can be clicked or read, and tell nothing of themselves."""
    widgets = (widget for widget in ET.parse(ui).iter("widget") if widget.get("class") in INTERACTIVE)
    return [widget.get("name") for widget in widgets if widget.find("property[@name='toolTip']/string") is None]


def check_bindings(panel: OpenPanel, ui: Path, handled: set[str]) -> None:
    """Every parameter is shown by one widget, or by the panel's own code (`handled`); each follows the other."""
    names = bound_names(ui)
    assert len(set(names.values())) == len(names) == len(panel.widget._boundWidgets)
    assert set(names.values()) | handled == set(type(panel.parameters).allParameters)
    for widget_name, name in names.items():
        check_binding(panel, widget_name, name)


def check_binding(panel: OpenPanel, widget_name: str, name: str) -> None:
    """Change the parameter and look at the widget, then the other way round."""
    widget, parameters = getattr(panel.ui, widget_name), panel.parameters
    kind = widget.className()
    if kind == "qMRMLNodeComboBox":
        first, second = (slicer.mrmlScene.AddNewNodeByClass(widget.nodeTypes[-1], f"{name} {n}") for n in (1, 2))
        setattr(parameters, name, first)
        assert widget.currentNode() is first, name
        choose(widget, f"{name} 2")
        assert getattr(parameters, name) is widget.currentNode() is second, name
    elif kind == "QCheckBox":
        for value in (not widget.checked, widget.checked):
            setattr(parameters, name, value)
            assert widget.checked == value, name
            widget.checked = not value  # not a click: some rest until another is chosen
            assert getattr(parameters, name) == (not value), name
    elif kind == "QComboBox":
        texts = [widget.itemText(index) for index in range(widget.count)]
        assert len(texts) > 1
        setattr(parameters, name, texts[-1])
        assert widget.currentText == texts[-1], name
        choose(widget, texts[0])
        assert getattr(parameters, name) == widget.currentText == texts[0], name
    else:
        values = {"ctkPathLineEdit": (ROOT, str(ROOT / "Testing")), "QLineEdit": ("grey", "white"), "QSpinBox": (37, 11)}
        first, second = values.get(kind, (0.5, 0.2))
        shown = {"ctkPathLineEdit": "currentPath", "QLineEdit": "text"}.get(kind, "value")
        setattr(parameters, name, first)
        assert str(getattr(widget, shown)) == str(first), name
        setattr(widget, shown, second)
        assert str(getattr(parameters, name)) == str(second), name


def modules_of_opening(module: Path, code: str = "", *python: str) -> tuple[set[str], str]:
    """What is imported when a panel opens, alone, in a process of its own, and a volume is chosen; and what Python said.

    :param code: what else is done with `widget`.
    :param python: options of Python.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "Testing" / "harness"), "QT_QPA_PLATFORM": "offscreen"}
    command = [sys.executable, *python, "-c", OPEN, str(module), code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT.parent)
    assert result.returncode == 0, result.stderr[-3000:]
    line = next(line for line in result.stdout.splitlines() if line.startswith("NEW"))
    return set(line.split()[1:]), result.stderr


def run_own_test(module: Path, **environment: str) -> str:
    """Run the module's own test in a process of its own; returns what it printed."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "Testing" / "harness"), "QT_QPA_PLATFORM": "offscreen", **environment}
    command = [sys.executable, "-m", "slicer_harness.run_module", str(module), "--test"]
    result = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert result.returncode == 0 and "own test passed" in result.stdout, result.stdout + result.stderr[-3000:]
    return result.stdout


def run_example(name: str, *arguments: object) -> subprocess.CompletedProcess:
    """A script of Resources/Batch as its users run it: its end, with what it printed."""
    environment = {variable: value for variable, value in os.environ.items() if variable != "PYTHONPATH"}
    command = [sys.executable, str(ROOT / "Resources" / "Batch" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)
