"""The panel's table of cases: state, stage and seconds of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import qt
from slicer.i18n import tr as _

from .batch_rows import FINISHED, BatchRow, inWords, stageInWords

COLUMNS = 4
ROW_HEIGHT = 22  # px
FAILED_COLOUR = "#c0392b"


class BatchTable:
    """Shows cases; only what has changed is drawn again, so that long tables stay quick and keep their place.

    :param table: QTableWidget.
    :param chosen: called when another case is chosen, with its row or None.
    :param opened: called with the row that was double-clicked.
    """

    def __init__(self, table, chosen: Callable[[BatchRow | None], None], opened: Callable[[BatchRow], None]) -> None:
        self._table, self._chosen, self._opened = table, chosen, opened
        self._rows: list[BatchRow] = []
        self._shown: list[tuple] = []
        table.setColumnCount(COLUMNS)
        table.setHorizontalHeaderLabels([_("Case"), _("State"), _("Stage"), _("Seconds")])
        table.verticalHeader().setVisible(False)
        table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        table.horizontalHeader().setHighlightSections(False)
        table.horizontalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
        table.connect("itemSelectionChanged()", self._onSelectionChanged)
        table.connect("cellDoubleClicked(int,int)", self._onDoubleClicked)

    def show(self, rows: Sequence[BatchRow], running: bool) -> None:
        """Show these cases.

        :param running: whether the batch runs; else a case in the middle of its work was interrupted.
        """
        self._rows = list(rows)
        cells = [_cells(row, running) for row in rows]
        if len(cells) != len(self._shown):
            self._table.setRowCount(len(cells))
        for number, texts in enumerate(cells):
            if number >= len(self._shown) or self._shown[number] != texts:
                self._fill(number, texts)
        self._shown = cells
        self._onSelectionChanged()

    def current(self) -> BatchRow | None:
        """The chosen case, if there is one."""
        number = self._table.currentRow()
        return self._rows[number] if 0 <= number < len(self._rows) else None

    def _fill(self, number: int, texts: tuple) -> None:
        *shown, state, tip = texts
        for column, text in enumerate(shown):
            item = qt.QTableWidgetItem(text)
            item.setToolTip(tip)
            if column == COLUMNS - 1:
                item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            if state == "failed":
                item.setForeground(qt.QBrush(qt.QColor(FAILED_COLOUR)))
            self._table.setItem(number, column, item)

    def _onSelectionChanged(self, *_unused) -> None:
        self._chosen(self.current())

    def _onDoubleClicked(self, number: int, _column: int) -> None:
        if number < len(self._rows):
            self._opened(self._rows[number])


def _cells(row: BatchRow, running: bool) -> tuple:
    """The texts of a row, then what decides on its looks."""
    seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
    tip = row.message
    if row.state in FINISHED:
        tip = " ".join(part for part in (tip, _("Double-click to load the images into the scene.")) if part)
    stage = stageInWords(row.stage) if row.state in ("running", "failed") else ""
    return row.case, inWords(row, running), stage, seconds, row.state, f"<qt>{escape(tip)}</qt>" if tip else ""
