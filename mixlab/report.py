"""The command `mixlab report`."""

import argparse
import gc
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from backends.errors import MixlabError, choices, show_chain
from mixlab.common import add_store, find, note_unsealed

if TYPE_CHECKING:
    from analysis.report import Report

HELP = "Print an ablation's table, and write its report: page, tables, tidy data, figures."
EXAMPLE = "mixlab report experiments/ablations/tying.yaml --open"
WATCH_S = 2.0  # between two looks at the records
FORMATS = ("text", "csv", "markdown", "json", "latex", "siunitx")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument(
        "ablations",
        nargs="+",
        metavar="ablation",
        help="YAML files, or names, as they were last run or submitted; then overrides of all files, as key=value",
    )
    parser.add_argument("--format", choices=FORMATS, help="print the table so, and write no report")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write there (default: ablations/NAME/report in the store)"
    )
    parser.add_argument("--metric", help="in place of the YAML's, such as best.test.loss")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.add_argument(
        "--watch", action="store_true", help="write the report anew whenever trials end, until all have, or Ctrl-C"
    )
    parser.add_argument(
        "--interval",
        choices=("t", "bootstrap"),
        default="t",
        help="of means: t, Student's, the default; bootstrap, for 10 seeds or more; a difference has that of its test",
    )
    parser.add_argument(
        "--mix-commits", action="store_true", help="average over trials of several commits of the project"
    )


def command(arguments: argparse.Namespace) -> int:
    overrides = [word for word in arguments.ablations if "=" in word and not Path(word).exists()]
    names = list(dict.fromkeys(word for word in arguments.ablations if word not in overrides))
    if arguments.out is not None and arguments.format:
        raise MixlabError(
            "command line: expected --format, which prints, or --out, which writes, got both; leave one out"
        )
    if arguments.out is not None and (
        not arguments.out.name or (arguments.out.exists() and not arguments.out.is_dir())
    ):
        raise MixlabError(
            f"command line: --out: expected a folder, which may not exist yet, got {str(arguments.out)!r}"
        )
    if not names:
        raise MixlabError(f"command line: expected an ablation before its overrides, got {overrides[0]!r}")
    if arguments.watch and arguments.format:
        raise MixlabError(
            "command line: expected --format, which prints, or --watch, which writes, got both; leave one out"
        )

    def make() -> "list[Report]":
        return [_report(name, overrides, arguments) for name in names]

    reports = _when_chosen(make) if arguments.watch else _reports(names, overrides, arguments)
    used = [report.ablation.name for report in reports]
    if twice := [name for name in used if used.count(name) > 1]:
        raise MixlabError(f"command line: two of the ablations are called {twice[0]!r}; give each a name of its own")
    if arguments.watch:
        _watch(reports, make, arguments)
        return 0
    _print(reports, arguments.format)
    if arguments.format is None:
        _write(reports, arguments)
    return 0


