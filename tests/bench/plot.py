"""A group's rows as bars: how many times better ours is than each reference and each goal."""

from pathlib import Path

from measure import Measured, Measurement


def bars(measured: Measured) -> list[tuple[str, float]]:
    """What ours is compared with, and how many times better it is (below 1: worse)."""
    others = [name for name in measured.runs if name != measured.ours and measured.ours in measured.runs]
    found = [(name, measured.advantage(measured.ratio(name), 1)) for name in others]
    for goal in measured.row.goals:
        reached = measured.reached(goal)
        if reached is not None and not goal.beside:
            found.append(("the goal", measured.advantage(reached, goal.bound)))
    return [(f"{measured.row.name} / {beside}", value) for beside, value in found]


def draw(measurement: Measurement, path: Path) -> None:
    """Draw them as an SVG."""
    # Imported here: who only measures needs no plotting library.
    from matplotlib.figure import Figure

    named = [bar for measured in measurement.rows for bar in bars(measured)][::-1]
    figure = Figure(figsize=(9, 0.6 + 0.32 * len(named)), layout="constrained")
    axes = figure.subplots()
    colours = ["tab:green" if value >= 1 else "tab:orange" for _, value in named]
    drawn = axes.barh([name for name, _ in named], [value for _, value in named], color=colours, height=0.6)
    axes.bar_label(drawn, fmt="%.3g ×", padding=3, fontsize=8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlabel("ours is so many times better (right of the line) or worse", fontsize=8)
    figure.savefig(path, metadata={"Date": None})
