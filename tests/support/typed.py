"""What the pages for people say to type, by page and heading."""

import re
from dataclasses import dataclass

from pipelines.settings import PROJECT
from tests.support.pages import NAMES, text

NOT_RUN = {
    r"make test": "it runs this",
    r"\.venv/bin/python -m pytest .*": "it runs tests such as this",
    r"make check|dg check defs": ".ci/run does, after the tests",
    r"make bench.*": "it measures for minutes; tests/test_bench_source.py tests its parts",
    r"make proof.*": "it plays faults for most of an hour; tests/test_faults.py plays a share",
    r"devin-sessions restore": "it is typed as the service's user",
    r"devin-sessions ui --port 3001": "as devin-sessions ui, where another program has the port",
    r"make demo PYTHON=.*": "as make demo, where Python has another name",
    r"make \.venv/ready .*": "it installs; .ci/run does so before any test",
    r"git clone .*|git pull": "there is nothing to get it from",
    r".*pip install .*": "it would change the installation that all tests share",
    r"useradd .*|groupadd .*|apt-get .*": "it would change the machine",
    r"systemctl .*|journalctl .*": "there may be no systemd; what the units start is started here",
    r"ssh .*": "there is no other machine",
    r"harlequin .*": "a program that must not be installed here",
    r"devin-sessions (backfill|demo|query)": "a name; with what belongs after it, it is typed",
    r".*(…|FIRST LAST).*": "a pattern, to be filled in",
}
"""The commands that no test types, by pattern, and why."""


@dataclass(frozen=True)
class Command:
    """What stands in a block without a language, or between backquotes in a sentence."""

    heading: str
    name: str
    is_in_sentence: bool

    @property
    def typed(self) -> str:
        """The pages say what `devin-sessions` alone stands for."""
        return re.sub(r"^devin-sessions\b", ".venv/bin/devin-sessions", self.name)

    @property
    def is_left_out(self) -> bool:
        return any(re.fullmatch(pattern, self.name) for pattern in NOT_RUN)


TOKEN = re.compile(
    r"^ *```(?P<language>\w*)\n(?P<code>.*?)^ *```$|^#+ (?P<heading>[^\n]+)$|`(?P<span>[^`]+)`",
    re.MULTILINE | re.DOTALL,
)
STATEMENT = re.compile(r"^cat > \S+ <<'END'\n(?:.*\n)*?END$|^.*\S.*$", re.MULTILINE)
SPOKEN = {"as_service", "dagster", "devin-sessions", "dg", "make", "pg_dump", "pip", "ssh"}
"""Programs that sentences speak of, beside those of the blocks."""


def commands_of(page: str) -> list[Command]:
    """All of them, in the order of the page."""
    found, heading = [], ""
    for token in TOKEN.finditer(text(PROJECT / page)):
        heading = token["heading"] or heading
        if token["code"] and not token["language"]:
            in_one_line = re.sub(r" *\\\n *", " ", token["code"])
            code = re.sub(r"(?:^|\s+)# .*", "", in_one_line, flags=re.MULTILINE)
            for statement in STATEMENT.findall(code):
                found.append(Command(heading, re.sub(r"^\.venv/bin/(?=devin-)", "", statement.strip()), False))
        elif token["span"]:
            found.append(Command(heading, re.sub(r"^\.venv/bin/(?=devin-)", "", " ".join(token["span"].split())), True))
    return found


def program(command: Command) -> str:
    return re.split(r"[\s(]", re.sub(r"^([A-Z_]+=\S* )*", "", command.name))[0]


PROGRAMS = SPOKEN | {program(c) for page in NAMES for c in commands_of(page) if not c.is_in_sentence}
COMMANDS = {
    page: [c for c in commands_of(page) if not c.is_in_sentence or (program(c) in PROGRAMS and " " in c.name)]
    for page in NAMES
}


@dataclass(frozen=True)
class Part:
    """What stands under one heading, up to the next, or of that only some commands, or all but some."""

    page: str
    heading: str
    only: str = ".*"
    but: str = ""

    @property
    def commands(self) -> list[Command]:
        found = [
            c for c in COMMANDS[self.page] if c.heading == self.heading and re.fullmatch(self.only, c.name, re.DOTALL)
        ]
        left = [c for c in found if not re.fullmatch(self.but, c.name)]
        assert left and (not self.but or left != found), f"{self} is not as it was"
        return [c for c in left if not c.is_left_out]
