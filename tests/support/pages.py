"""The documentation's pages, and the code blocks in them."""

import configparser
import re
from pathlib import Path

from pipelines.home import PROJECT

DOCS = PROJECT / "docs"
PAGES = [PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")] + sorted(
    DOCS.glob("*.md")
)
NAMES = [str(page.relative_to(PROJECT)) for page in PAGES]


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str = r"\w*") -> list[str]:
    """The code blocks in a language, including those indented under a list item."""
    # Match every block: the end of an unwanted one would otherwise pass for the start of another.
    found = re.findall(r"^( *)```(\w*)\n(.*?)^ *```$", text(page), re.MULTILINE | re.DOTALL)
    wanted = [(indent, code) for indent, its_language, code in found if re.fullmatch(language, its_language)]
    return ["\n".join(line.removeprefix(indent) for line in code.splitlines()) for indent, code in wanted]


DEPLOYMENT = DOCS / "deployment.md"


def environment_file() -> dict[str, str]:
    """The variables that the deployment page sets in the service's environment file."""
    (block,) = (
        block for block in blocks(DEPLOYMENT, "dotenv") if block.startswith("# /etc/devin-sessions/environment\n")
    )
    return dict(line.split("=", 1) for line in block.splitlines()[1:])


def units() -> dict[str, configparser.ConfigParser]:
    found = {}
    for block in blocks(DEPLOYMENT, "ini"):
        found[block.splitlines()[0].removeprefix("# /etc/systemd/system/")] = parsed(block)
    return found


def parsed(unit: str) -> configparser.ConfigParser:
    """The sections and options of a unit of systemd."""
    parser = configparser.ConfigParser(interpolation=None, delimiters="=", strict=True)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # documented way to keep case
    parser.read_string(unit)
    return parser
