"""Who may write what: claims, records, kept weights, clocks; what a worker hands from one trial to the next."""

from tests.mutants.fault import Row

FAULTS: dict[str, list[Row]] = {
    "experiments/results/claims.py": [
        ("STALE_S = 120.0", "STALE_S = 12.0", "claims -k misses_many_beats"),
        ("BEAT_S = 5.0", "BEAT_S = 500.0", "claims -k beats_ten_times"),
        ('content.get("restart", 0) < ours', 'content.get("restart", 0) <= ours', "claims -k earlier_start"),
        ('content.get("job") == ours["job"] and', "", "claims -k earlier_start"),
        ("held = self.is_held()", "held = True", "claims -k disk_delays"),
        (
            "if content and _token(aside) != content",
            "if content and _token(aside) == content",
            "claims -k slower_of_two",
        ),
    ],
    "experiments/clock.py": [
        ("return steady + offset", "return time.time()", "clocks -k dead_by_the_file"),
        ("offset = _touched(folder) - steady", "offset = time.time() - steady", "clocks -k look_is_of_the_file"),
        ("if steady - looked >= RENEW_S:", "if not looked:", "clocks -k found_out"),
    ],
    "experiments/results/publish.py": [
        ("if not may_stay and not claim.is_held():", "if False:", "claims -k claim_is_lost"),
        (
            "        if not claim.is_held():\n            raise ClaimLost(path.parent.name)\n        if _link",
            "        if _link",
            "claims -k lost_its_claim",
        ),
        ("if path.exists() and not may_replace(path):", "if False:", "claims -k never_replaced"),
        ("if not is_to_go(aside):", "if False:", "claims -k gets_better"),
        ("return identity(path) == ours", "return False", "claims -k answer_was_lost"),
    ],
    "backends/state.py": [
        ('group = "average" if optimizer.ema_decay else "params"', 'group = "params"', "keep -k numbers_are_of"),
    ],
    "experiments/results/kept.py": [
        ("int(match[1]) > after", "int(match[1]) < after", "keep -k did_not_come"),
        ("int(match[1]) not in but and ", "", "keep -k checkpoint_before"),
        ('{"kept": "last", "step": trial.num_steps}', '{"kept": "last", "step": 0}', "keep -k shown"),
    ],
    "experiments/results/predictions.py": [
        ('held[f"{split}/{when}"], held', 'held[f"{split}/last"], held', "predictions -k share_of_right"),
        ("digest.update(np.ascontiguousarray", "(np.ascontiguousarray", "predictions -k order_of_examples"),
        (
            "examples_key(content, indices)\n            arrays",
            'examples_key("", indices)\n            arrays',
            "predictions -k exactly_if",
        ),
    ],
    "experiments/training/trial_run.py": [
        ("        self._keep_predictions()\n", "", "predictions -k before_the_record"),
        (
            "step in self._steps_to_keep}\n        self.tell",
            "step == progress.step}\n        self.tell",
            "predictions -k share_of_right",
        ),
        (
            "kept.drop_saved(self.folder, but=before | steps)",
            "kept.drop_saved(self.folder, but=steps)",
            "predictions -k checkpoint_before",
        ),
        (
            "        self.said = {step: said for step, said in found.items() if said is not None}\n",
            "",
            "predictions -k kills_and_stops",
        ),
    ],
    "experiments/results/store.py": [
        ("            predictions.forget(self.folder(trial_id))\n", "", "predictions -k failed_trial"),
        ("return not is_final(record)", 'return bool(record["status"] != "done")', "claims -k never_replaced"),
    ],
    "experiments/running/local.py": [
        (
            "if record is not None and is_final(record):  # it died",
            "if False:  # it died",
            "claims -k failed_by_the_pool",
        ),
    ],
    "experiments/results/shape.py": [
        ("0 <= value <= self.most", "0 <= value", "record_shape -k in_range"),
        ("(DONE,) if one.in_all_records else ()", "(DONE,)", "metrics -k lack_it"),
        ("elif value is None or not part.holds(value):", "elif value is None:", "record_shape -k in_range"),
    ],
    # The time of a worker is measured by one clock; data is kept for trials of the same images alone.
    "experiments/running/worker.py": [
        ("time.monotonic() - spec.hired_s", "time.time() - spec.hired_s", "bench -k add_up"),
    ],
    "experiments/running/opener.py": [
        (
            "(config.permutation, model.patch_size, config.split_seed) if",
            "(config.permutation, model.patch_size) if",
            "sessions -k split_seeds",
        ),
        (
            "(config.permutation, model.patch_size, config.split_seed) if",
            "(model.patch_size, config.split_seed) if",
            "sessions -k of_each_permutation",
        ),
    ],
}
