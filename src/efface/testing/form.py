"""What every method promises by its form alone: words, settings, explanations."""

import json
import math

from efface.errors import InputError
from efface.methods._base import NEEDED, PARTS
from efface.testing.case import Case
from efface.testing.words import Broken, documented, expect


def words_of_a_split(case: Case) -> None:
    """What it sees and needs is said in the words of a split, or it would never be trapped."""
    entry = case.entry
    expect(entry.reads <= set(PARTS), f"parts out of {', '.join(PARTS)}", sorted(entry.reads))
    expect(entry.needs <= entry.reads, "to see what it needs", sorted(entry.needs))
    expect(entry.needs <= NEEDED.keys(), f"needs out of {', '.join(NEEDED)}", sorted(entry.needs))
    bare = {part for part in entry.reads if part.removesuffix(" labels") not in entry.reads}
    expect(not bare, "labels only of parts that it sees", sorted(bare))


def settings_with_defaults(case: Case) -> None:
    """Keyword-only, with a default that JSON can hold: records and the command line read them."""
    parameters = list(case.own.values())
    expect([p.name for p in parameters[:2]] == ["model", "split"], "model, split first", case.name)
    expect({"seed", "callback"} <= case.own.keys(), "seed and watch", sorted(case.own))
    for parameter in parameters[2:]:
        told = f"{parameter.name} keyword-only, with a default"
        good = parameter.kind is parameter.KEYWORD_ONLY and parameter.default is not parameter.empty
        expect(good, told, str(parameter))
        if parameter.name != "callback":
            json.dumps(parameter.default)


def a_knob_named_strength(case: Case) -> None:
    """``strength`` is the one knob, and is 1 as it comes."""
    found = case.own.get("strength")
    expect(found is not None and found.default == 1.0, "strength=1.0", str(found))


def settings_explained(case: Case) -> None:
    """The docstring explains every argument: it is the help of the command line."""
    explained, own = documented(case.entry.function), set(case.own)
    expect(explained == own, f"Args: {', '.join(sorted(own))}", sorted(explained))


def nonsense_refused(case: Case) -> None:
    """What is no number, and −1, is refused by its own name."""
    for name, parameter in case.own.items():
        default = parameter.default
        if isinstance(default, bool) or not isinstance(default, int | float):
            continue
        for nonsense in (math.nan, math.inf, -math.inf, -1):
            try:
                case.run(case.model, case.split, **{name: nonsense})
            except InputError as error:
                expect(name in str(error), f"{name} named", str(error))
            else:
                raise Broken(f"{name}={nonsense} is let through")
