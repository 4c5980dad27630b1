"""Writes the working plug-in of `genbench new`, as one file or as a distribution. No torch.

The templates are plug-ins themselves, linted and type-checked in place; their name, class and module are replaced.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path

from genbench.errors import UsageError
from genbench.utils.io import shell_path, write_text

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def module_name(name: str) -> str:
    """The module of a plug-in's name: hyphens become underscores."""
    return name.replace("-", "_")


def check_name(kind: str, name: str, taken: Iterable[str], plugins: Iterable[str] = ()) -> None:
    """Raise `UsageError` for a malformed name, one that cannot be a Python module's, and one that is taken.

    `taken` are the components of the kind, `plugins` the installed plug-ins.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"'{name}' is no name: lower case letters, digits and single hyphens, as in my-{kind}")
    module = module_name(name)
    if not module.isidentifier() or keyword.iskeyword(module):
        raise UsageError(f"'{name}' cannot name a Python module ({module}): take a name such as my-{name}")
    if name in taken:
        raise UsageError(f"there is a {kind} '{name}' already (`genbench list {kind}s`): take another name")
    if name in plugins:
        raise UsageError(
            f"a plug-in is named '{name}' (`genbench list plugins`), and a file of its name would not load"
        )
    if importlib.util.find_spec(module) is not None:
        raise UsageError(f"'{name}' would hide the installed Python module {module}: take a name such as my-{name}")


def render(text: str, kind: str, name: str) -> str:
    """A template with its name, class and module replaced, and its kind where it is for all kinds."""
    module = module_name(name)
    camel = "".join(part.capitalize() for part in name.split("-"))
    for kind_word in (kind, "plugin"):
        text = text.replace(f"my-{kind_word}", name).replace(f"my_{kind_word}", module)
        text = text.replace(f"My{kind_word.capitalize()}", camel)
    return text.replace("{{kind}}", kind).replace("{{try}}", TRY.get(kind, "").format(name=name))


def template(file: str) -> str:
    """The text of a template."""
    return files("genbench.registry").joinpath("templates", file).read_text(encoding="utf-8")


TRY: Mapping[str, str] = tomllib.loads(template("commands.toml"))
"""The command that tries a new plug-in, for each kind that has a template."""


SCRIPT = "external"
"""The template that is no plug-in: a script that scores a model that was trained elsewhere by its weights."""


def planned_files(kind: str, name: str, *, package: bool) -> dict[Path, str]:
    """The files to write, by relative path."""
    plugin, module = render(template(f"{kind}.py"), kind, name), module_name(name)
    if kind == SCRIPT:
        return {Path(f"{module}.py"): plugin}
    if not package:
        return {Path(f"{name}.py"): plugin}
    return {
        Path(name, f"{module}.py"): plugin,
        Path(name, "pyproject.toml"): render(template("package/pyproject.toml.txt"), kind, name),
        Path(name, "README.md"): render(template("package/README.md.txt"), kind, name),
        Path(name, "tests", f"test_{module}.py"): render(template("package/test_plugin.py.txt"), kind, name),
    }


def write_plugin(kind: str, name: str, to: Path, *, package: bool) -> list[Path]:
    """Write a plug-in below `to`; nothing is written where one of the files exists."""
    planned = {to / path: text for path, text in planned_files(kind, name, package=package).items()}
    for path in [to / name, *planned] if package else planned:
        if path.exists() or path.is_symlink():
            raise UsageError(f"{path} exists already and is never overwritten: take another name or --to DIR")
    for path, text in planned.items():
        write_text(path, text)
    return list(planned)


def next_steps(kind: str, name: str, to: Path, *, package: bool) -> list[str]:
    """The commands to try what was written, as typed in this folder."""
    if kind == SCRIPT:
        return [f"python {shell_path(_explicit(to / f'{module_name(name)}.py'))}", "genbench docs external"]
    run = TRY[kind].format(name=name)
    if package:
        return [f"pip install -e {shell_path(_explicit(to / name))}", f"genbench check {name}", run]
    file = shell_path(_explicit(to / f"{name}.py"))
    return [f"genbench check --plugin {file}", f"{run} --plugin {file}", "genbench report"]


def _explicit(path: Path) -> Path | str:
    """A path that pip takes for a folder and not for the name of a project."""
    return path if path.is_absolute() else f"./{path}"
