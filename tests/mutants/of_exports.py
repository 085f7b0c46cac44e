"""What is exported to trackers: means, sealed numbers, and what a repeated or killed export leaves."""

from tests.mutants.fault import Row

FAULTS: dict[str, list[Row]] = {
    "analysis/export/runs.py": [
        (
            "fmean(one[name] for one in several)",
            "max(one[name] for one in several)",
            "export_runs -k mean_of_the_table",
        ),
        (
            "if all(step in curve for curve in curves)",
            "if any(step in curve for curve in curves)",
            "export_runs -k that_all",
        ),
        ("if with_test or metrics.parse(name).split != TEST", "if True", "export_runs -k left_out"),
        (
            "splits = [split for split in SPLITS if with_test or split != TEST]",
            "splits = SPLITS",
            "export_runs -k left_out",
        ),
        ("Options(mix_commits=asked.mix_commits)", "Options(mix_commits=True)", "export_runs -k several_commits"),
        (
            "        if not planned.tunes:\n            cells",
            "        if True:\n            cells",
            "export_runs -k tune",
        ),
    ],
    "analysis/export/folder.py": [
        ("path.is_dir() and (", "False and (", "export_runs -k of_others"),
        ("fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass", "export_runs -k one_process"),
        ("if found != target:", "if False:", "export_runs -k one_target"),
    ],
    "analysis/export/tensorboard.py": [
        (
            "content.startswith(there := last.read_bytes())",
            "content == (there := last.read_bytes())",
            "export_tensorboard -k appended",
        ),
        ("os.truncate(path, 0)", "path.unlink()", "export_tensorboard -k another_one"),
        ("    yield Event(session_log=SessionLog(status=SessionLog.START))\n", "", "export_tensorboard -k another_one"),
        (
            "SerializeToString(deterministic=True)\n    return summary",
            "SerializeToString()\n    return summary",
            "export_tensorboard -k repeated",
        ),
        (
            "        if path.parent not in kept:\n            path.unlink()",
            "        pass",
            "export_tensorboard -k no_more",
        ),
    ],
    "analysis/export/graph.py": [
        ("[branch, shortcut or trunk]", "[branch]", "export_tensorboard -k skip"),
        ("        if layer.weights:\n", "        if False:\n", "export_tensorboard -k shared"),
    ],
    "analysis/export/wandb.py": [
        ('    if "exit" in kinds and kinds', "    if kinds", "export_trackers -k could_not_write"),
        ("run.digest) and len(_places(folder, run.id)) == 1", "run.digest)", "export_trackers -k changed_alone"),
        ('mode="offline"', 'mode="online"', "export_trackers -k offline"),
    ],
    "analysis/export/mlflow.py": [
        ("made is not None and not _is_beginning(made, run)", "made is not None", "export_trackers -k mlflow"),
        ("made is not None and not _is_beginning(made, run)", "False", "export_trackers -k mlflow"),
    ],
    "analysis/export/trackio.py": [
        ("    SQLiteStorage.delete_run(project, run.title, run.id)\n", "", "export_trackers -k trackio_has"),
    ],
    "mixlab/export.py": [
        ("if arguments.test and any(", "if any(", "export_runs -k noted"),
        ("not _tell(look).is_over", "not _tell(look).num_ended", "export_runs -k followed"),
    ],
}
