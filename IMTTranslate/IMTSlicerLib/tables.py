"""Table nodes made of columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import vtk


def makeTable(columns: Mapping[str, Sequence]) -> vtk.vtkTable:
    """A table of texts and numbers; None becomes NaN in a column of numbers."""
    table = vtk.vtkTable()
    for title, values in columns.items():
        texts = any(isinstance(value, str) for value in values)
        column = vtk.vtkStringArray() if texts else vtk.vtkDoubleArray()
        column.SetName(title)
        for value in values:
            column.InsertNextValue(str(value) if texts else float("nan") if value is None else float(value))
        table.AddColumn(column)
    return table


def addTable(title: str, columns: Mapping[str, Sequence], beside=None):
    """A new locked table node, in the study of the node `beside`.

    :param title: its name, made unique.
    """
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", slicer.mrmlScene.GenerateUniqueName(title))
    node.SetAndObserveTable(makeTable(columns))
    node.SetLocked(True)
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    if beside is not None and hierarchy is not None:
        item, other = hierarchy.GetItemByDataNode(node), hierarchy.GetItemByDataNode(beside)
        if item and other:
            hierarchy.SetItemParent(item, hierarchy.GetItemParent(other))
    return node
