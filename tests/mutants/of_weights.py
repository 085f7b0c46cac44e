"""Weights of other people, and the ladder that holds two frameworks to each other."""

from tests.mutants.fault import Row

FAULTS: dict[str, list[Row]] = {
    "backends/weights/recognition.py": [
        ("if more or further:", "if more:", "checkpoints_of_others -k until_the_model_is_named"),
        ("if more or further:", "if further:", "checkpoints_of_others -k another_architecture"),
        (
            "plain = fit if average else [one for one in fit if not one.is_average] or fit",
            "plain = fit",
            "checkpoints_of_others -k average_beside",
        ),
        (" and a.tobytes() == b.tobytes()", "", "checkpoints_of_others -k two_models"),
        ("MOMENTS.intersection(one.words) or", "", "checkpoints_of_others -k numbers_of_the_optimizer"),
    ],
    "backends/weights/convert.py": [
        ("form.options.get(f.name, f.default)", "form.options.get(f.name, MISSING)", "weights -k own_form"),
        ("set(value) == {own})", "own in value)", "weights_families -k nearly_right"),
    ],
    "experiments/evaluation.py": [
        ("    if trained != given:", "    if False:", "predict -k permutation"),
    ],
    "backends/weights/timm.py": [
        ("math.nextafter(ratio, math.inf)", "ratio", "export_models -k widths_and_crops"),
        ("if model.norm_epsilon != options", "if False and options", "export_models -k same_model_to_mixlab"),
        ("if any(getattr(model, name) != value for", "if not any(value for", "export_models -k no_name_of_timm"),
    ],
    "backends/torch/onnx.py": [
        ("pixels = pixels.index_select(1, self.pixel_order)", "pass", "export_models -k onnxruntime_gives"),
    ],
    "analysis/export/onnx.py": [
        ("if not apart <= tolerance:", "if False:", "export_models -k never_left"),
    ],
    "experiments/weights/pickles.py": [
        (
            "self.memo[len(self.memo)] = self.stack[-1]",
            "self.memo[len(self.memo) + 1] = self.stack[-1]",
            "pickles -k plain",
        ),
        ("zip(flat[::2], flat[1::2], strict=True)", "zip(flat[1::2], flat[::2], strict=True)", "pickles -k plain"),
        ("if HARMFUL_MODULES.intersection(parts[:-1]) or", "if", "pickles -k attacks"),
        ('"exec", ', "", "pickles -k attacks"),
    ],
    "experiments/parity/trials.py": [
        ("min(sites, default=2**16) + 1", "min(sites, default=2**16)", "parity -k wide_batch"),
        ('"ema_decay": config.train.ema_decay or 0.9', '"ema_decay": config.train.ema_decay', "parity -k whole_config"),
        ("min(config.train.clip_norm or 1.0, CLIP_NORM)", "config.train.clip_norm or 1.0", "parity -k whole_config"),
        (
            "usual = [check for check in CHECKS if check not in ON_ASKING and",
            "usual = [check for check in CHECKS[:1] if",
            "parity -k checks_that_cost",
        ),
    ],
    "experiments/parity/rungs.py": [
        ("max(size(a), size(b)) if scale is None else scale", "1.0", "parity -k largest_element"),
    ],
    "experiments/parity/tolerances.py": [],
}
