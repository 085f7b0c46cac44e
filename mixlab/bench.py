"""The command `mixlab bench`."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backends.errors import MixlabError
from mixlab.common import add_ablation, add_overrides, add_store, data_cache, load

HELP = "Measure a training step against the machine's limit and other people's code, or where a grid's time goes."
FIGURES = (".svg", ".pdf", ".png")
EXAMPLE = "mixlab bench step --config cifar --backend torch --peer timm"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="WHAT", required=True, dest="what")
    step = actions.add_parser("step", help="images/s, GFLOP/s, share of the matrix ceiling; against peers, a ratio")
    step.add_argument(
        "--config", default="cifar", help="cifar, cifar-vit, or a published model: S/16, ViT-S/16, ... (cifar)"
    )
    step.add_argument("--backend", default="torch,jax", help="one or several, with commas (torch,jax)")
    step.add_argument(
        "--peer",
        action="append",
        default=[],
        help="timm, timm-compile, lucidrains, official-flax; of a ViT timm-vit, big_vision-vit",
    )
    step.add_argument("--peer-path", type=Path, help="the clone of a peer that is no package")
    step.add_argument(
        "--versus", action="append", default=[], metavar="key=value", help="the same with another setting, as a ratio"
    )
    step.add_argument(
        "--replicas", type=int, default=1, metavar="N", help="N trials as one program, against N trials one by one"
    )
    tokens = actions.add_parser(
        "tokens", help="step time and memory over image sizes, and their exponents in the tokens"
    )
    tokens.add_argument("--mixing", default="tied,attention,untied", help="(tied,attention,untied)")
    tokens.add_argument("--sizes", default="32,48,64,96,128", help="pixels a side, at a fixed patch (32,48,64,96,128)")
    tokens.add_argument("--backend", default="torch,jax", help="one or several, with commas (torch,jax)")
    tokens.add_argument("--figure", type=Path, metavar="SVG", help="draw it on logarithmic axes: .svg, .pdf or .png")
    limit = actions.add_parser("limit", help="the machine's matrix and memory ceilings")
    limit.add_argument("--store", type=Path, help="keep the ceiling in this results directory, for its reports")
    limit.add_argument("--backend", default="torch,jax", help="one or several, with commas (torch,jax)")
    grid = actions.add_parser("grid", help="where the wall time of an ablation goes, trained in a store of its own")
    add_store(grid)
    add_ablation(grid)
    grid.add_argument("--jobs", type=int, default=1, help="trials at a time (1)")
    grid.add_argument(
        "--compile-cache", type=Path, help="folder of compiled programs, kept from one process to the next"
    )
    data = actions.add_parser(
        "data", help="images/s that a trial is fed with, against torch's loader and a bare decoder"
    )
    add_store(data)
    data.add_argument("source", help="a prepared folder, or another source of data")
    for action in (step, tokens, limit, grid, data):
        action.add_argument("--json", action="store_true", help="for scripts")
        action.add_argument("--out", type=Path, metavar="JSON", help="keep it in a file too")
    add_overrides(grid)
    for action in (step, tokens, limit):
        action.add_argument("--precision", default="float32", help="float64, float32, tf32, bfloat16 (float32)")
    for action in (step, tokens, limit, data):
        action.add_argument("--rounds", type=int, default=5, help="in each of which every side has its turn (5)")
        add_overrides(action)


def command(arguments: argparse.Namespace) -> int:
    works = {"step": _step, "tokens": _tokens, "limit": _limit, "grid": _grid, "data": _data}
    return works[arguments.what](arguments)


def _step(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from analysis.terminal import bench_lines
    from experiments.bench import config, step

    names, rounds = _backends(arguments.backend), _rounds(arguments.rounds)
    trial = config.trial(arguments.config, _overrides(arguments))
    others = {one: config.trial(arguments.config, [*_overrides(arguments), *one.split()]) for one in arguments.versus}
    if arguments.replicas < 1:
        raise MixlabError(f"command line: --replicas: {arguments.replicas} is too small; at least 1")
    compared = step.sides(trial, names, arguments.peer, arguments.peer_path, others, arguments.replicas)
    with Console(stderr=True).status("begins") as status:
        measurements = step.measure(compared, rounds, status.update)
    return _show(arguments, measurements, bench_lines.step_lines(arguments.config, measurements))


def _tokens(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from analysis.terminal import bench_lines
    from experiments.bench import tokens

    names, rounds, figure = _backends(arguments.backend), _rounds(arguments.rounds), arguments.figure
    if figure and figure.suffix not in FIGURES:
        raise MixlabError(f"command line: --figure: expected a name that ends with {', '.join(FIGURES)}, got {figure}")
    groups = tokens.plan(names, arguments.mixing.split(","), _sizes(arguments.sizes), _overrides(arguments))
    with Console(stderr=True).status("begins") as status:
        found = tokens.measure(groups, rounds, status.update)
    if figure:
        from analysis.figures import scaling
        from experiments.files import write_whole

        write_whole(figure, scaling.draw(found).files[figure.suffix[1:]])
    return _show(arguments, found, bench_lines.tokens_lines(found))


def _sizes(text: str) -> list[int]:
    words = text.split(",")
    if not all(re.fullmatch(r"[1-9]\d{0,4}", word) for word in words):
        raise MixlabError(f"command line: --sizes: expected whole numbers such as 32,64,128, got {text!r}")
    return [int(word) for word in words]


def _limit(arguments: argparse.Namespace) -> int:
    import dataclasses

    from analysis.terminal import bench_lines
    from experiments.bench import config, limit
    from experiments.results.store import Store

    trial, rounds = config.trial("cifar", _overrides(arguments)), _rounds(arguments.rounds)
    trials = [dataclasses.replace(trial, backend=name) for name in _backends(arguments.backend)]
    limits = [limit.limit(one, rounds) for one in trials]
    if arguments.store:
        for one in limits:
            one.keep(Store(arguments.store))
    return _show(arguments, limits, bench_lines.limit_lines(limits))


def _grid(arguments: argparse.Namespace) -> int:
    from analysis.terminal import bench_lines
    from experiments.bench import grid

    if arguments.jobs < 1:
        raise MixlabError(f"command line: --jobs: expected at least 1, got {arguments.jobs}")
    store, ablation, trials = load(arguments, trains=True)
    times = grid.measure(trials, data_cache(ablation, store), arguments.jobs, arguments.compile_cache)
    return _show(arguments, [times], bench_lines.grid_lines(ablation.name, times))


def _data(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from analysis.terminal import bench_lines
    from experiments.bench import data
    from experiments.results.store import Store

    rounds, cache = _rounds(arguments.rounds), Store(arguments.store).data
    sides = data.sides(data.trial(arguments.source, arguments.overrides, cache), cache)
    with Console(stderr=True).status("begins") as status:
        found = data.measure(sides, rounds, status.update)
    return _show(arguments, found, bench_lines.data_lines(found))


def _show(arguments: argparse.Namespace, results: Sequence[Any], lines: Sequence[str]) -> int:
    """Print the results as lines or as JSON, and keep them in the file of --out."""
    import json

    from analysis.terminal import bench_lines
    from experiments.files import write_json

    if arguments.out:
        write_json(arguments.out, bench_lines.as_json(arguments.what, results))
    if arguments.json:
        print(json.dumps(bench_lines.as_json(arguments.what, results), allow_nan=False))
    else:
        print("\n".join([bench_lines.machine_line(), *lines]))
    return 0


def _overrides(arguments: argparse.Namespace) -> list[str]:
    return [f"train.precision={arguments.precision}", *arguments.overrides]


def _backends(text: str) -> list[str]:
    import backends

    names = text.split(",")
    for name in names:
        backends.check(name)
        backends.check_installed(name)
    return names


def _rounds(number: int) -> int:
    if number < 1:
        raise MixlabError(f"command line: --rounds: expected at least 1, got {number}")
    return number
