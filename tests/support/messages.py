"""The sentences in the compiled program, for tests that look up what a page quotes."""

import dis
import pkgutil
from collections.abc import Iterator
from functools import cache
from importlib.abc import InspectLoader
from importlib.util import find_spec
from types import CodeType

PACKAGES = ("pipelines", "resources", "warehouse")
ENDS_A_STATEMENT = ("STORE_", "RETURN_", "RAISE_VARARGS", "POP_TOP", "YIELD_VALUE")


@cache
def sentences() -> list[str]:
    """Every string except docstrings; an f-string has {} for each value it interpolates."""
    texts = [text for code in _modules() for part in _parts(code) for text in _texts(part)]
    return [" ".join(text.split()) for text in texts]


def _modules() -> Iterator[CodeType]:
    for package in PACKAGES:
        top = find_spec(package)
        assert top and top.submodule_search_locations
        for found in pkgutil.walk_packages(top.submodule_search_locations, f"{package}."):
            spec = find_spec(found.name)
            assert spec and isinstance(spec.loader, InspectLoader)
            code = spec.loader.get_code(found.name)
            assert code
            yield code


def _parts(code: CodeType) -> Iterator[CodeType]:
    """The code of a module and of each function and class in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts(constant)


def _texts(code: CodeType) -> Iterator[str]:
    pieces: list[str] = []
    instructions = list(dis.get_instructions(code))
    for instruction, following in zip(instructions, [*instructions[1:], None], strict=True):
        if following and following.opname == "STORE_NAME" and following.argval == "__doc__":
            continue
        if instruction.opname.startswith("LOAD_CONST"):
            for text in _strings(instruction.argval):
                yield text
                pieces.append(text)
        elif instruction.opname.startswith("FORMAT_"):
            pieces.append("{}")
        elif instruction.opname == "BUILD_STRING":
            yield "".join(pieces)
        elif instruction.opname.startswith(ENDS_A_STATEMENT):
            pieces = []


def _strings(constant: object) -> Iterator[str]:
    if isinstance(constant, str):
        yield constant
    elif isinstance(constant, tuple | frozenset):
        for item in constant:
            yield from _strings(item)
