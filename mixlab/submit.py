"""The command `mixlab submit`."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from backends.errors import MixlabError, counted
from mixlab.common import add_ablation, add_overrides, data_cache, data_notes, store_option

if TYPE_CHECKING:
    from slurm.request import Request
    from slurm.submission import Submitted

HELP = "Send the trials that are neither done nor on their way to a Slurm cluster, and return at once."
EXAMPLE = "mixlab submit experiments/ablations/tying.yaml --cluster slurm/clusters/example.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", type=Path, help="the results directory (default: the cluster file's, else runs)")
    add_ablation(parser)
    parser.add_argument("--cluster", type=Path, required=True, metavar="FILE", help="the cluster file")
    parser.add_argument("--dry-run", action="store_true", help="print trials, packs and batch scripts, send nothing")
    add_overrides(parser)


def command(arguments: argparse.Namespace) -> int:
    from experiments.design import ablation as ablations
    from experiments.design import tune
    from experiments.results.store import Store
    from slurm import client, submission
    from slurm.cluster_file import read_cluster
    from slurm.request import Request

    client.begin()
    cluster = read_cluster(arguments.cluster)
    store = Store(arguments.store or Path(cluster.store or "runs"))
    store.check_folder()
    ablation = ablations.load_ablation(arguments.ablation, arguments.overrides)
    cache = data_cache(ablation, store)
    trials = tune.trials(ablation, cache, store)
    request = Request(ablation, trials, cluster, store, cache)
    for line in data_notes(ablation, trials, store):
        print(f"mixlab: {line}", file=sys.stderr)
    if arguments.dry_run:
        for line in submission.preview(request):
            print(line)
        return 0
    send(request, str(arguments.cluster))
    return 0


def send(request: "Request", where: str) -> "Submitted":
    """Submit, and print what was sent and what to do next.

    Args:   where: the cluster file, for the sentence of what Slurm refuses.
    Raises: MixlabError.
    """
    from slurm import client, following, submission

    try:
        submitted = submission.submit(request)
    except client.SlurmError as error:
        raise MixlabError(f"{where}: {error}; mixlab cluster check says what the cluster has") from error
    name, at_a_time = request.ablation.name, request.cluster.array_parallelism
    sent = f"{submitted.num_trials} sent"
    if submitted.folder is not None:
        sent += f" as {submitted.num_packs} jobs ({', '.join(submitted.jobs)}), at most {at_a_time} of each at a time"
    total = len(request.trials) + len(request.extra)
    halted = f", {submitted.num_halted} paused or pruned" if submitted.num_halted else ""
    there = f"{submitted.num_done} done{halted}, {submitted.num_live} on their way"
    print(f"{counted(total, 'trial')}: {there}, {sent}")
    if submitted.num_left:
        left = counted(submitted.num_left, "trial")
        print(f"the queue had no room for {left}; give the same command when it has emptied")
    if request.num_waiting:
        who = following.who_goes_on(request.store, name) or f"mixlab retry {name} sends them when that is mended"
        print(f"{request.num_waiting} more wait for the choice of what is tuned: {who}")
    if submitted.num_trials or submitted.num_live:
        store = store_option(request.store)
        print(f"next: mixlab status {name} --watch{store}; mixlab logs {name}{store}; mixlab cancel {name}{store}")
    return submitted
