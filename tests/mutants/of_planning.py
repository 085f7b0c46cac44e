"""What a plan promises, and what it may look at."""

from tests.mutants.fault import Row

FAULTS: dict[str, list[Row]] = {
    "analysis/planning/known.py": [
        ("in self.whole if planned.in_table]", "in self.whole]", "plan_tuned -k none_of_the_table"),
    ],
    "analysis/planning/spread.py": [
        ("else metrics.sealed(metric)", "else metric", "spread -k until_a_report"),
        ("1.0 if of_pairs else ROOT_2", "1.0", "spread -k single_settings"),
        ("found.of_examples(num) if of_pairs else None", "None", "spread -k counts_the_test_examples"),
    ],
    "analysis/variance.py": [
        ("self.rest / num)", "self.rest)", "spread -k scaled"),
        ("weights = [one.df for one in estimates]", "weights = [1 for one in estimates]", "spread -k right_on_average"),
        ("degrees = max(n - 1, 1)", "degrees = max(n, 1)", "spread -k right_on_average"),
    ],
    "analysis/planning/pairs.py": [
        ("(trial.info.content, trial.model) in wanted", "True", "spread -k other_trainings"),
        ("if side <= one.fields:", "if True:", "spread -k other_trainings"),
    ],
    "experiments/results/unsealed.py": [
        ("return shown >= set(contents)", "return bool(shown)", "spread -k of_other_data"),
    ],
    "experiments/design/foreseen.py": [
        ("costs.index(max(costs))", "0", "plan_tuned -k costs_the_most"),
        (" or choice.is_lost", "", "plan_tuned -k waits_no_more"),
    ],
    "experiments/design/base.py": [
        ("if MATCHED in tree else base", "if tree.get(MATCHED) else base", "matched -k takes_back"),
    ],
}  # fmt: skip
