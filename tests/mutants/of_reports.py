"""The numbers of tables: what is paired, averaged, tested and marked."""

from tests.mutants.fault import Row

FAULTS: dict[str, list[Row]] = {
    "analysis/table/wording.py": [
        (
            'cell["pairs"] < cell["n"]\n    return',
            'cell["pairs"] < cell["n"] - 1\n    return',
            "marks -k lacks_one_pair",
        ),
        ('or len(cell["environments"]) > 1 or', "or", "marks -k other_numbers_of_threads"),
        ('cell["p_holm"] < ALPHA', 'cell["p"] < ALPHA', "settings"),
    ],
    "analysis/table/notes.py": [
        ('cell["pairs"] < cell["n"]:', 'cell["pairs"] < cell["n"] - 1:', "marks -k lacks_one_pair"),
    ],
    "analysis/origins.py": [
        ('"processor": "processor", ', "", "marks -k another_environment"),
        ("for place in first.split(THEN)", "for place in first.split(THEN)[-1:]", "marks -k went_on_with_other"),
        ("for commit in several.split()", "for commit in several.split()[-1:]", "marks -k another_commit_is_of_both"),
    ],
    "analysis/cells.py": [
        ('"environments": origins.environments(group.done),', '"environments": (),', "marks -k another_environment"),
        ("rows[other] != rows[label]", "rows[other][0] != rows[label][0]", "marks -k another_environment"),
        (
            "if pairs.n or one is None else Paired(0, one.difference)",
            "if pairs.n or one is None else Paired(0)",
            "marks -k without_any_pair",
        ),
        ("return len(commits) > 1 and not options.mix_commits", "return False", "report_files -k several_commits"),
        (
            "float(values.mean()) if",
            "float(np.nanmean(values)) if",
            "report_files -k averaged_over_the_rest",
        ),
    ],
    "analysis/records.py": [
        ('or "unknown") for one in sessions)', 'or "unknown") for one in sessions[-1:])', "sessions -k names_both"),
        ("for one in [environment, *sessions])", "for one in [environment])", "sessions -k names_both"),
        ("for one in sessions] or [about]", "for one in sessions[-1:]] or [about]", "marks -k went_on_with_other"),
        ("cached[trial_id][0] == stamp", "cached[trial_id][0]", "report_files -k reads_only_what_changed"),
    ],
    "analysis/page/answer.py": [
        (
            "metrics.on_validation(report.ablation.report.metric)",
            "report.ablation.report.metric",
            "chosen -k chosen_on_validation",
        ),
        ("max if metric(ablation).higher_is_better else min", "max", "metrics -k answer_follows"),
    ],
    "analysis/factorial.py": [
        ("_at_base(label, {place: effect})", "_at_base(label, dict.fromkeys(grid.effects(label), effect))", "marginal"),
        ("if (framework, seed) in common", "if seed in one", "marginal -k do_not_count"),
        (
            "_at_base(label, both), _at_base(label, only_b)",
            "_at_base(label, only_b), _at_base(label, both)",
            "marginal",
        ),
        ("2 * getattr(half, name)", "getattr(half, name)", "marginal -k difference_of_differences"),
        ("if _count(combinations, (a, b)) <", "if 0 * _count(combinations, (a, b)) >", "marginal -k drawn"),
    ],
    "analysis/power.py": [
        ("return cls(math.sqrt(seeds + fixed), n - 1, seeds", "return cls(math.sqrt(seeds + fixed), n, seeds", "power"),
        ("-(seeds * special.stdtrit(df, tail)", "-(seeds * special.ndtri(tail)", "power -k promised_power"),
    ],
    "analysis/predictions.py": [
        ("    @cache\n    def", "    def", "seeds_and_examples -k read_once"),
    ],
    "analysis/settings.py": [
        ("or np.abs(each.mean(1) - recorded).max() > RECORDED", "", "seeds_and_examples -k without_predictions"),
        ("or len(examples) != 1", "", "seeds_and_examples -k without_predictions"),
        ("one if math.isnan(one.p) else one.at(level)", "one", "seeds_and_examples -k exactly_what"),
        ("if name != FRAMEWORK]", "if name]", "settings -k neither_p_nor"),
        (" if seed in second)", ")", "settings -k on_any_framework"),
        ("if cell.num_pairs] or cells", "] or cells", "settings -k that_have_pairs"),
        (
            "pooled.items(), holm(p), holm_levels(p)",
            "pooled.items(), p, holm_levels(p)",
            "settings -k holm_counts",
        ),
        ("if all(label[place] == baseline[place] for place in rest):", "if False:", "settings -k alone_sets_apart"),
    ],
    "analysis/examples.py": [
        ("or first.examples != second.examples", "", "agreement -k cannot_be_tested"),
        ("first.correct & ~second.correct", "second.correct & ~first.correct", "agreement -k one_of_both"),
        ("exact=True", "exact=False", "agreement -k fair_coin"),
    ],
    "analysis/parting.py": [
        ("(STEP_LOSS, before)", "(STEP_LOSS, 0)", "diff -k over_other_steps"),
        ("if any(a != b for", "if all(a != b for", "diff -k parts_two_curves"),
    ],
    "analysis/terminal/class_lines.py": [
        ("true.astype(np.int64) * num + said", "said.astype(np.int64) * num + true", "class_lines -k one_matrix"),
        ("counts[place] / examples[own]", "counts[place] / examples[other]", "class_lines -k most_frequent"),
    ],
    "analysis/terminal/compare.py": [
        ('if field[0] not in ("seed", FRAMEWORK)', 'if field[0] not in ("seed",)', "compare -k copy_of_a_framework"),
        ("return self.second - self.first", "return self.first - self.second", "compare -k in_common"),
        (
            "for cell in _cells(pairs)], both.read)",
            "for cell in _cells(pairs)], lambda key: None)",
            "agreement -k as_one_of",
        ),
        (
            "in by_setting.items() if any(pair.first != pair.second for pair in pairs)",
            "in by_setting.items()",
            "compare -k one_by_one",
        ),
        ("if not math.isnan(pair.difference))", ")", "compare -k without_a_number"),
    ],
    "analysis/inference.py": [
        ("float(x.std(ddof=1))", "float(x.std())", "inference -k three_seeds"),
        ("float(d.std(ddof=1))", "float(d.std())", "inference -k paired_by_their_key"),
        ("LEVEL = 0.95", "LEVEL = 0.90", "inference -k three_seeds"),
        ("BOOTSTRAP_LEAST = 10", "BOOTSTRAP_LEAST = 9", "inference -k is_given"),
        ("np.arange(len(order), 0, -1)", "len(order)", "inference -k never_falls"),
        ("squares.seeds / (squares.seeds + by_example)", "1.0", "inference -k two_way_table"),
        ("left -= value < ALPHA / left", "left -= 1", "inference -k level_of_its_step"),
        ("t_factor(len(points) - 2)", "t_factor(len(points) - 1)", "inference -k least_squares"),
        ("(cost[i], -value[i])", "(cost[i], value[i])", "inference -k frontier"),
        ("np.ptp(d) <= ROUNDING", "np.ptp(d) <= 0", "inference -k without_spread"),
        ("for key in first if key in second]", "for key in first]", "inference -k paired_by_their_key"),
    ],
}
