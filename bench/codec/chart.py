"""The bars as a plot: how far each one was cleared, or was not. Needs matplotlib (the ``bench`` extra)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .verdicts import Verdict

MET, MISSED, ASIDE = "#2a7f62", "#c1442d", "#9aa0a6"


def color(verdict: Verdict) -> str:
    """By what was decided."""
    if verdict.bar.aside:
        return ASIDE
    return MET if verdict.met else MISSED


def draw(verdicts: Sequence[Verdict], path: Path) -> None:
    """One horizontal bar a line, on a logarithmic scale with the bar itself at 1.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    shown = [(verdict, verdict.score) for verdict in verdicts if verdict.score is not None and verdict.score > 0]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "plumews", "font.size": 8}):
        figure, axes = pyplot.subplots(figsize=(9, 0.9 + 0.2 * len(shown)), layout="constrained")
        places = range(len(shown))
        # each strip runs from the bar at 1 to what was reached
        axes.barh(
            places,
            [score - 1 for _, score in shown],
            left=1,
            color=[color(verdict) for verdict, _ in shown],
            height=0.7,
        )
        for place, (verdict, score) in zip(places, shown, strict=True):
            label = f"{verdict.measured:.2f} ({verdict.bar.wanted})"
            axes.annotate(
                label,
                (max(score, 1), place),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                color="#444444",
            )
        axes.set_yticks(places, [f"{verdict.bar.area}: {verdict.bar.text}" for verdict, _ in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xscale("log")
        axes.axvline(1, color="#222222", linewidth=1)
        scores = [score for _, score in shown]
        axes.set_xlim(min(0.5, *scores) / 1.1, max(2.0, *scores) * 1.9)
        axes.xaxis.set_major_locator(FixedLocator([0.1, 0.2, 0.5, 1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("measured ÷ bar (1 is the bar, right is better; grey explains the one above)")
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(axis="y", length=0)
        figure.savefig(path, metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