@contextmanager
def _uncollected() -> Iterator[None]:
    """Look for no cycles: of 10,000 trials nearly all is kept, and looking through it took a tenth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@_uncollected()
def _print(reports: "list[Report]", style: str | None) -> None:
    """Print the tables. Args: style: of --format; None: text, before the report is written."""
    from analysis.table.render import rendered_of

    for report in reports:
        _unseal(report, is_written=style is None)
        text = rendered_of(report).text(style or "text")
        print(text, end="" if report is reports[-1] else "\n")


def _when_chosen(make: "Callable[[], list[Report]]") -> "list[Report]":
    """The reports, as soon as each has a setting for which what is tuned is chosen.

    Raises: NoTable: one has none, and no trial that tunes is left.
    """
    from analysis.report import NoTable

    said = None
    while True:
        try:
            return make()
        except NoTable as error:
            if not error.waits:
                raise
            if str(error) != said:
                said = str(error)
                print(f"mixlab: {said}", file=sys.stderr)
            time.sleep(WATCH_S)


def _watch(reports: "list[Report]", make: "Callable[[], list[Report]]", arguments: argparse.Namespace) -> None:
    """Write the reports now and whenever a record is there anew, and print the tables when all trials have ended."""
    written, is_over = None, False
    while not is_over:
        # Looked at before they are read: a record that comes meanwhile is seen at the next look.
        stamps = [report.store.stamp(key) for report in reports for key in report.results]
        if stamps == written:
            time.sleep(WATCH_S)
            continue
        reports, written = make(), stamps
        ended = [status in ("done", "failed") for report in reports for status in report.frame["status"]]
        num_coming = sum(report.num_coming for report in reports)
        is_over = all(ended) and not num_coming
        print(f"{sum(ended)} of {len(ended) + num_coming} trials have ended", file=sys.stderr)
        if is_over:
            _print(reports, None)
        for report in reports:
            _unseal(report, is_written=True)
        _write(reports, arguments)
        arguments.open = False  # the page is open by now


def _unseal(report: "Report", is_written: bool) -> None:
    """Note that test numbers are shown: the files of a report hold them whatever the metric of its table is."""
    from experiments.design.possible import contents
    from experiments.results import metrics

    shows, frame = is_written or metrics.parse(report.ablation.report.metric).split == metrics.TEST, report.frame
    if shows and (frame["status"] == "done").any():
        note_unsealed(report.store, report.ablation.name, contents(report.ablation, report.trials))


@_uncollected()
def _write(reports: "list[Report]", arguments: argparse.Namespace) -> None:
    from analysis.page.writing import write_reports
    from experiments.files import StoreError

    places = [report.store.root / "ablations" / report.ablation.name / "report" for report in reports]
    if arguments.out:
        names = [report.ablation.name for report in reports]
        places = [arguments.out / name for name in names] if len(names) > 1 else [arguments.out]
    common = arguments.out or reports[0].store.root / "report"
    try:
        page = write_reports(reports, places, common, shlex.join(["mixlab", *sys.argv[1:]]))
    except StoreError as error:
        if arguments.out:
            raise
        show_chain(error)
        print(f"mixlab: no report was written: {error}; --out FOLDER writes it elsewhere", file=sys.stderr)
        return
    print(f"wrote {page}; tables, tidy.csv, tidy.parquet and figures are beside each ablation's page", file=sys.stderr)
    if arguments.open:
        import webbrowser

        if not webbrowser.open(page.absolute().as_uri()):
            print(f"no browser was found; open {page.absolute()}", file=sys.stderr)


def _reports(names: list[str], overrides: list[str], arguments: argparse.Namespace) -> "list[Report]":
    """The reports of ablations; of several, one that has no table yet is left out, and named."""
    from analysis.report import NoTable

    reports, waiting = [], []
    for name in names:
        try:
            reports.append(_report(name, overrides, arguments))
        except NoTable as error:
            waiting.append(error)
    if not reports:
        raise waiting[0]
    for one in waiting:
        print(f"mixlab: left out: {one}", file=sys.stderr)
    return reports


@_uncollected()
def _report(name: str, overrides: list[str], arguments: argparse.Namespace) -> "Report":
    from analysis.cells import Options
    from analysis.report import make_report
    from experiments.results import metrics

    store, ablation, trials = find(name, overrides, arguments)
    arguments.metric = metrics.full(arguments.metric)
    if arguments.metric and arguments.metric not in metrics.names():
        raise MixlabError(
            f"command line: --metric: expected a metric, got {arguments.metric!r}; "
            f"{choices(arguments.metric, metrics.names())}"
        )
    asked, equivalence_of = ablation.report, ""
    if arguments.metric and arguments.metric != asked.metric:
        ablation = replace(ablation, report=replace(asked, metric=arguments.metric, equivalence=None))
        equivalence_of = asked.metric if asked.equivalence else ""
    return make_report(ablation, trials, store, Options(arguments.interval, arguments.mix_commits, equivalence_of))
