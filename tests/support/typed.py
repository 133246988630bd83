"""The commands that the pages tell readers to type, by page and heading."""

import re
from dataclasses import dataclass

from pipelines.home import PROJECT
from tests.support.pages import NAMES, text

NOT_RUN = {
    r"make test|make test-quick|make walkthrough": "the last runs this test, and the others all others",
    r"\.venv/bin/python -m pytest .*": "it runs tests like this one",
    r"make check|dg check defs": ".ci/run runs it, beside the tests",
    r"make bench.*": "it takes many minutes; tests/test_bench_source.py tests its parts",
    r"make proof.*": "it takes most of an hour; tests/test_faults.py plays a share of the faults",
    r"devin-sessions restore": "typed as the service's user instead",
    r"devin-sessions ui( --port 3001)?": "make dev is the same; the other port is for when that one is taken",
    r"make demo PYTHON=.*": "like make demo, for when Python has another name",
    r"make install .*": "it installs; .ci/run does that before any test",
    r"python3 -m venv .*": "it would begin another installation; tests/test_wheel.py does that",
    r"dagster (api grpc-health-check .*|asset list|code-server start .*|instance concurrency .*)": (
        "Dagster's own, with an instance of its own"
    ),
    r"make wheel|uvx --from .*|pip wheel .*": "tests/test_wheel.py builds and installs the wheel",
    r"docker compose .*|podman (build|push) .*": "there is no Docker; tests/platform/ holds what the files say",
    r"helm .*|kubectl .*": "there is no cluster; tests/platform/ stands in for one",
    r"make chart( .*)?": "there is no Helm; tests/platform/ compares what it would make",
    r"make platform": "it takes many minutes; tests/platform/ runs one of its runs",
    r"git clone .*|git pull": "there is nothing to clone or pull from",
    r".*pip install .*": "it would change the installation that every test uses",
    r"install -m 0644 deploy/.*": "it would change the machine; tests/test_enterprises.py starts what is installed",
    r"useradd .*|groupadd .*|apt-get .*": "it would change the machine",
    r"systemctl .*|journalctl .*": "there may be no systemd; the test starts what the units start",
    r"ssh .*": "there is no other machine",
    r"harlequin .*": "it is not installed here",
    r"devin-sessions --install-completion": "it changes the shell's own files; tests/test_habits.py completes a word",
    r"devin-sessions (backfill|demo|query)": "only a name; typed with its arguments elsewhere",
    r".*(…|FIRST LAST).*": "a pattern, to be filled in",
}
"""The commands that no test types, by pattern, and why."""


@dataclass(frozen=True)
class Command:
    """A command in a block without a language, or between backticks in a sentence."""

    heading: str
    name: str
    is_in_sentence: bool

    @property
    def typed(self) -> str:
        """The command with the path that the pages give for `devin-sessions`."""
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
"""Programs that sentences mention, besides those in blocks."""


def commands_of(page: str) -> list[Command]:
    """All the commands, in page order."""
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
    """The commands under one heading: those that match `only` and don't match `but`."""

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
        assert left and (not self.but or left != found), f"{self} no longer matches the page"
        return [c for c in left if not c.is_left_out]
