"""Uses of submitit beyond its public interface: the one place that needs what a new version may take away.

Jobs are submitted by public functions. A batch script is shown, before anything is sent, by functions of submitit's
own; a version without them still submits.
"""

import copy

import submitit
from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError

from backends.errors import MixlabError

PRIVATE = ("_make_submission_file_text", "_submitit_command_str")  # of SlurmExecutor
REFUSALS = (FailedJobError, FailedSubmissionError)  # what a submission raises where sbatch fails, or is not understood


def script(executor: SlurmExecutor, num_jobs: int) -> str:
    """The batch script that the executor would send for an array of jobs, or for one.

    Raises: MixlabError: this version of submitit lacks what makes it.
    """
    if lacking := [name for name in PRIVATE if not hasattr(type(executor), name)]:
        raise MixlabError(
            f"slurm: a batch script cannot be shown by submitit {submitit.__version__}, which lacks "
            f"SlurmExecutor.{lacking[0]}; install one that has it: pip install submitit==1.5.4"
        )
    shown = copy.copy(executor)
    array = {"map_count": num_jobs} if num_jobs > 1 else {}
    shown.parameters = {**executor.parameters, **array}
    return str(shown._make_submission_file_text(shown._submitit_command_str, "uid"))
