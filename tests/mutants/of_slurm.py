"""What is said of a trial that was sent, what is done with it, and what its job asks for."""

from tests.mutants.fault import Row

STATE = "slurm_states -k state_of_a_trial"
FAULTS: dict[str, list[Row]] = {
    "slurm/ledger.py": [
        ('        if array.state != "void"\n', "", STATE),
        ('if array.state != "void"', 'if array.state == "void"', STATE),
        ("if self.state in OPEN:", "if self.state not in OPEN:", "clocks -k slurm_is"),
        ("st_mtime < LATE_S", "st_mtime > LATE_S", "clocks -k slurm_is"),
        ("LATE_S = 3600.0", "LATE_S = 360.0", "clocks -k slurm_is"),
        (", key=lambda folder: folder.name)", ")", "slurm_states -k last_submitted"),
        ("len(self.packs) == 1 or self.job is None", "self.job is None", "slurm_states -k one_pack"),
        ("len(self.packs) == 1 or self.job is None", "len(self.packs) == 1", "slurm_states -k one_pack"),
        ("len(self.packs) == 1 or self", "len(self.packs) <= 2 or self", "slurm_states -k one_pack"),
        ('OPEN = ("intended", "held", "released")', 'OPEN = ("held", "released")', "clocks -k slurm_is"),
    ],
    "slurm/status.py": [
        ("if silence is not None and place.array.is_asked:", "if silence is not None:", "slurm_states -k long_ago"),
        ("if silence is not None and place.array.is_asked:", "if place.array.is_asked:", STATE),
        ('state in ("intended", "held"):', 'state in ("held",):', STATE),
        ('state in ("intended", "held"):', 'state in ("intended",):', STATE),
        ('job is not None and job.state == "PENDING" and', "job is not None and", STATE),
        ("place and store.recorded_at(trial_id) < place.array.submitted:", "place:", "slurm_states -k stores_word"),
        (
            "store.recorded_at(trial_id) < place",
            "store.recorded_at(trial_id) > place",
            "slurm_states -k failure_of_before",
        ),
        ("if name != place.array.name or", "if", "slurm_parts -k given_our_number"),
    ],
    "slurm/snapshot.py": [
        ('f"{name}\\0{hashlib', 'f"\\0{hashlib', "slurm_parts -k another_name"),
        ("if place.exists() and _digest_of(place) != place.name:", "if False:", "slurm_parts -k made_anew"),
    ],
    "slurm/time_limit.py": [
        ("return whole + bool(seconds)", "return whole", "cluster_files -k time_limit_is_read"),
        ("DAY_H, HOUR_MIN, MINUTE_S = 24", "DAY_H, HOUR_MIN, MINUTE_S = 12", "cluster_files -k time_limit_is_read"),
        ("if days is None and second is not None and third is None:", "if False:", "cluster_files -k two_readings"),
        ("if number is not None and int(number) >= limit:", "if False:", "cluster_files -k two_readings or refused"),
    ],
    "slurm/needs.py": [
        ('OLD_NAMES = {"time_min": "time"}', 'OLD_NAMES = {"time_min": "pack"}', "cluster_files -k old_name"),
        (
            "settings = {**base, **planned.settings}",
            "settings = {**planned.settings, **base}",
            "cluster_files -k place_of_the_bases",
        ),
        ("return all(any(value in own", "return any(any(value in own", "cluster_files -k rule_matches"),
        ("max(1, self.gpus // self.devices)", "(self.gpus // self.devices)", "cluster_files -k share_of_each"),
        ('if layer.get("gpus") == 0 else', "if False else", "cluster_files -k layers_win"),
    ],
    "backends/models/mixer.py": [
        ("return own == sizes and", "return len(own) == len(sizes) and", "cluster_files -k known_by_its_sizes"),
    ],
    "slurm/options.py": [
        ('MEMORY = ("mem", "mem-per-cpu", "mem-per-gpu")', 'MEMORY = ("mem", "mem-per-cpu")', "cluster_files"),
        ('item.partition(":")[2] or "1"', 'item.partition(":")[2] or "2"', "cluster_files"),
        (
            'GPUS = ("gpus", "gpus-per-node", "gpus-per-task", "gres")',
            'GPUS = ("gpus", "gpus-per-node", "gres")',
            "cluster_files",
        ),
        ("if name not in MEMORY}", "}", "batch_scripts -k job_of_the_report"),
        ("without = (*GPUS, ", "without = (", "prepare_job -k no_gpu"),
    ],
    "slurm/cluster_keys.py": [
        ("            typed[key] = None", "            pass", "cluster_files -k layers_win or comes_back"),
        (
            '{"match": rule["match"], **rule["needs"]}',
            '{"match": rule["match"], "pack": 1}',
            "cluster_files -k comes_back",
        ),
    ],
}
