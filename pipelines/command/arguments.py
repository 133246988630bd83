"""How the arguments of commands are parsed, and how their help shows them."""

import re
from itertools import pairwise
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
        take_a_value = {name for p in self.params if not getattr(p, "is_flag", False) for name in p.opts}
        marked = [
            argument if before in take_a_value else _NO_OPTION.sub(f"{_MARK}\\g<0>", argument)
            for before, argument in pairwise(["", *args])
        ]
        ctx.allow_extra_args = True  # to name them here without the mark
        rest = super().parse_args(ctx, marked)
        if rest and not ctx.resilient_parsing:
            most = sum(parameter.param_type_name == "argument" for parameter in self.params)
            ctx.fail(
                f'"{_unmarked(rest[0])}" is an argument too many: {ctx.command_path} takes '
                + (
                    f"up to {most}. A text with spaces, such as SQL, belongs in quotes."
                    if most
                    else f"only options; see {ctx.command_path} -h."
                )
            )
        for name, value in ctx.params.items():
            if isinstance(value, str):
                ctx.params[name] = _unmarked(value)
        return rest


_MARK = "\n"  # before an argument that would be taken for an option
_NO_OPTION = re.compile(r"^-(-\s|[0-9])")


def _unmarked(argument: str) -> str:
    return argument.removeprefix(_MARK)


def _without_types_of_flags(parameters: Any) -> Any:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters
