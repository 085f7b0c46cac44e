"""Which values go on from a stage, and how far a trial is trained: tuning by halving."""

from tests.mutants.fault import Row

FAULTS: dict[str, list[Row]] = {
    "experiments/design/halving.py": [
        ("math.ceil(Fraction(self.keep) * num", "math.ceil(float(Fraction(self.keep)) * num", "halving -k rounded_up"),
        ("or steps != sorted(set(steps))", "", "halving -k refused"),
    ],
    "experiments/design/choice.py": [
        ("point = curves.at(curves", "point = curves.best(curves", "halving -k comes_near"),
        ("        if known.num_open or known.why:\n", "        if known.why:\n", "halving -k decided_when_all"),
        ("_ordered(tune, tried)[: tune", "tried[: tune", "halving -k stage_after_stage"),
        ("[one for one in tried if one.mean is not None]", "list(tried)", "halving -k all_diverged"),
        ("if point is None and record is not None and", "if record is not None and", "halving -k after_the_step"),
    ],
    "experiments/results/curves.py": [
        ("or until[-1][STEP] != step", "", "halving -k comes_near"),
        ("best(until) if when", "best(curve) if when", "halving -k best_up_to"),
        ("point[STEP] <= step", "point[STEP] < step + 99", "halving -k earlier_run"),
        ("is_final(record):\n        return recorded", "False:\n        return recorded", "halving -k earlier_run"),
    ],
    "experiments/design/stages.py": [
        ("step < last:", "step <= last:", "halving -k refused"),
        ("max(steps) if len(steps) == len(asked)", "min(steps) if steps", "halving -k share_a_trial"),
        ("all(is_pruned for", "any(is_pruned for", "halving -k share_a_trial"),
        ("if step is not None and not is_pruned:", "if False:", "halving -k plan_counts"),
        ("stands_there and store", "False and store", "halving_run -k told_from"),
    ],
    "experiments/design/archive.py": [
        ("to_tree(replace(planned, until=None, pruned=False))", "to_tree(planned)", "halving -k is_kept"),
        ('del tree["tune"]["halving"]', "pass", "halving -k is_kept"),
    ],
    "experiments/running/local.py": [
        ("elif is_halted(planned, self.store):", "elif False:", "halving_run -k died"),
    ],
    "experiments/running/queue.py": [
        (" and not is_halted(planned, store)", "", "halving -k not_pending"),
        ("replicas.common(planned.trial), planned.until)", "replicas.common(planned.trial))", "halving -k one_stage"),
    ],
    "experiments/running/rounds.py": [
        ("(one.trial.id, one.until) not in given", "one.trial.id not in dict(given)",
         "halving_run -k knows_the_stages"),
    ],
    "experiments/running/worker.py": [
        ("elif until is not None and curves", "elif False and curves", "halving_run -k does_not_open"),
    ],
    "experiments/training/loop.py": [
        ("if self.step == self.last_step < self.trial.num_steps:", "if False:", "resume -k paused_trial"),
    ],
    "slurm/missing.py": [
        ("or planned.until == halving.steps[0]", "", "halving_run -k once_a_stage"),
        (".sends_to(planned.trial.id) < until", ".sends_to(planned.trial.id) <= until", "halving_run -k once_a_stage"),
    ],
    "slurm/status.py": [
        ("place.sends_to(trial_id) <= halt.step or", "", "halving_run -k is_not_lost"),
        ("not in jobs and not halt.goes_on)", "not in jobs)", "halving_run -k is_not_lost"),
    ],
    "slurm/ledger.py": [
        ("if not is_halted(one, store)]", "]", "halving_run -k earlier_form"),
    ],
    "analysis/planning/cost.py": [
        ("* known.share(planned) for", "for", "halving -k plan_counts"),
    ],
    "analysis/figures/sensitivity.py": [
        ("if value not in whole}", "if value in whole}", "halving_run -k figure_marks"),
        ('"x", "linestyle": ""}', '"x"}', "halving_run -k figure_marks"),
    ],
    "mixlab/run.py": [
        ("[replace(one, until=None) for one in _only(trials, arguments.only)]", "_only(trials, arguments.only)",
         "halving_run -k by_its_id"),
    ],
}  # fmt: skip
