"""MkDocs hooks: pages from outside docs/ join the site, and links lead to where they stand there.

Pages are written as GitHub shows them: a link is a path to a file of this repository. Here a file
that is a page becomes a link to the page, any other its path in plain text. The figure and the
table of choosing.md are made from the committed records and from the methods themselves.
"""

import json
import os
import re
import sys
from pathlib import Path
from statistics import mean

import nbformat
from mkdocs.structure.files import File

from efface.methods import METHODS

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from research.bench import board  # it is no installed package

RESULTS = ROOT / "research" / "results"
# where pages that stand outside docs/ come in the site
FURTHER = {"README.md": "index.md"} | {n: n for n in ("LOG.md", "CHANGELOG.md", "CONTRIBUTING.md")}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s:#]+)(#[^)\s]*)?\)")
FENCE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
DEFAULT = "neighbourhood"
# the pages of the command say how it was called
sys.argv[0] = "efface"
SECTION = re.compile(r"^## (\w+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
# Python-Markdown wants an empty line between a paragraph and its list
LIST = re.compile(r"^((?! *(?:[-*]|\d+\.) |#|$).*\n)(?=(?:[-*]|\d+\.) )", re.MULTILINE)


def on_files(files, config):
    """Add README, the results and the notebooks."""
    results = (
        str(p.relative_to(ROOT)) for p in RESULTS.rglob("*.*") if p.suffix in {".md", ".svg"}
    )
    for origin, target in ({p: p for p in results} | FURTHER).items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / origin)))
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        content = "\n\n".join(part for cell in cells for part in _cell(cell))
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=content))
    return files


def on_page_markdown(markdown, page, files, **_):
    """Links by the site's own paths, and lists as Python-Markdown wants them."""
    here = Path(page.file.abs_src_path or ROOT / "docs" / page.file.src_uri).parent
    homes = {f.abs_src_path or str(ROOT / "docs" / f.src_uri): f.src_uri for f in files}

    def link(found):
        image, text, path, anchor = found.groups()
        target = os.path.normpath(here / path)
        home = homes.get(re.sub(r"\.ipynb$", ".md", target))
        if home is None:
            return f"{text} (`{Path(target).relative_to(ROOT)}`)"
        url = os.path.relpath(home, Path(page.file.src_uri).parent)
        return f"{image}[{text}]({url}{anchor or ''})"

    parts = FENCE.split(markdown)
    parts[::2] = [LIST.sub(r"\1\n", LINK.sub(link, part)) for part in parts[::2]]
    made = "".join(parts)
    if page.file.src_uri == "choosing.md":
        made = made.replace("<!-- decision -->", decision()).replace("<!-- methods -->", methods())
    if page.file.src_uri == "leaderboard.md":
        made = made.replace("<!-- leaderboard -->", board.leaderboard(board.records()))
    return made


def on_post_page(output, **_):
    """The theme's search has no name for who hears the page."""
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')


def _cell(cell):
    """A cell of a committed notebook, and what it printed and showed, as Markdown."""
    if cell.cell_type == "markdown":
        return [cell.source]
    return [f"```python\n{cell.source}\n```", *map(_output, cell.outputs)]


def _output(output):
    data = output.get("data", {})
    if output.output_type == "stream":
        return f"```text\n{output.text.rstrip()}\n```"
    if "image/png" in data:
        return f"![figure](data:image/png;base64,{data['image/png'].strip()})"
    return f'<div class="output">{data["text/html"]}</div>'


def methods():
    """The table of all methods: what each is for, its paper, what it needs, what it costs."""
    costs = json.loads((RESULTS / "method_costs.json").read_text())["rows"]
    seconds = {row["method"]: f"{row['seconds']:.1f}" for row in costs}
    seconds["neighbourhood"] = f"{mean(c['seconds'] for c in _cells('random', DEFAULT)):.1f} ¹"
    # at shorter settings than the defaults
    seconds |= {name: f"{seconds[name]} ²" for name in ("gkt", "l2ul")}
    pages = dict(SECTION.findall((ROOT / "docs" / "methods.md").read_text()))
    lines = [
        "| method | for | paper | needs besides | passes | seconds |",
        "|---|---|---|---|--:|--:|",
    ]
    for name, method in METHODS.items():
        needs = ", ".join(method.in_order(method.needs)) or "–"
        passes = "–" if method.passes is None else f"{method.passes:,}"
        cells = [f"[`{name}`](methods.md#{name})", method.purpose, _paper(pages, name, method.year)]
        lines.append("| " + " | ".join([*cells, needs, passes, seconds[name]]) + " |")
    return "\n".join(lines)


def _paper(pages, name, year):
    """The first paper that a method's section of methods.md links to, or that of its sibling."""
    if same := re.search(r"Source\**: as `(\w+)`", pages[name]):
        return _paper(pages, same.group(1), year)
    link = re.search(r"\]\((https://(?:arxiv|openreview)[^)]*)\)", pages[name])
    return f"[{year}]({link.group(1)})" if link and year else "–"


def _cells(kind, variant):
    """The records of goals.md of one kind of request and one variant of the default."""
    cells = json.loads((RESULTS / "goals.json").read_text())["cells"]
    return [cell for cell in cells if (cell["kind"], cell["variant"]) == (kind, variant)]


def decision():
    """The figure: a question, where to go with yes, and below with no; gaps out of goals.json."""

    def gap(kind, variant):
        cells = _cells(kind, variant)
        before, after = (100 * mean(cell[key] for cell in cells) for key in ("untouched", "gap"))
        return f"{kind}: {before:.1f} → {after:.1f}"

    known, nothing = "no holdout, accuracy known", "no holdout, no accuracy"
    kinds = ("random", "class", "wrong labels")
    steps = [
        (["Can you train again", "without the records?"], ["retrain", "exact"]),
        (
            ["12 or more records that", "it was never trained on?"],
            ["with --holdout", *(gap(kind, DEFAULT) for kind in kinds)],
        ),
        (["Is a whole class to go?"], ["with --forget-class", gap("class", nothing)]),
        (
            ["Is its accuracy on unseen", "data known?"],
            ["with --expected-accuracy", *(gap(k, known) for k in kinds[::2])],
        ),
        ([], ["little changes", gap("random", nothing), "find a holdout, or retrain"]),
    ]
    title = "Which method: what to answer, and the gap to retraining before and after"
    parts = [f'<svg class="decision" role="img" viewBox="0 0 448 500"><title>{title}</title>']
    for row, (question, answer) in enumerate(steps):
        top = 4 + 100 * row
        if question:
            parts.append(_box(4, top, 176, question, "question"))
            parts.append(f'<path d="M180 {top + 38}h40"/><text x="188" y="{top + 32}">yes</text>')
            parts.append(f'<path d="M92 {top + 76}v24"/><text x="98" y="{top + 92}">no</text>')
        else:
            parts.append(f'<path d="M92 {top}v38h128"/>')
        parts.append(_box(220, top, 224, answer, "answer"))
    return "".join([*parts, "</svg>"])


def _box(x, y, width, lines, kind):
    first = y + 38 - 8 * (len(lines) - 1) + 4
    words = "".join(
        f'<text x="{x + 10}" y="{first + 16 * at}">{line}</text>' for at, line in enumerate(lines)
    )
    return (
        f'<g class="{kind}"><rect x="{x}" y="{y}" width="{width}" height="76" rx="6"/>{words}</g>'
    )
