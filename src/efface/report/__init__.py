"""The report on a pair of models: rows at tiers, their controls, JSON, figures and the page.

report.py, verdicts.py: the classes. context.py: what the tests share. tests.py: how a test is
declared. tests_forget.py, tests_unseen.py, tests_utility.py, tests_retrained.py: the tests.
runner.py: runs them. text.py: the words for tiers, marks and headline. figures.py, html.py: the
page.
"""

import typing

from efface.report.report import Report, Row, jsonable, significant_rows
from efface.report.verdicts import Status, Verdict

if typing.TYPE_CHECKING:
    from efface.report.runner import collect, forward_passes

__all__ = ["Report", "Row", "Status", "Verdict", "collect", "forward_passes", "jsonable"]
__all__ += ["significant_rows"]


def __getattr__(name: str) -> typing.Any:
    """The runner on first use: it loads scipy."""
    if name in {"collect", "forward_passes"}:
        from efface.report import runner

        return getattr(runner, name)
    raise AttributeError(f"module 'efface.report' has no attribute {name!r}")
