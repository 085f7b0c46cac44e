"""The command `mixlab retry`."""

import argparse
from pathlib import Path

from mixlab import submit
from mixlab.common import add_store, data_cache

HELP = "Send what is not done of a submitted ablation again, with the YAML and the cluster file of its last submission."
EXAMPLE = "mixlab retry tying --failed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("ablation", help="its name, as it was last submitted with this store")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--failed", action="store_true", help="those that failed, and no others")
    which.add_argument("--lost", action="store_true", help="those that were lost or cancelled, and no others")
    parser.add_argument("--cluster", type=Path, metavar="FILE", help="another cluster file")


def command(arguments: argparse.Namespace) -> int:
    from experiments.design import archive
    from experiments.results.store import Store
    from slurm import ledger
    from slurm.cluster_file import read_cluster
    from slurm.request import Request

    store = Store(arguments.store)
    ablation, trials = archive.recall(store, arguments.ablation)
    cluster = read_cluster(arguments.cluster) if arguments.cluster else ledger.last_cluster(store, ablation.name)
    states = frozenset({"failed"}) if arguments.failed else frozenset({"lost", "cancelled"}) if arguments.lost else None
    extra = ledger.earlier(store, ablation.name, {one.trial.id for one in trials})
    request = Request(ablation, trials, cluster, store, data_cache(ablation, store), states, extra)
    submitted = submit.send(request, str(arguments.cluster or f"the last submission of {ablation.name}"))
    if states and not submitted.num_trials:
        print(f"no trial of {ablation.name} is {' or '.join(sorted(states))}; without an option it sends all not done")
    return 0
