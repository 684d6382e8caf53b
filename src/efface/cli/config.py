"""Options from a TOML file, for requests that come again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclopts import App, CycloptsError
from cyclopts.config import Toml

from efface.errors import InputError, did_you_mean


def read_config(path: Path, app: App) -> Toml:
    """The options of the file, a table a command, for ``app.config``.

    What it cannot say is what runs code or reaches a hub: that is typed. Raises InputError for
    that, for a table or an option that does not exist, and where the file cannot be read.
    """
    wanted = f"a TOML file with a table a command at {path}"
    config = Toml(path, must_exist=True)
    try:
        tables = config.config
    except (CycloptsError, OSError, UnicodeError) as error:
        remedy = 'For example: [forget], and below it data = "photos".'
        raise InputError(wanted, str(error), remedy) from error
    commands = [name for name in app if not name.startswith("-")]
    for command, table in tables.items():
        if command not in commands:
            remedy = did_you_mean(command, commands, f"There are {', '.join(commands)}.")
            raise InputError(wanted, f"[{command}]", remedy)
        if not isinstance(table, Mapping):
            remedy = f"Write [{command}] above the options."
            raise InputError(wanted, f"{command} = {table!r}", remedy)
        _check(table, command, _options_of(app[command]), path)
    return config


def _options_of(command: App) -> list[str]:
    """The long names of its options, without the dashes."""
    arguments = command.assemble_argument_collection()
    names = [name for one in arguments for name in one.names if name.startswith("--")]
    return [name.removeprefix("--") for name in names]


def _check(table: Mapping[str, Any], command: str, known: list[str], path: Path) -> None:
    for name, value in table.items():
        option = name.replace("_", "-")
        if option not in known:
            remedy = did_you_mean(option, known, f"See efface {command} --help.")
            raise InputError(f"options of efface {command} in {path}", name, remedy)
        values = value if isinstance(value, list) else [value]
        hub = any(str(one).startswith("hub:") for one in values)
        factory = option == "architecture" and not str(value).startswith("timm:")
        factory |= option in {"method", "methods"} and any(":" in str(one) for one in values)
        if hub or factory or option == "train-command":
            wanted = f"what neither runs code nor reaches a hub in {path}"
            raise InputError(wanted, f"{name} = {value!r}", f"Type --{option} on the command line.")
