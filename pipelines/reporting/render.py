"""Fill the templates: computed content becomes a page, and a headline becomes sentences."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from pipelines.reporting import numbers
from pipelines.reporting.figures.style import FILM, label
from pipelines.reporting.figures.svg import variables
from pipelines.reporting.headlines import Headline, LoneHeadline
from pipelines.words import counted

FOOT = "Numbers of tables, figures, sections and equations are those of Saremi, “Unnormalized Variational Bayes”, 2020."


def options(text: str) -> Markup:
    """Text for the page, with each option of a command (--seeds) kept on one line."""
    return Markup(re.sub(r"--[a-z][a-z-]*", r"<code>\g<0></code>", str(escape(text))))


_FILTERS = {"label": label, "counted": counted, "options": options} | {
    name: getattr(numbers, name) for name in ("level", "fixed", "signed", "brackets", "known")
}


def render(template: str, **content: Any) -> str:
    """Fill a template to make a page, with the colours of both themes."""
    light, dark = (Markup(css) for css in variables())
    page = _environment(True).get_template(template)
    return page.render(light=light, dark=dark, film=Markup(FILM), foot=FOOT, **content).lstrip()


def said(headline: Headline | LoneHeadline) -> tuple[str, str]:
    """A headline in words, as plain text: one sentence, and the numbers behind it."""
    module: Any = _environment(False).get_template("headline.j2").module
    lone = "lone_" if isinstance(headline, LoneHeadline) else ""
    parts = (getattr(module, f"{lone}{part}")(headline) for part in ("sentence", "detail"))
    sentence, detail = (" ".join(str(part).split()) for part in parts)
    return sentence, detail


@cache
def _environment(autoescape: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= _FILTERS
    return environment
