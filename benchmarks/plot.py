"""A picture of what scale.py has measured: one PNG for light pages, one for dark ones.

    python benchmarks/plot.py figures.json docs/images/scale

writes docs/images/scale-light.png and docs/images/scale-dark.png.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

# Apart in lightness, too, for those who do not see the difference of hues; on both backgrounds.
COLOURS = {
    "light": {"ink": "#1f2328", "paper": "#ffffff", "grid": "#d1d9e0"},
    "dark": {"ink": "#f0f6fc", "paper": "#0d1117", "grid": "#3d444d"},
}
LINES = {
    "streamfold": ("#d1242f", "#ff7b72", "-", "o"),
    "floor": ("#6e7781", "#9198a1", "--", "s"),
    "openai": ("#0969da", "#58a6ff", "-.", "^"),
    "langchain_openai": ("#1a7f37", "#3fb950", ":", "D"),
}
NAMES = {
    "floor": "by hand on stock httpx",
    "openai": "openai",
    "langchain_openai": "langchain-openai",
}


def draw(figures: dict[str, Any], theme: str) -> Any:
    """CPU time per chunk and per stream, both axes in powers of ten."""
    colours = COLOURS[theme]
    ink = colours["ink"]
    names = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor")
    style = dict.fromkeys(names, ink)
    with mpl.rc_context({**style, "font.size": 11, "axes.facecolor": colours["paper"]}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
        figure.set_facecolor(colours["paper"])
        panels = (
            (left, "chunks", "chunks in one stream", "CPU time per chunk (us)", 1.0),
            (right, "streams", "streams at once", "CPU time per stream (ms)", 1e3),
        )
        for axes, key, what, unit, scale in panels:
            for who, (light, dark, dashes, mark) in LINES.items():
                points = [point for point in figures[key] if point["who"] == who]
                axes.plot(
                    [point["at"] for point in points],
                    [point["cpu_us"] / scale for point in points],
                    color=light if theme == "light" else dark,
                    linestyle=dashes,
                    marker=mark,
                    label=NAMES.get(who, who),
                )
            axes.set(xscale="log", yscale="log", xlabel=what, title=unit)
            axes.grid(color=colours["grid"], linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        left.legend(frameon=False, labelcolor=ink)
    return figure


def main() -> None:
    """Draw what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("figures", type=Path, help="the JSON of scale.py")
    parser.add_argument("target", type=Path, help="path of the pictures, without an ending")
    options = parser.parse_args()
    figures = json.loads(options.figures.read_text())
    options.target.parent.mkdir(parents=True, exist_ok=True)
    for theme in COLOURS:
        path = options.target.with_name(f"{options.target.name}-{theme}.png")
        draw(figures, theme).savefig(path, dpi=110)
        print(path)


if __name__ == "__main__":
    main()
