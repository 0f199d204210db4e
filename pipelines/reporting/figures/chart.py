"""Charts in Vega-Lite. One description gives an SVG that needs no script, and a live chart with tooltips and zoom.

Colours are the page's CSS variables, so every chart suits a light and a dark page.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pipelines.reporting.figures.style import css, label, marker, marker_path, shade

Ends = tuple[float, float]  # the smallest and the largest value of an axis
WIDTH = 300  # px between the ends of the horizontal axis; with its labels a chart is as wide as a phone
FONT = "system-ui, 'DejaVu Sans', sans-serif"
MOUSE = "event.pointerType == 'mouse' && !event.shiftKey"  # only a mouse drags a chart; a finger scrolls the page


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        x, y: the points. Points that are not finite are left out.
        low, high: the ends of each point's error bar. Empty: no bars.
        colour: a name of `style.PALETTE`, e.g. ``uvb``.
        marker: a name of `style.MARKERS`. Empty: a circle for a single point, no markers for several points.
        dash: the lengths of dash and gap. Empty: a solid line. None: no line.
        hollow: draw only the outline of the markers.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    colour: str = "ink"
    marker: str = ""
    dash: tuple[int, ...] | None = ()
    hollow: bool = False

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each finite point: ``series``, ``x``, ``y``, and ``low`` and ``high`` if the point has a bar."""
        columns = {"x": self.x, "y": self.y}
        if len(self.low) or len(self.high):
            columns |= {"low": self.low, "high": self.high}
        points = [dict(zip(columns, numbers, strict=True)) for numbers in zip(*columns.values(), strict=True)]
        finite = [point for point in points if math.isfinite(point["x"]) and math.isfinite(point["y"])]
        return [{"series": self.name, **{name: rounded(number) for name, number in point.items()}} for point in finite]

    @property
    def shape(self) -> str:
        """The marker's name; a single point always has a marker."""
        return self.marker or ("circle" if len(self.rows) == 1 else "")


def of_model(
    model: str, x: Iterable[float], y: Iterable[float], error: Iterable[float] = (), what: str = "", **look: Any
) -> Series:
    """A model's line, in the model's colour and marker, with bars of ± `error`. `what` is added to the model's name."""
    return around(label(model) + what, x, y, error, **{"colour": shade(model), "marker": marker(model), **look})


def around(name: str, x: Iterable[float], y: Iterable[float], error: Iterable[float] = (), **look: Any) -> Series:
    """A line with an error bar of ± `error` at each point."""
    x, y, error = list(x), list(y), list(error)
    pairs = list(zip(y, error, strict=True)) if error else []
    return Series(name, x, y, [value - half for value, half in pairs], [value + half for value, half in pairs], **look)


