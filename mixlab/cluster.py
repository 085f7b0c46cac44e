"""The command `mixlab cluster`."""

import argparse
from pathlib import Path

from mixlab.common import USER_ERROR

HELP = "Check that a cluster does what its file says: limits, accounting, Pythons, and a job that looks around."
EXAMPLE = "mixlab cluster check slurm/clusters/example.yaml"
WAIT_S = 120.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    check = actions.add_parser("check", help=HELP)
    check.add_argument("cluster", type=Path, metavar="FILE", help="the cluster file")
    check.add_argument("--store", type=Path, help="the results directory (default: the cluster file's, else runs)")
    check.add_argument("--nodes", type=int, help="of the job that looks around (default: the cluster file's)")
    check.add_argument("--wait", type=float, default=WAIT_S, metavar="S", help=f"seconds for it to end ({WAIT_S:g})")


def command(arguments: argparse.Namespace) -> int:
    from experiments.results.store import Store
    from slurm.check import check
    from slurm.cluster_file import read_cluster

    cluster = read_cluster(arguments.cluster)
    store = Store(arguments.store or Path(cluster.store or "runs"))
    store.check_folder()
    ok = True
    for finding in check(cluster, store, arguments.nodes or cluster.nodes, arguments.wait):
        ok = ok and finding.ok
        print(f"{'ok' if finding.ok else 'NO':3} {finding.what}: {finding.said}", flush=True)
    return 0 if ok else USER_ERROR
