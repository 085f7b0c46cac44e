"""Submission of what the results of earlier jobs have decided, from inside a job: python -m slurm.next_round FILE.

It does what `mixlab submit` does, with the code and the cluster file of the submission that it follows, but for two
things. It sends no trial that tunes again: if such a trial is lost each time, jobs and this one would follow each other
without end. Where tuning is by halving it sends those that go on, each once a stage. And where another form of the
ablation has been run or submitted since, that one stays under the name. What a kill leaves undone its next start does,
or whoever submits again.
"""

import json
import sys
import time
from pathlib import Path

from backends.errors import MixlabError, show_chain
from experiments.design import archive, tune
from experiments.files import write_json
from experiments.results.store import Store
from slurm import client, ledger, snapshot
from slurm.cluster_file import stored_cluster
from slurm.following import NEXT
from slurm.request import Request
from slurm.submission import OthersSubmit, submit

TRIES, WAIT_S = 30, 10.0  # to reach a controller that restarts, or to wait for another who submits


def send_next(path: Path) -> None:
    """Send the trials of the table, or of the next stage, that are known by now. Raises: MixlabError."""
    work, folder = json.loads(path.read_text()), path.parent
    snapshot.check(Path(work["snapshot"]))
    store = Store(Path(work["store"]))
    ablation, trials = archive.read(folder / archive.FILE)
    trials = tune.known(ablation, trials, store)
    for choice in tune.choose(ablation, trials, store):
        if choice.chosen is None:
            print(f"mixlab: {choice.setting.label or ablation.name}: {choice.why_not}", flush=True)
    cluster = stored_cluster(ledger.read(folder / ledger.CLUSTER) or {}, str(folder / ledger.CLUSTER))
    write_json(folder / NEXT, {**work, "ended": True})  # from here on another one is needed, if one is
    request = Request(
        ablation,
        trials,
        cluster,
        store,
        Path(work["cache"]),
        sends_tuning=False,
        keeps_newer=True,
        code=Path(work["snapshot"]),
        commit=work["commit"],
    )
    submitted = submit(request)
    left = f"; the queue had no room for {submitted.num_left}: mixlab retry {ablation.name}" * bool(submitted.num_left)
    print(f"mixlab: {ablation.name}: {submitted.num_trials} sent, {submitted.num_done} done{left}", flush=True)


def main() -> int:
    """Try until Slurm answers; returns the exit code: 0, 1, or client.GO_BACK, of a job that is to begin again."""
    for _ in range(TRIES):
        try:
            send_next(Path(sys.argv[1]))
        except (client.SlurmSilent, OthersSubmit) as error:
            show_chain(error)
            print(f"mixlab: {error}", flush=True)
            time.sleep(WAIT_S)
        except MixlabError as error:
            show_chain(error)
            print(f"mixlab: {error}", flush=True)
            return 1
        else:
            return 0
    return client.GO_BACK


if __name__ == "__main__":
    sys.exit(main())
