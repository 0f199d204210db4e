"""Turn figures into SVG elements, which can share a page, and into SVG files."""

import io
import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import matplotlib
import vl_convert
from matplotlib.figure import Figure

from pipelines.reporting.figures.chart import Chart
from pipelines.reporting.figures.style import FILM, PALETTE, THEME, css

Drawn = Figure | Chart | Element  # what a drawing may yield: a figure of matplotlib, a chart, or an SVG element

_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
# a light colour -> a variable with this colour as its fallback, such as var(--uvb, #5b3cc4)
_VARIABLES = {light: f"{css(name)[:-1]}, {light})" for name, (light, _) in PALETTE.items()}
_DROPPED = {f"{{{_SVG}}}{tag}" for tag in ("metadata", "style", "title")}
ElementTree.register_namespace("", _SVG)
ElementTree.register_namespace("xlink", _LINK)


def to_svg(figure: Drawn, name: str, alt: str = "") -> str:
    """The figure as an SVG element that fills its place. Its ids begin with `name`, and its colours follow the page's theme."""
    root = _element(figure, name)
    _clean(root, name)
    width = float(root.get("viewBox", "0 0 374 0").split()[2])
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    # On a wide page every figure grows to this limit, so text has the same size in all figures.
    root.attrib |= {"role": "img", "aria-label": alt or name, "style": f"max-width:{1.45 * width:.0f}px"}
    root.attrib |= {"font-family": "var(--font, sans-serif)", "stroke-linejoin": "round"}
    return ElementTree.tostring(root, encoding="unicode")


def standalone(svg: str) -> str:
    """An SVG element as a file, with the colours of both themes."""
    light, dark = variables()
    css_text = (
        f"svg{{{light};background:#fff;color:{PALETTE['ink'][0]}}}"
        f"@media(prefers-color-scheme:dark){{svg{{{dark};background:#16161b;color:{PALETTE['ink'][1]}}}}}{FILM}"
    )
    head, rest = svg.split(">", 1)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head}><style>{css_text}</style>{rest}\n'


def inner(file: str) -> str:
    """The SVG element of a file that `standalone` made."""
    return re.sub(r"^.*?(<svg[^>]*>)<style>.*?</style>", r"\1", file.strip(), count=1, flags=re.S)


def variables() -> tuple[str, str]:
    """CSS declarations of the palette: (light, dark)."""
    names = {name: name.replace("_", "-") for name in PALETTE}
    light = ";".join(f"--{names[name]}:{shade}" for name, (shade, _) in PALETTE.items())
    dark = ";".join(f"--{names[name]}:{shade}" for name, (_, shade) in PALETTE.items())
    return light, dark


def file_name(text: str) -> str:
    """Text as the name of a file and the id of an element: letters, digits, dot, dash and underscore."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "figure"


def _element(figure: Drawn, name: str) -> Element:
    if isinstance(figure, Element):
        return ElementTree.fromstring(ElementTree.tostring(figure))  # a copy, in which each tag has its namespace
    if isinstance(figure, Chart):
        return ElementTree.fromstring(vl_convert.vegalite_to_svg(figure.themed))
    file = io.StringIO()
    with matplotlib.rc_context({**THEME, "svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return ElementTree.fromstring(file.getvalue())


def _clean(root: Element, name: str) -> None:
    """Begin each id with the figure's name, turn colours into the page's variables, remove metadata, styles and roles."""
    for parent in list(root.iter()):
        for child in [c for c in parent if c.tag in _DROPPED]:
            parent.remove(child)
    ids = {old: f"{name}-{i}" for i, old in enumerate(e.get("id") for e in root.iter() if e.get("id"))}
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if key.startswith("aria-") or key in ("role", "class"):
                del element.attrib[key]
            elif key == "id":
                element.set(key, ids[value])
            elif key in ("href", f"{{{_LINK}}}href") and value.startswith("#"):
                element.set(key, f"#{ids[value[1:]]}")
            elif "url(#" in value:
                element.set(key, re.sub(r"url\(#([^)]+)\)", lambda found: f"url(#{ids[found[1]]})", value))
            elif key == "style":
                element.set(key, ";".join(_declaration(part) for part in value.split(";") if part.strip()))


def _declaration(text: str) -> str:
    """One of matplotlib's CSS declarations, with the page's colours and font."""
    key, _, value = (part.strip() for part in text.partition(":"))
    if key == "font":
        value = value.split("'")[0] + "var(--font, sans-serif)"
    return f"{key}:{_VARIABLES.get(value, value)}"
