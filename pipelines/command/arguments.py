"""How the arguments of commands are parsed, and how their help shows them."""

import re
from typing import Any

from typer.core import TyperCommand, TyperGroup


class Group(TyperGroup):
    """Shows no type for flags."""

    def get_params(self, ctx: Any) -> Any:
        return _without_types_of_flags(super().get_params(ctx))


class Command(TyperCommand):
    """Shows no type for flags. Takes days such as -7d, and SQL that begins with a comment, for what they are."""

    def get_params(self, ctx: Any) -> Any:
        return _without_types_of_flags(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [_without_dash(argument) for argument in args])


def _without_types_of_flags(parameters: Any) -> Any:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


def _without_dash(argument: str) -> str:
    """The argument in a form that is not taken for an option."""
    return f"\n{argument}" if re.match(r"--\s", argument) else re.sub(r"^-(?=[0-9]+[dw]$)", "", argument)
