"""Stand-in for slicer.parameterNodeWrapper: a typed view of a module's parameter node, bound to its panel.

Types: bool, int, float, str, Enum, pathlib.Path, MRML nodes, Union of these or None, and parameter packs.
No lists, tuples, dicts or ranges.
"""

from typing import Any

from .annotations import Choice, Decimals, Default, Exclude, Maximum, Minimum, SingleStep, Validator, WithinRange
from .packs import isParameterPack, nestedParameterNames, parameterPack
from .wrapper import SlicerParameterNamePropertyName, findChildWidgetForParameter, isParameterNodeWrapper, parameterNodeWrapper

__all__ = [
    "Choice",
    "Decimals",
    "Default",
    "Exclude",
    "GuiConnector",
    "Maximum",
    "Minimum",
    "SingleStep",
    "SlicerParameterNamePropertyName",
    "Validator",
    "WithinRange",
    "createGuiConnector",
    "findChildWidgetForParameter",
    "isParameterNodeWrapper",
    "isParameterPack",
    "nestedParameterNames",
    "parameterNodeGuiConnector",
    "parameterNodeWrapper",
    "parameterPack",
]


def __getattr__(name: str) -> Any:
    """The connectors, which need Qt: without it parameter nodes work, but cannot be bound to a panel."""
    if name in ("GuiConnector", "createGuiConnector", "parameterNodeGuiConnector"):
        from . import connectors

        return getattr(connectors, name)
    raise AttributeError(name)
