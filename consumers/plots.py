"""Figures of service quality: described once, drawn as SVG that stands in a page or alone, or as PNG.

The SVG is written here and not by matplotlib: a tenth of the size, colours that follow the reader's light or dark
screen, a title and a description for who hears it, and nothing in it but what is drawn, so that the same data give
the same bytes. Every text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal

from consumers.charts import owned

Style = Literal["main", "second", "limit", "far", "plain", "worse", "better", "dot", "mine"]
Floats = Sequence[float]  # numpy's as lists

WIDTH, HEIGHT = 720, 330
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 34, 46
TITLE = 24  # above, where there is no caption
LETTER = 6.4  # width of one at the size of a legend
# Okabe and Ito's palette (2008), which the colour-blind tell apart; kinds differ in shape and dash as well.
COLOURS: dict[Style, tuple[str, str]] = {  # on a light and on a dark page
    "main": ("#0b5c94", "#6cb8ee"),
    "second": ("#007f5f", "#4fd0a5"),
    "limit": ("#b34700", "#f2a65a"),
    "far": ("#8a3ffc", "#c2a1ff"),
    "plain": ("#6b7280", "#9ca3af"),
    "worse": ("#b3261e", "#ff8a80"),
    "better": ("#007f5f", "#4fd0a5"),
    "dot": ("#6b7280", "#9ca3af"),
    "mine": ("#0b5c94", "#6cb8ee"),
}
DASHED: dict[Style, str] = {"limit": "6 4", "far": "2 3"}
INK, FAINT, PAPER = ("#1f2933", "#e5e9ee"), ("#d5dae1", "#39424d"), ("#ffffff", "#14181d")


@dataclass(frozen=True, slots=True)
class Line:
    """Through points in their order; a NaN parts it."""

    x: Floats
    y: Floats
    style: Style
    name: str = ""
    step: bool = False  # each value holds until the next


@dataclass(frozen=True, slots=True)
class Band:
    x: Floats
    low: Floats
    high: Floats
    style: Style
    name: str = ""


@dataclass(frozen=True, slots=True)
class Marks:
    x: Floats
    y: Floats
    style: Style
    name: str = ""
    labels: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Plot:
    """`ticks`: of the x axis, where they are not numbers. `percent`: the y axis is of shares."""

    title: str
    description: str
    x: str
    y: str
    lines: Sequence[Line] = ()
    bands: Sequence[Band] = ()
    marks: Sequence[Marks] = ()
    ticks: Sequence[tuple[float, str]] | None = None
    percent: bool = False
    include: Floats = ()  # of the y axis
    level: float | None = None  # a thin line across

    @property
    def named(self) -> list[Line | Band | Marks]:
        return [one for some in (self.lines, self.bands, self.marks) for one in some if one.name]


def style(dark: bool = True) -> str:
    """What figures need of a page's CSS."""

    def rules(place: int) -> str:
        made = [f"--ink:{INK[place]};--faint:{FAINT[place]};--paper:{PAPER[place]}"]
        return ";".join([*made, *(f"--{name}:{both[place]}" for name, both in COLOURS.items())])

    strokes = [f".l-{name}{{stroke:var(--{name})}}.f-{name}{{fill:var(--{name})}}" for name in COLOURS]
    dashes = [f".l-{name}{{stroke-dasharray:{said}}}" for name, said in DASHED.items()]
    night = f"@media screen and (prefers-color-scheme:dark){{:root{{{rules(1)}}}}}" if dark else ""
    return (
        f":root{{{rules(0)}}}{night}{''.join(strokes)}{''.join(dashes)}"
        ".plot text{font:12px system-ui,sans-serif;fill:var(--ink)}.plot .title{font-weight:600;font-size:13px}"
        ".plot .line{fill:none;stroke-width:2;stroke-linejoin:round}.plot .grid{stroke:var(--faint);stroke-width:1}"
        ".plot .axis{stroke:var(--ink);stroke-width:1}.plot .band{opacity:.18}"
        ".plot .mark{stroke:var(--paper);stroke-width:1.5}"
    )


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from `low` to `high`, steps of 1, 2 or 5."""
    span = high - low or 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(one * power for one in (1, 2, 5, 10) if span / (one * power) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def bounds(plot: Plot) -> tuple[float, float, float, float]:
    """x from, to; y from, to, with some room."""
    things: list[Line | Marks] = [*plot.lines, *plot.marks]
    xs = [x for one in (*things, *plot.bands) for x in one.x if math.isfinite(x)] or [0.0, 1.0]
    ys = [y for one in things for y in one.y] + [y for one in plot.bands for y in (*one.low, *one.high)]
    ys = [y for y in (*ys, *plot.include, *(() if plot.level is None else (plot.level,))) if math.isfinite(y)] or [0.0]
    low, high = min(ys), max(ys)
    room = (high - low or 1.0) * 0.06
    low, high = low if plot.include and low == min(plot.include) else low - room, high + room
    if plot.percent:
        low, high = max(0.0, low), min(1.0, high)
    return min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, low, high


def said(value: float, percent: bool = False) -> str:
    return f"{value:.0%}" if percent else f"{value:g}".replace("-", "−")


# ------------------------------------------------------------------------------------------------------------------ SVG


def svg(plot: Plot, name: str, *, alone: bool = False) -> str:
    """`name` is of the figure in its page, and becomes part of ids. `alone`: with its own style and background."""
    x_low, x_high, y_low, y_high = bounds(plot)

    def at_x(value: float) -> str:
        return _n(LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT))

    def at_y(value: float) -> str:
        return _n(HEIGHT - BOTTOM - (value - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM))

    def path(x: Floats, y: Floats, step: bool) -> str:
        made, down = [], False
        for across, up in zip(x, y, strict=True):
            if not math.isfinite(up):
                down = False
                continue
            if down and step:
                made.append(f"H{at_x(across)}V{at_y(up)}")
            else:
                made.append(f"{'L' if down else 'M'}{at_x(across)} {at_y(up)}")
            down = True
        return "".join(made)

    top = TITLE if alone else 0
    parts = [
        f'<svg class="plot" viewBox="0 {-top} {WIDTH} {HEIGHT + top}" role="img" aria-labelledby="{name}-t {name}-d"'
        + (' xmlns="http://www.w3.org/2000/svg">' if alone else ">"),
        f'<title id="{name}-t">{escape(plot.title)}</title><desc id="{name}-d">{escape(plot.description)}</desc>',
    ]
    if alone:
        paper = f'<rect y="{-top}" width="{WIDTH}" height="{HEIGHT + top}" style="fill:var(--paper)"/>'
        parts.append(
            f'<style>{style()}</style>{paper}<text class="title" x="{LEFT}" y="-6">{escape(plot.title)}</text>'
        )
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for value in ticks(y_low, y_high):
        parts.append(f'<path class="grid" d="M{LEFT} {at_y(value)}H{right}"/>')
        parts.append(
            f'<text x="{LEFT - 8}" y="{at_y(value)}" dy=".35em" text-anchor="end">{said(value, plot.percent)}</text>'
        )
    if plot.level is not None:
        parts.append(f'<path class="axis" d="M{LEFT} {at_y(plot.level)}H{right}"/>')
    given = [(value, said(value)) for value in ticks(x_low, x_high, 9)] if plot.ticks is None else plot.ticks
    for value, label in given:
        parts.append(f'<path class="axis" d="M{at_x(value)} {bottom}v4"/>')
        parts.append(f'<text x="{at_x(value)}" y="{bottom + 17}" text-anchor="middle">{escape(label)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {bottom}H{right}"/>')
    middle = (LEFT + right) // 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(plot.x)}</text>')
    up = (TOP + bottom) // 2
    parts.append(f'<text transform="translate(14 {up}) rotate(-90)" text-anchor="middle">{escape(plot.y)}</text>')
    for band in plot.bands:
        forth = path(band.x, band.high, False)
        back = path(band.x[::-1], band.low[::-1], False).replace("M", "L", 1)
        parts.append(f'<path class="band f-{band.style}" d="{forth}{back}Z"/>')
    for line in plot.lines:
        parts.append(f'<path class="line l-{line.style}" d="{path(line.x, line.y, line.step)}"/>')
    placed: list[tuple[float, float]] = []
    for marks in plot.marks:
        labels = marks.labels or [""] * len(marks.x)
        for across, value, label in zip(marks.x, marks.y, labels, strict=True):
            x, y = float(at_x(across)), float(at_y(value))
            parts.append(_mark(marks.style, x, y))
            if label:
                while any(abs(x - other) < 90 and abs(y - height) < 13 for other, height in placed):
                    y += 1
                placed.append((x, y))
                beside, anchor = (-9, "end") if x > WIDTH * 0.8 else (9, "start")
                place = f'x="{_n(x + beside)}" y="{_n(y)}" dy=".35em" text-anchor="{anchor}"'
                parts.append(f"<text {place}>{escape(label)}</text>")
    return "".join([*parts, _legend(plot), "</svg>"])


def _mark(kind: Style, x: float, y: float) -> str:
    if kind in ("worse", "better"):
        tip = -8 if kind == "worse" else 8
        shape = f"M{_n(x - 7)} {_n(y - tip * 0.6)}H{_n(x + 7)}L{_n(x)} {_n(y + tip)}Z"
        return f'<path class="mark f-{kind}" d="{shape}"/>'
    return f'<circle class="mark f-{kind}" cx="{_n(x)}" cy="{_n(y)}" r="{7 if kind == "mine" else 5}"/>'


def _legend(plot: Plot) -> str:
    parts, x = [], float(LEFT)
    for one in plot.named:
        match one:
            case Line():
                parts.append(f'<path class="line l-{one.style}" d="M{_n(x)} 14h22"/>')
            case Band():
                parts.append(f'<rect class="band f-{one.style}" x="{_n(x)}" y="8" width="22" height="12"/>')
            case Marks():
                parts.append(_mark(one.style, x + 11, 14))
        parts.append(f'<text x="{_n(x + 28)}" y="18">{escape(one.name)}</text>')
        x += 28 + LETTER * len(one.name) + 18
    return "".join(parts)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


# ----------------------------------------------------------------------------------------------------------------- file


def write(plots: Sequence[Plot], to: Path) -> None:
    """One or several figures, below each other, into an .svg or .png. The file is its owner's alone (mode 0600)."""
    drawn = _png(plots) if to.suffix.lower() == ".png" else _svgs(plots).encode()
    with owned(to) as file:
        file.write(drawn)


