"""The trend as a small picture for the Dagster UI, which shows images but runs no scripts of a page."""

import base64
from collections.abc import Sequence

from pipelines.report.activity import EnterpriseDay
from pipelines.report.charts import DAY, MEAN_OF_7, MEAN_OF_28

_WIDTH, _HEIGHT = 720, 240
_LEFT, _TOP, _RIGHT, _BOTTOM = 60, 30, 700, 210  # the edges of what is drawn between the axes
_COLOURS = {DAY: "#cbced3", MEAN_OF_7: "#2563eb", MEAN_OF_28: "#c2410c"}  # the page's in light mode


def picture(days: Sequence[EnterpriseDay]) -> str:
    """Sessions per day and their means as a data URL of an SVG image; there is a gap where nothing is known."""
    numbers: dict[str, list[int | None] | list[float | None]] = {
        DAY: [day.sessions_count for day in days],
        MEAN_OF_7: [day.mean_of_7_days for day in days],
        MEAN_OF_28: [day.mean_of_28_days for day in days],
    }
    most = max((n for row in numbers.values() for n in row if n is not None), default=0)
    width = (_RIGHT - _LEFT) / len(days)

    def height(number: float) -> float:
        return (_BOTTOM - _TOP) * number / max(most, 1)

    bars = "".join(
        f"M{_LEFT + n * width:.1f} {_BOTTOM}v{-height(count):.1f}h{width:.1f}v{height(count):.1f}"
        for n, count in enumerate(numbers[DAY])
        if count is not None
    )
    drawn = [f'<path fill="{_COLOURS[DAY]}" d="{bars}"/>']
    for name in (MEAN_OF_7, MEAN_OF_28):
        line, command = "", "M"
        for n, mean in enumerate(numbers[name]):
            if mean is not None:
                line += f"{command}{_LEFT + (n + 0.5) * width:.1f} {_BOTTOM - height(mean):.1f}"
            command = "M" if mean is None else "L"
        drawn.append(f'<path fill="none" stroke="{_COLOURS[name]}" stroke-width="2" d="{line}"/>')
    for y, number in ((_TOP, most), (_BOTTOM, 0)):
        drawn.append(f'<path stroke="#d8dce3" d="M{_LEFT} {y}H{_RIGHT}"/>')
        drawn.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{number:,.0f}</text>')
    for x, anchor, day in ((_LEFT, "start", days[0]), (_RIGHT, "end", days[-1])):
        drawn.append(f'<text x="{x}" y="{_BOTTOM + 18}" text-anchor="{anchor}">{day.day:%d %b %Y}</text>')
    for n, (name, colour) in enumerate(_COLOURS.items()):
        drawn.append(f'<circle cx="{_LEFT + 6 + 100 * n}" cy="12" r="5" fill="{colour}"/>')
        drawn.append(f'<text x="{_LEFT + 16 + 100 * n}" y="16">{name}</text>')
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>{"".join(drawn)}</svg>'
    )
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
