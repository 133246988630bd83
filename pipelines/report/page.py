"""The report as one HTML page that needs no network."""

import base64
import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import jinja2
from markupsafe import Markup
from platformdirs import user_cache_path

from pipelines.checks import Verdict
from pipelines.report import quality, sections
from pipelines.report.activity import Activity
from resources.files import replacing

_GLOBALS = "window.vegaEmbed = vegaEmbed;"


def library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script; cached in the user's cache directory, since bundling is slow."""
    name = f"vega-{version('vl-convert-python')}.js"
    # A user without a home, or without permissions in it, has no cache and bundles every time.
    with suppress(OSError, RuntimeError):
        return (user_cache_path("devin-sessions") / name).read_text(encoding="utf-8")
    import vl_convert as vlc  # here: it needs 40 MB, and only the first report needs it

    script = vlc.javascript_bundle(_GLOBALS).replace("</script", "<\\/script")
    with suppress(OSError, RuntimeError), replacing(user_cache_path("devin-sessions") / name) as file:
        file.write(script.encode())
    return script


def as_page(shown: Activity, verdicts: Iterable[tuple[str, Verdict]], script: str, enterprise: str = "") -> str:
    """The whole page. `verdicts` are those of the checks, each with its title; `script` is what `library` returns.

    `enterprise` is whose sessions it shows, if that has a name.
    """
    shown_sections = sections.sections(shown) if shown.last_loaded else []
    specs = {chart.id: chart.spec for section in shown_sections for chart in section.charts}
    # Names come from the API: nothing in them may end the script element that holds this JSON.
    escaped = json.dumps(specs, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        escaped = escaped.replace(character, f"\\u{ord(character):04x}")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    marks = quality.quality_marks(shown, verdicts)
    drawing = Path(__file__).with_name("report.js").read_text(encoding="utf-8")
    return environment.get_template("report.html").render(
        shown=shown,
        enterprise=enterprise,
        tiles=sections.tiles(shown),
        sections=shown_sections,
        header=sections.header(shown),
        marks=marks,
        worst=quality.worst(marks),
        specs=Markup(escaped),
        library=Markup(script),
        drawing=Markup(drawing),
        hashes=[_hash(script), _hash(drawing)],
        made_at=datetime.now(UTC),
    )


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