@dataclass(frozen=True)
class Chart:
    """A Vega-Lite description without its theme."""

    spec: dict[str, Any]

    @property
    def themed(self) -> dict[str, Any]:
        return {"$schema": "https://vega.github.io/schema/vega-lite/v6.json", **self.spec, "config": _config()}

    def to_json(self) -> str:
        """The description as JSON for a script element. It is escaped, so that no text in it closes the element."""
        return json.dumps(self.themed, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")


def lines(
    series: Sequence[Series],
    x: str,
    y: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    zero: bool = False,
    whole: bool = False,
    domain: Ends | None = None,
    across: Ends | None = None,
    sides: tuple[str, str] | None = None,
    height: int = 190,
) -> Chart:
    """Lines of `y` over `x` with error bars. If all points have the same x, each series is a row instead.

    Args:
        x, y: the titles of the axes.
        zero: draw a line at y = 0.
        whole: put ticks of the horizontal axis at whole numbers only, as for epochs.
        domain: the ends of the axis of y before a reader zooms.
        across: the ends of the axis of x, if several charts share this axis. Then the chart has lines even if all
            points have the same x.
        sides: words beside the axis of y: what small values mean, and what large values mean.
    """
    shown = [s for s in series if s.rows]
    rows = [row for s in shown for row in s.rows]
    if not rows:  # an empty legend would make the picture infinitely large
        message = {"type": "text", "color": css("faint"), "text": "no finite value to draw"}
        return Chart({"width": WIDTH, "height": 40, "data": {"values": [{}]}, "mark": message})
    y_axis = _axis("y", _beside(y, sides), log_y, {"domain": domain} if domain else {"padding": 8})
    if across is None and len({row["x"] for row in rows}) == 1:
        return _dots(shown, (f"{x} = {rows[0]['x']:g}", y), y_axis, zero)
    names = [s.name for s in shown]

    def scale(values: list[Any]) -> dict[str, Any]:
        return {"field": "series", "type": "nominal", "title": None, "scale": {"domain": names, "range": values}}

    colour = scale([css(s.colour) for s in shown])
    ends = {"domain": across} if across else {}
    x_axis = _axis("x", x, log_x, {"padding": 12, "nice": False, **ends}, {"format": "d", "tickMinStep": 1} if whole else {})
    lined = {"field": "series", "oneOf": [s.name for s in shown if s.dash is not None]}
    places = {"x": x_axis, "y": y_axis}
    line = {**places, "color": colour, "strokeDash": scale([list(s.dash or ()) for s in shown])}
    bar = {"x": x_axis, "y": {**y_axis, "field": "low"}, "y2": {"field": "high"}, "color": colour}
    layers: list[dict[str, Any]] = [
        *([_zero("y")] if zero else []),
        {"transform": [{"filter": lined}], "mark": {"type": "line", "clip": True, "strokeWidth": 1.8}, "encoding": line},
        *_bars(rows, bar),
        _points(shown, places, (x, y), colour, scale),
    ]
    return Chart({"width": WIDTH, "height": height, "data": {"values": rows}, "layer": layers})


def _dots(shown: Sequence[Series], titles: tuple[str, str], y_axis: dict[str, Any], zero: bool) -> Chart:
    """A row for each series, because all points have the same x. `titles[0]` tells this x, such as ``σ = 1``.

    The axis of y becomes the horizontal one. A series has no row if all its values are outside the domain of this axis.
    """
    low, high = y_axis["scale"].get("domain", (-math.inf, math.inf))
    shown = [s for s in shown if any(low <= row["y"] <= high for row in s.rows)] or shown
    rows, names = [row for s in shown for row in s.rows], [s.name for s in shown]

    def scale(values: list[Any]) -> dict[str, Any]:
        return {"field": "series", "type": "nominal", "legend": None, "scale": {"domain": names, "range": values}}

    title = y_axis["title"]
    first, *more = title if isinstance(title, list) else [title]
    across = {**y_axis, "title": [f"{first}, {titles[0]}", *more]}
    places = {"x": across, "y": {"field": "series", "type": "nominal", "title": None, "scale": {"domain": names}}}
    colour = scale([css(s.colour) for s in shown])
    bar = {**places, "x": {**across, "field": "low"}, "x2": {"field": "high"}, "color": colour}
    points = _points(shown, places, (titles[0].rpartition(" = ")[0], titles[1]), colour, scale)
    layers = [*([_zero("x")] if zero else []), *_bars(rows, bar), points]
    return Chart({"width": WIDTH - 60, "height": {"step": 22}, "data": {"values": rows}, "layer": layers})


def _beside(title: str, sides: tuple[str, str] | None) -> str | list[str]:
    """An axis title with a second line that says what small and large values mean."""
    return [title, f"← {sides[0]} · {sides[1]} →"] if sides else title


def _zero(axis: str) -> dict[str, Any]:
    """A line at zero. It is drawn once, not for each row."""
    encoding = {axis: {"datum": 0, "type": "quantitative"}}
    return {"data": {"values": [{}]}, "mark": {"type": "rule", "color": css("faint")}, "encoding": encoding}


def _bars(rows: Sequence[dict[str, Any]], encoding: dict[str, Any]) -> list[dict[str, Any]]:
    """The layer of error bars, if there are any."""
    mark = {"type": "rule", "clip": True, "strokeWidth": 1.4}
    layer = {"transform": [{"filter": "isValid(datum.low)"}], "mark": mark, "encoding": encoding}
    return [layer] if any("low" in row for row in rows) else []


def _axis(
    name: str, title: str | list[str], log: bool, scale: dict[str, Any], axis: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A numeric axis that need not begin at zero."""
    how = {"type": "log" if log else "linear", "zero": False, **scale}
    return {"field": name, "type": "quantitative", "title": title, "scale": how} | ({"axis": axis} if axis else {})


def _points(
    shown: Sequence[Series], places: dict[str, Any], titles: tuple[str, str], colour: Any, scale: Any
) -> dict[str, Any]:
    """The layer of the markers, which also has the zoom and the tooltip. `titles` name the fields x and y."""
    shapes = [marker_path(s.shape or "stroke") for s in shown]
    filled = ["transparent" if s.hollow or not s.shape else css(s.colour) for s in shown]
    opacity = [1 if s.shape else 0 for s in shown]  # a reader can point at an invisible point, too
    ends = [{"field": end, "title": word, "format": ".5~g"} for end, word in (("low", "from"), ("high", "to"))]
    tooltip = [
        {"field": "series", "type": "nominal", "title": " "},
        {"field": "x", "type": "quantitative", "title": titles[0]},
        {"field": "y", "type": "quantitative", "title": titles[1], "format": ".5~g"},
        *(ends if any(len(s.low) for s in shown) else []),
    ]
    zoom = {
        "name": "zoom", "bind": "scales",
        "select": {"type": "interval", "encodings": [k for k, v in places.items() if v["type"] == "quantitative"],
                   "zoom": "wheel![event.shiftKey || event.ctrlKey]",
                   "translate": f"[pointerdown[{MOUSE}], window:pointerup] > window:pointermove!"},
    }  # fmt: skip
    return {
        "params": [zoom],
        "mark": {"type": "point", "clip": True, "size": 42, "strokeWidth": 1.4},
        "encoding": {
            **places, "color": colour, "shape": scale(shapes), "fill": scale(filled), "strokeOpacity": scale(opacity),
            "tooltip": tooltip,
        },
    }  # fmt: skip


def bars(names: Sequence[str], values: Sequence[float], errors: Sequence[float], colours: Sequence[str], x: str) -> Chart:
    """Horizontal bars, each with an error bar of ± one standard error."""
    rows = [
        {"name": n, "value": rounded(v), "low": rounded(v - e), "high": rounded(v + e), "colour": css(c)}
        for n, v, e, c in zip(names, values, errors, colours, strict=True)
    ]
    y = {"field": "name", "type": "nominal", "title": None, "sort": None}
    tooltip = [{"field": "name", "title": " "}, {"field": "value", "title": x, "format": ".4~g"}]
    bar = {"x": {"field": "value", "type": "quantitative", "title": x}, "y": y, "tooltip": tooltip,
           "color": {"field": "colour", "type": "nominal", "scale": None}}  # fmt: skip
    error = {"x": {"field": "low", "type": "quantitative", "title": x}, "x2": {"field": "high"}, "y": y}
    layers = [
        {"mark": {"type": "bar", "height": {"band": 0.55}}, "encoding": bar},
        {"mark": {"type": "rule", "color": css("ink")}, "encoding": error},
    ]
    return Chart({"width": WIDTH, "height": {"step": 30}, "data": {"values": rows}, "layer": layers})


def histograms(groups: Sequence[tuple[str, np.ndarray, str]], x: str, y: str) -> Chart:
    """Histograms of (name, values (N,), colour) over 40 common bins."""
    everything = np.concatenate([values for _, values, _ in groups])
    edges = np.histogram_bin_edges(everything[np.isfinite(everything)], 40)
    rows = [
        {"series": name, "from": rounded(a), "to": rounded(b), "count": int(n)}
        for name, values, _ in groups
        for n, a, b in zip(np.histogram(values, edges)[0], edges, edges[1:], strict=False)
        if n
    ]
    colour = {
        "field": "series", "type": "nominal", "title": None,
        "scale": {"domain": [name for name, _, _ in groups], "range": [css(c) for _, _, c in groups]},
    }  # fmt: skip
    encoding = {
        "x": {"field": "from", "type": "quantitative", "title": x, "scale": {"zero": False}}, "x2": {"field": "to"},
        "y": {"field": "count", "type": "quantitative", "title": y, "stack": None}, "y2": {"datum": 0}, "color": colour,
        "tooltip": [{"field": "series", "title": " "}, {"field": "from"}, {"field": "to"}, {"field": "count", "title": y}],
    }  # fmt: skip
    mark = {"type": "rect", "opacity": 0.55}
    return Chart({"width": WIDTH, "height": 160, "data": {"values": rows}, "mark": mark, "encoding": encoding})


def heat(table: np.ndarray, names: Sequence[str], x: str, y: str) -> Chart:
    """A square matrix (K, K) of shares in [0, 1] as shades. If K is at most 12, print percentages, too."""
    rows = [
        {"from": names[i], "to": names[j], "share": round(float(table[i, j]), 4), "percent": f"{100 * table[i, j]:.0f}"}
        for i, j in np.argwhere(table > 0)
    ]
    axis = {"type": "ordinal", "scale": {"domain": list(names)}, "axis": {"labelOverlap": True, "grid": False, "labelAngle": 0}}
    places = {"x": {"field": "to", "title": x, **axis}, "y": {"field": "from", "title": y, **axis}}
    shade = {"field": "share", "type": "quantitative", "legend": None, "scale": {"range": [0.04, 0.85], "domainMin": 0}}
    tooltip = [{"field": "from", "title": y}, {"field": "to", "title": x}, {"field": "share", "format": ".1%"}]
    layers: list[dict[str, Any]] = [
        {"mark": {"type": "rect", "color": css("uvb")}, "encoding": {**places, "opacity": shade, "tooltip": tooltip}}
    ]
    if len(table) <= 12:
        mark = {"type": "text", "fontSize": 9, "color": css("ink")}
        layers.append({"mark": mark, "encoding": {**places, "text": {"field": "percent"}}})
    return Chart({"width": WIDTH, "height": WIDTH, "data": {"values": rows}, "layer": layers})


def rounded(value: float) -> float | None:
    """A number rounded to six digits, which are enough for a chart; None if it is not finite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _config() -> dict[str, Any]:
    ink, faint, grid = (css(name) for name in ("ink", "faint", "grid"))
    text = {"labelColor": ink, "titleColor": ink, "labelFontSize": 10, "titleFontSize": 11, "titleFontWeight": "normal"}
    return {
        "background": None,
        "font": FONT,
        "view": {"stroke": None},
        "axis": {**text, "gridColor": grid, "domainColor": faint, "tickColor": faint, "labelPadding": 3},
        "legend": {**text, "orient": "top", "columns": 3, "symbolType": "circle", "labelLimit": 170, "rowPadding": 2,
                   "columnPadding": 14, "offset": 6, "symbolStrokeWidth": 1.6},
    }  # fmt: skip
