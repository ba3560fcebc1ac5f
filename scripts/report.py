"""Results beside print: a table or a chart, the page of them all, what is kept or still running.

python scripts/report.py table thesis/5.3 [--rows "MLP*|Random" --columns n=8]
python scripts/report.py status thesis/5.3
python scripts/report.py figure idspn/2 [--print] [--to PICTURE.png]
python scripts/report.py figure thesis/3.6 [--points 101]
python scripts/report.py keep outputs/polygons_fspool/dataset.set_size=8
python scripts/report.py wilcoxon GIN-FSPool GIN-Base thesis/5.10/social thesis/5.10/bio
python scripts/report.py page
python scripts/report.py beside RUN_FOLDER results/.../paper-synthetic-seed0.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from setexp.errors import ConfigError, listed, one_line  # noqa: E402
from setexp.files import write_text  # noqa: E402
from setexp.report import bar_picture, curve_picture, render, results_page, significance  # noqa: E402
from setexp.report.bars import load_chart  # noqa: E402
from setexp.report.blocks import Block, blocks  # noqa: E402
from setexp.report.curves import fullest  # noqa: E402
from setexp.report.papers import PrintedTable, load_figure, load_printed  # noqa: E402
from setexp.report.part import part, printed_part  # noqa: E402
from setexp.report.progress import progress  # noqa: E402
from setexp.report.records import Record, keep, read_record, read_records  # noqa: E402
from setexp.report.tables import config_name, load_table, load_tables  # noqa: E402

SCALES = sorted(path.stem for path in (ROOT / "configs/scale").glob("*.yaml"))


@one_line
def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake is one line and exit code 2."""
    options = _parser().parse_args(arguments)
    options.command(options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    table = commands.add_parser("table", help="print one table, paper and ours")
    table.add_argument("table", help="id such as thesis/5.3")
    table.set_defaults(command=_table)

    page = commands.add_parser("page", help="write docs/results.md, and README's table of tables")
    page.add_argument(
        "--page", type=Path, default=ROOT / "docs" / "results.md", help="default: docs/results.md"
    )
    page.add_argument(
        "--readme", type=Path, default=ROOT / "README.md",
        help="text with a place for the table of tables; default: README.md",
    )  # fmt: skip
    page.set_defaults(command=_page)

    kept = commands.add_parser("keep", help="copy finished results to where they are committed")
    kept.add_argument("folders", nargs="+", type=Path, help="run folders, or folders of them")
    kept.add_argument("--replace", action="store_true", help="overwrite other results kept before")
    kept.set_defaults(command=_keep)

    status = commands.add_parser("status", help="what of a table is done, running or missing")
    status.add_argument("table", help="id such as thesis/5.3")
    status.set_defaults(command=_status)

    figure = commands.add_parser("figure", help="draw a printed chart, paper and ours")
    figure.add_argument("figure", help="id such as idspn/2")
    figure.add_argument("--print", action="store_true", dest="alone", help="printed bars alone")
    figure.add_argument("--to", type=Path, help="default: outputs/figures/ID.png")
    figure.set_defaults(command=_figure)

    test = commands.add_parser("wilcoxon", help="test two rows against each other over columns")
    test.add_argument("first", help="label of a row")
    test.add_argument("second", help="label of another")
    test.add_argument("tables", nargs="+", help="ids of tables that have both")
    test.set_defaults(command=_wilcoxon)

    side = commands.add_parser("beside", help="print some runs' metrics side by side")
    side.add_argument("runs", nargs="+", type=Path, help="run folders or records")
    side.set_defaults(command=_beside)

    for command in (status, figure):
        command.add_argument(
            "--scale", default="paper", choices=SCALES, help="of the runs; default: paper"
        )
    for command in (table, status):
        command.add_argument("--rows", help="labels or patterns of a shell, divided by |")
        command.add_argument("--columns", help="likewise")
    for command in (table, status, figure):
        command.add_argument("--points", type=int, help="of sweeps; default: the table's config")
    for command in commands.choices.values():
        command.add_argument(
            "--results", type=Path, default=ROOT / "results",
            help="folder of kept records; default: results of this project",
        )  # fmt: skip
        command.add_argument(
            "--outputs", type=Path, default=ROOT / "outputs",
            help="folder that runs write to; default: outputs of this project",
        )  # fmt: skip
    return parser


def _records(options: argparse.Namespace) -> list[Record]:
    """Records that are kept and of run folders; of a broken one, a warning."""
    return read_records(
        options.results,
        options.outputs,
        warn=lambda said: print(f"warning: left out: {said}", file=sys.stderr),
    )


def _table(options: argparse.Namespace) -> None:
    table = part(load_table(options.table, points=options.points), options.rows, options.columns)
    printed = load_printed(table.id)
    if not table.sweeps:
        printed = printed_part(printed, options.rows, options.columns)
    found = blocks(table, _records(options), load_tables())
    print(render.table_text(table, printed, found), end="")


def _page(options: argparse.Namespace) -> None:
    tables, records = load_tables(), read_records(options.results)
    with _writing("--page", options.page):
        write_text(options.page, results_page.results_page(tables, records))
    print(f"{options.page}: {len(tables)} tables, {len(records)} records")
    if options.readme.exists():
        before = options.readme.read_text()
        overview = results_page.overview(tables, records, "docs/results.md")
        after = results_page.insert(before, overview)
        if after != before:
            with _writing("--readme", options.readme):
                write_text(options.readme, after)
            print(f"{options.readme}: table of tables")


def _keep(options: argparse.Namespace) -> None:
    with _writing("--results", options.results):
        kept = keep(options.folders, options.results, replace=options.replace)
    for record, path in kept:
        marks = [record.status] if record.status != "done" else []
        marks += ["from changed files, commit " + record.commit] if "+" in record.commit else []
        print(f"{path}" + (f" ({'; '.join(marks)})" if marks else ""))


@contextmanager
def _writing(option: str, place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{option} {place}: cannot be written: {error.strerror}; name another place"
        ) from None


def _status(options: argparse.Namespace) -> None:
    table = part(load_table(options.table, points=options.points), options.rows, options.columns)
    print(progress(table, options.outputs, options.results, options.scale), end="")


def _figure(options: argparse.Namespace) -> None:
    spec = load_figure(options.figure)
    table, printed = load_table(spec["table"], points=options.points), load_printed(spec["table"])
    records, known = _records(options), load_tables()
    found = blocks(table, records, known)
    block = next((b for b in found if b.scale == options.scale and not b.extra), None)
    said = [] if block is None else render.description(block, printed)[:2]
    path = options.to or options.outputs / "figures" / f"{config_name(options.figure)}.png"
    if "kind" in spec:
        if options.alone:
            raise ConfigError(
                f"figure {options.figure}: --print: curves have no printed numbers; leave it out"
            )
        over = None
        if "over" in spec:  # the fullest protocol that there is, whatever the scale of the rest
            others, row = map(load_table, spec["over"]["tables"]), spec["over"]["row"]
            above = [b for other in others for b in blocks(other, records, known)]
            over = fullest(above, row, spec["functions"][0])
            if over is not None:
                laid = load_printed(over.table.id)
                line = render.description(over, laid)[0]
                said.append(f"Black, {row} of {laid.source}: {line}")
        curve_picture.draw(options.figure, spec, printed, block, " ".join(said), path, over)
    else:
        _bars(options, printed, block, said, path)
    print(f"picture: {path}")


def _bars(
    options: argparse.Namespace,
    printed: PrintedTable,
    block: Block | None,
    said: list[str],
    path: Path,
) -> None:
    chart = load_chart(options.figure)
    panels = [] if block is None else chart.panels(printed, block)
    about = "" if block is None else " ".join(["Pale: printed. Full: ours; x: diverged.", *said])
    if options.alone:
        panels, about = chart.panels(printed, None), "Printed numbers alone."
    bar_picture.draw(chart, panels, about, path)


def _wilcoxon(options: argparse.Namespace) -> None:
    tables = [load_table(table) for table in options.tables]
    papers = [load_printed(table.id) for table in tables]
    rows = (options.first, options.second)
    for table in tables:
        labels = dict.fromkeys(label for label, _ in table.cells)
        for row in rows:
            if row not in labels:
                raise ConfigError(
                    f"{row}: table {table.id} has no such row; it has {listed(labels)}"
                )
    print(f"from printed numbers: {significance.printed(papers, *rows)}")
    records, known = _records(options), load_tables()
    # of each table the block that its tally in the README counts
    first = [next(iter(blocks(table, records, known)), None) for table in tables]
    full = [block for block in first if block and block.full]
    print(f"ours: {significance.measured(full, papers, *rows)}")


def _beside(options: argparse.Namespace) -> None:
    paths = [p / "result.json" if p.is_dir() else p for p in options.runs]
    print(render.beside([read_record(path) for path in paths]), end="")


if __name__ == "__main__":
    sys.exit(main())
