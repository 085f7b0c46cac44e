"""What may choose, and when: tuned fields."""

from tests.mutants.fault import Row

FAULTS: dict[str, list[Row]] = {
    "experiments/design/choice.py": [
        ("(point.get(split) or {})", '(point.get("test") or {})', "tune -k never_choose"),
        ("(one.num_failed, sign", "(0, sign", "tune -k counts_as_worst"),
        ("sign = -1 if metrics", "sign = 1 if metrics", "tune -k best_on_validation"),
        ("return (None,) if is_final(record) else sentence", "return (None,)", "tune -k may_mend"),
    ],
    "experiments/design/tune.py": [
        ("*(() if ablation.tune.each else (BACKEND,))", "BACKEND", "tune -k one_framework"),
    ],
    "experiments/design/tune_spec.py": [
        ("if metrics.parse(one).split == SPLIT", "", "tune -k not_of_validation"),
        ("if shared := [seed for seed in seeds if seed in own]:", "if shared := []:", "tune -k cannot_be_tuned"),
    ],
    "experiments/running/rounds.py": [
        ("if not todo and len(known) == len(before):", "if True:", "tune_run -k each_command"),
    ],
    "analysis/tuned.py": [
        ("if value not in ends or", "if value in ends or", "tune_run -k at_an_edge"),
        ("value == values.bounds(*fields.holder(name))[ends.index(value)]", "False", "tune_run -k no_further"),
        ("> 1 and not all(edges):", "> 1 and not any(edges):", "tune_run -k chose_at_an_edge"),
        ("sum(any(_edges(ablation, value)) for value in chosen)", "len(chosen)", "tune_run -k chose_at_an_edge"),
    ],
}  # fmt: skip
