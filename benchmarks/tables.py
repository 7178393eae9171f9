"""Plain text tables for the reports: the first column to the left, figures to the right."""

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with its columns aligned. A row of two cells is a name and a remark."""
    whole = [head, *(row for row in rows if len(row) == len(head))]
    widths = [max(len(row[i]) for row in whole) for i in range(len(head))]
    widths[0] = max(len(row[0]) for row in [head, *rows])
    rule = "|" + "|".join("-" * (width + 1) + (":" if i else "-") for i, width in enumerate(widths))
    return "\n".join([_line(head, widths), rule + "|", *(_line(row, widths) for row in rows)])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    if len(cells) < len(widths):
        return f"| {first} | {cells[1]} |"
    rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "| " + " | ".join([first, *rest]) + " |"


def verdict(ratio: float, goal: float | None) -> str:
    """What a goal's column says."""
    if goal is None:
        return ""
    return "yes" if ratio <= goal else "NO"