def _svgs(plots: Sequence[Plot]) -> str:
    if len(plots) == 1:
        return svg(plots[0], "figure", alone=True) + "\n"
    high = HEIGHT + TITLE
    size = f'viewBox="0 0 {WIDTH} {high * len(plots)}"'
    inner = [
        svg(plot, f"figure-{number}", alone=True).replace(
            "<svg ", f'<svg y="{high * number}" width="{WIDTH}" height="{high}" ', 1
        )
        for number, plot in enumerate(plots)
    ]
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(inner)}</svg>\n'


def _png(plots: Sequence[Plot]) -> bytes:
    """By matplotlib, which is loaded only for it and needs no screen; in the colours of a light page."""
    from io import BytesIO

    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    shape = {"worse": "^", "better": "v", "dot": "o", "mine": "o"}
    figure = Figure(figsize=(9, 4.2 * len(plots)), layout="constrained")
    for axis, plot in zip(figure.subplots(len(plots), squeeze=False)[:, 0], plots, strict=True):
        x_low, x_high, y_low, y_high = bounds(plot)
        axis.set(xlim=(x_low, x_high), ylim=(y_low, y_high))
        for name, text in (("title", plot.title), ("xlabel", plot.x), ("ylabel", plot.y)):
            getattr(axis, f"set_{name}")(text, parse_math=False)  # a unit may be called $x$
        for band in plot.bands:
            label = band.name or "_"
            axis.fill_between(band.x, band.low, band.high, color=COLOURS[band.style][0], alpha=0.18, label=label)
        for line in plot.lines:
            drawn = {"linestyle": (0, tuple(map(float, DASHED[line.style].split()))) if line.style in DASHED else "-"}
            colour, label = COLOURS[line.style][0], line.name or "_"
            how = {"drawstyle": "steps-post"} if line.step else {}
            axis.plot(line.x, line.y, color=colour, label=label, **drawn, **how)
        for marks in plot.marks:
            colour = COLOURS[marks.style][0]
            axis.scatter(
                marks.x, marks.y, s=60, color=colour, marker=shape[marks.style], label=marks.name or "_", zorder=3
            )
            for across, value, text in zip(marks.x, marks.y, marks.labels, strict=False):
                axis.annotate(text, (across, value), (8, -3), textcoords="offset points", parse_math=False)
        if plot.level is not None:
            axis.axhline(plot.level, color=INK[0], linewidth=0.8)
        if plot.ticks is not None:
            axis.set_xticks([value for value, _ in plot.ticks], [label for _, label in plot.ticks])
        if plot.percent:
            axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        if plot.named:
            axis.legend(frameon=False, ncols=len(plot.named), loc="upper center", bbox_to_anchor=(0.5, -0.14))
    made = BytesIO()
    figure.savefig(made, format="png", dpi=120)
    return made.getvalue()
