"""What Mixlab uses of submitit beyond its public interface, beside a stand-in for sbatch that keeps what it is sent."""

import os
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import submitit

from backends.errors import MixlabError
from slurm import executor, ledger
from slurm.batch import Ask, Batch
from slurm.cluster_keys import cluster_from
from slurm.job import PackJob

SBATCH = '#!/bin/sh\ncp "$1" "$SENT"\necho Submitted batch job 12\n'


@pytest.fixture
def batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Batch:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in {"sbatch": SBATCH, "srun": "#!/bin/sh\n"}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("SENT", str(tmp_path / "sent.sh"))
    cluster = cluster_from({"partition": "low", "setup": ["module load cuda"], "array_parallelism": 2}, "c.yaml")
    ask = Ask(cluster, cluster.needs("torch"), cluster.environment("torch"), tmp_path / "snapshot")
    return Batch(tmp_path / "slurm", "mixlab-name", ask)


@pytest.mark.parametrize("name", executor.PRIVATE)
def test_the_installed_submitit_can_show_a_batch_script(name: str) -> None:
    assert hasattr(submitit.SlurmExecutor, name), (
        f"submitit {submitit.__version__} has no SlurmExecutor.{name}, by which slurm/executor.py shows batch scripts; "
        f"mend script() there, or say in pyproject.toml that submitit is older than this"
    )


@pytest.mark.parametrize("num_jobs", [1, 3])
def test_the_script_that_is_shown_is_the_one_that_is_sent(tmp_path: Path, batch: Batch, num_jobs: int) -> None:
    shown = batch.text(num_jobs)
    assert batch.submit([PackJob(f"pack-{number}") for number in range(num_jobs)], hold=True) == "12"
    assert (tmp_path / "sent.sh").read_text() == shown
    assert ("#SBATCH --array=0-2%2" in shown) == (num_jobs == 3)


@pytest.mark.parametrize(("num_jobs", "job"), [(1, "%j"), (3, "%A_%a")])
def test_logs_are_looked_for_where_jobs_write_them(tmp_path: Path, batch: Batch, num_jobs: int, job: str) -> None:
    words = shlex.split(batch.text(num_jobs).partition("\nsrun ")[2])
    written = [words[words.index(option) + 1] for option in ("--output", "--error")]
    packs = tuple((f"trial {number}",) for number in range(num_jobs))
    array = ledger.Array(tmp_path, 0, "mixlab-name", "released", "12", "torch", packs)
    task = array.task(num_jobs - 1)
    assert array.log_files(num_jobs - 1) == [Path(path.replace(job, str(task)).replace("%t", "0")) for path in written]


def test_a_submitit_that_cannot_show_a_script_is_named_with_the_way_out() -> None:
    later: Any = SimpleNamespace(parameters={})
    with pytest.raises(MixlabError) as caught:
        executor.script(later, 1)
    text = str(caught.value)
    assert f"submitit {submitit.__version__}, which lacks SlurmExecutor._make_submission_file_text" in text
    assert "pip install submitit==1.5.4" in text and "\n" not in text


def test_a_job_whose_functions_are_public_alone_is_still_submitted(
    tmp_path: Path, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "PRIVATE", ("_of_an_earlier_version",))
    with pytest.raises(MixlabError, match=r"lacks SlurmExecutor\._of_an_earlier_version"):
        batch.text(1)
    assert batch.submit([PackJob("pack")], hold=False) == "12"
    assert (tmp_path / "sent.sh").is_file()


def test_a_refusal_of_sbatch_is_one_of_the_errors_that_are_caught(batch: Batch) -> None:
    place = Path(os.environ["PATH"].partition(":")[0])
    (place / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    with pytest.raises(MixlabError, match="slurm: sbatch: invalid partition"):
        batch.submit([PackJob("pack")], hold=False)
    (place / "sbatch").write_text("#!/bin/sh\necho 'nothing that holds a number'\n")
    with pytest.raises(MixlabError, match="slurm: sbatch: Could not make sense of sbatch output"):
        batch.submit([PackJob("pack")], hold=False)
