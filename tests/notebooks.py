"""Run the notebooks of docs/ again, as the tests do: ``python tests/notebooks.py`` writes them.

What depends on the machine and says nothing (times of cells, versions, paths) is not written.
"""

import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "docs" / "notebooks").glob("*.ipynb"))


def executed(notebook, *, seconds=600):
    """A copy, its cells run in order by a kernel of this Python; raises where a cell raises."""
    copy = nbformat.from_dict(notebook)
    for cell in copy.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    kernel = {"timeout": seconds, "record_timing": False, "coalesce_streams": True}
    NotebookClient(copy, **kernel).execute()
    copy.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return copy


def text_of(cell):
    """What a reader reads below a cell: printed text, and tables without tags and verdicts."""
    return "\n".join(filter(None, map(_text, cell.outputs)))


# The mark before a row's name, and its last cell.
VERDICT = r"[\u25cb\u25b2\u25a0] |<td[^>]*>[^<]*</td></tr>"


def _text(output):
    """Of one output; a bar and a picture have none."""
    if output.output_type == "stream":
        return output.text
    page = output.data.get("text/html", "")
    if page.startswith("<pre"):
        return ""
    page = re.sub(r"</(p|tr|th|td)>", "\n", re.sub(VERDICT, "</tr>", page))
    return re.sub(r"<[^>]+>", " ", page)


if __name__ == "__main__":
    for path in NOTEBOOKS:
        nbformat.write(executed(nbformat.read(path, as_version=4)), path)
