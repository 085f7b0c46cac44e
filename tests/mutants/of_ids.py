"""What an id stands for: names of streams, ranks, initial values, what a point of a curve says."""

from tests.mutants.fault import Row

GOLDEN = "golden -k examples_weights_and_plan"
FAULTS: dict[str, list[Row]] = {
    "experiments/training/start.py": [
        ('f"weights/{name}"', 'f"weight/{name}"', GOLDEN),
    ],
    "experiments/training/evaluate.py": [
        ("labels[:, None], 1, -1)", "labels[:, None], 1, 0)", "curve -k mean_over"),
        ("one.logits[:size]", "one.logits[: size - 1]", "curve"),
        ("np.mean(said[shots, seed] == labels)", "np.mean(said[shots, 0] == labels)", "probe -k each_evaluation"),
    ],
    "experiments/training/probe.py": [
        ("order[:shots] for order in orders", "order[-shots:] for order in orders", "probe -k authors"),
        ("wide.std(0, keepdims=True) + EPSILON", "wide.std(0, keepdims=True)", "probe -k authors"),
        ("[labels] - 1.0", "[labels]", "probe -k authors"),
        ("train = np.sort(splits.train)", "train = splits.train", "probe -k each_evaluation"),
        ("< max(shots)", "< min(shots)", "probe -k too_few"),
    ],
    "experiments/results/curves.py": [
        ("return better(curve, key=", "return better(reversed(curve), key=", "keep -k equal_validation"),
    ],
    "experiments/training/trial_run.py": [
        (
            "learning_rates(self.trial.train, progress.step - 1, 1)",
            "learning_rates(self.trial.train, progress.step, 1)",
            "resume -k rate_of_a",
        ),
        ("progress.loss_sum / since", "progress.loss_sum / progress.step", "curve -k since_the_point"),
    ],
    "experiments/training/loop.py": [
        (
            "self.splits.train[: self.trial.train.evaluate_train_examples]",
            "self.splits.train",
            "curve -k since_the_point",
        ),
    ],
    "experiments/streams.py": [
        ('f"{seed}/{purpose}"', 'f"{seed}:{purpose}"', GOLDEN),
        ("counter=first * counts", "counter=first", GOLDEN),
    ],
    "experiments/training/augment/mixing.py": [
        ('"mixup_partners", first', '"partners", first', GOLDEN),
        ('seed, "mixup_weights", first', 'seed, "weights", first', GOLDEN),
    ],
    "experiments/training/plan.py": [
        ('"order", epoch, 1', '"orders", epoch, 1', GOLDEN),
        ('"crops", first', '"crop", first', GOLDEN),
        ('"flips", first', '"flip", first', GOLDEN),
        ('"dropout", first', '"drop", first', GOLDEN),
        ('"stochastic_depth", first', '"depth", first', GOLDEN),
        ("(t + 1) / max(1, train.warmup_steps)", "t / max(1, train.warmup_steps)", GOLDEN),
    ],
    "experiments/data/permutation.py": [
        ('"data/patches", 0', '"patches", 0', "golden -k same_losses"),
    ],
    "experiments/data/drawing.py": [
        ('"data/train")[:num_train]', '"data/training")[:num_train]', GOLDEN),
        ('split_seed, "data/test")', 'split_seed, "test")', GOLDEN),
        ('split_seed, "data/validation")', 'split_seed, "validation")', GOLDEN),
        ("np.repeat(first, sizes) + 0.5)", "np.repeat(first, sizes) + 1.0)", GOLDEN),
        ("np.repeat(first, sizes) + 0.5)", "np.repeat(first, sizes) + 0.0)", GOLDEN),
        ("_sorted_by(ranks, words(seed, purpose, 1, 1, num)[0])", "np.argsort(ranks, kind='stable')", GOLDEN),
        ("if same.any():", "if False:", "splits -k order_of_their_definition"),
    ],
    "experiments/data/builtin.py": [('"synthetic/blobs", row', '"synthetic/blob", row', GOLDEN)],
    "backends/models/family.py": [("math.sqrt(1 / fan_in)", "math.sqrt(1.01 / fan_in)", GOLDEN)],
    # A field that came later keeps the ids of before.
    "experiments/spec/trial.py": [
        ("if name not in before or value != before[name]}", "}", "later_fields -k counts_for_an_id"),
        (
            "if name not in before or value != before[name]}",
            "if name not in before}",
            "later_fields -k counts_for_an_id",
        ),
        ('f.name: f.metadata["before"] for', "f.name: f.default for", "later_fields -k default_that_changes"),
    ],
    "backends/models/config.py": [
        ("{**stands_for, **own}", "{**own, **stands_for}", "later_fields -k itself_wins"),
        ("value is not None or (", "True or (", "later_fields -k takes_back"),
    ],
    # Two words for one training are one trial.
    "experiments/spec/resolve.py": [
        ('    ("momentum", 0.0, ("nesterov",)),\n', "", "equivalent_trials -k train_the_same"),
        ("train.warmup_steps <= 1 and", "train.warmup_steps <= 2 and", "equivalent_trials -k rates_are_the_same"),
        ('(falling == 2 and train.schedule == "linear")', "False", "equivalent_trials -k rates_are_the_same"),
        ("round(epochs * (", "int(epochs * (", "spec -k part_of_an_epoch"),
        ("-(-steps // DEFAULT_EVALUATIONS)", "max(1, steps // DEFAULT_EVALUATIONS)", "spec -k ten_times"),
    ],
    "backends/specs.py": [
        ("(num_blocks == 1 and not self.rescale)", "num_blocks == 1", "equivalent_trials -k look_alike"),
    ],
    "backends/models/mixer_rules.py": [
        ("layer.weights, layer.params)", "layer.params)", "equivalent_trials -k look_alike"),
        ('if "depthwise" not in operators:', "if True:", "equivalent_trials -k look_alike"),
        ("== _shapes(replace(spec, tokens", "!= _shapes(replace(spec, tokens", "equivalent_trials"),
        ("max(1, hidden_dim // 2)", "max(1, hidden_dim // 4)", "spec -k left_out"),
    ],
    "backends/models/mixer.py": [
        ("channels_mlp_dim or 4 * hidden", "channels_mlp_dim or 2 * hidden", "spec -k left_out"),
    ],
    "backends/models/folds.py": [
        ("if layer.drops)", ")", "backends_agree -k always_had"),
        ("max(1, len(blocks) - 1)", "len(blocks)", GOLDEN),
    ],
}
