"""One `devin-sessions` command, from its first output to its exit code. Errors that users can fix end in a sentence."""

import codecs
import errno
import io
import logging
import os
import sys
import traceback
import warnings
from typing import NoReturn

from pipelines import env_files
from pipelines.command import interrupts
from pipelines.command.cli import app
from pipelines.command.exit_codes import MISSING, exit_code_for, user_message
from pipelines.command.screen import complain, first_words, set_output


def main() -> None:
    """Run the command that the arguments name, and exit."""
    # At each start, Dagster warns that features which the project uses are beta; the tests would notice a change.
    warnings.filterwarnings("ignore", message=r".* is currently in beta,")
    # Keeps libraries' own logs off the user's screen; what matters arrives as an exception.
    logging.getLogger().addHandler(logging.NullHandler())
    is_json = False
    _show_what_the_terminal_cannot()
    try:
        try:
            # Not Settings, which help and a message about other settings can do without.
            env_files.read(("DEVIN_HOME", "DEVIN_LOG_FORMAT"))
        finally:
            is_json = os.environ.get("DEVIN_LOG_FORMAT", "").strip() == "json"
            set_output(json_lines=is_json)
        interrupts.set_last_words(first_words)
        for warning in env_files.warnings():
            complain(warning, "env_file")
        # In standalone mode Typer prints errors itself, and not as JSON.
        sys.exit(app(prog_name="devin-sessions", standalone_mode=not is_json))
    except Exception as error:
        code = exit_code_for(error)
        if code is not None:
            _stop(user_message(error), code)
        if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
            _discard_output()
            _stop(f"The output cannot be written: {error.strerror}.", MISSING)
        if not is_json:
            raise
        complain(f"{type(error).__name__}: {error}", "crashed", traceback=traceback.format_exc())
        raise SystemExit(MISSING) from None
    finally:
        interrupts.set_last_words(str)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def _discard_output() -> None:
    """Write the rest of standard output nowhere, so that it doesn't fail again when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _show_what_the_terminal_cannot() -> None:
    """Show characters that an output's encoding lacks as escapes, such as \\u6771, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
            stream.reconfigure(errors="backslashreplace")


def _stop(sentence: str, code: int) -> NoReturn:
    complain(sentence, "refused", exit_code=code)
    raise SystemExit(code)
