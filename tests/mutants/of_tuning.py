"""What may choose, and when: tuned fields."""

from tests.mutants.fault import Row

FAULTS: dict[str, list[Row]] = {
    "experiments/design/choice.py": [
        ("(point.get(split) or {})", '(point.get("test") or {})', "tune -k never_choose"),
        ("(one.num_failed, sign", "(0, sign", "tune -k counts_as_worst"),
        ("sign = -1 if metrics", "sign = 1 if metrics", "tune -k best_on_validation"),
        ("return (None,) if is_final(record) else sentence", "return (None,)", "tune -k may_mend"),
        ('OTHERS = "; give others', 'OTHERS = "; run it again; give', "tune -k counts_as_worst"),
        ("if one.chosen is None and not one.num_open)", "if False)", "tune_run -k watch"),
    ],
    "experiments/design/tune.py": [
        ("*(() if ablation.tune.each else (BACKEND,))", "BACKEND", "tune -k one_framework"),
        (", point, ablation.implied(point))", ", point)", "tune -k stays_solved"),
    ],
    "experiments/design/tune_spec.py": [
        ("if metrics.parse(one).split == SPLIT", "", "tune -k not_of_validation"),
        ("if shared := [seed for seed in seeds if seed in own]:", "if shared := []:", "tune -k cannot_be_tuned"),
        ("{nearest(name, [BACKEND])}", "", "tune -k cannot_be_tuned"),
    ],
    "experiments/design/possible.py": [
        ("if key(setting.point) not in chosen:", "if False:", "tune_run -k grows_by_its_choices"),
    ],
    "mixlab/report.py": [
        ("is_over = all(ended) and not num_coming", "is_over = all(ended)", "tune_run -k watch_waits"),
        ("_when_chosen(make) if arguments.watch else", "make() if arguments.watch else", "tune_run -k watch_waits"),
        ("if not error.waits:", "if False:", "tune_run -k watch_ends"),
    ],
    "slurm/next_round.py": [
        ("        sends_tuning=False,\n", "", "following -k goes_on"),
        ("        keeps_newer=True,\n", "", "following -k newer_form"),
        ('write_json(folder / NEXT, {**work, "ended": True})', "pass", "following -k followed_by_another"),
    ],
    "slurm/following.py": [
        ("(is_over and age_s < ledger.LATE_S)", "is_over", "following -k long_ago"),
    ],
    "slurm/submission.py": [
        ("if request.keeps_newer and not archive", "if request.keeps_newer or not archive", "following -k newer_form"),
    ],
    "experiments/running/rounds.py": [
        ("if not left and len(known) == len(before):", "if True:", "tune_run -k each_command"),
    ],
    "analysis/tuned.py": [
        ("if value not in ends or", "if value in ends or", "tune_run -k at_an_edge"),
        ("value == values.bounds(*fields.holder(name))[ends.index(value)]", "False", "tune_run -k no_further"),
        ("> 1 and not all(edges):", "> 1 and not any(edges):", "tune_run -k chose_at_an_edge"),
        ("sum(any(_edges(ablation, value)) for value in chosen)", "len(chosen)", "tune_run -k chose_at_an_edge"),
    ],
}  # fmt: skip
