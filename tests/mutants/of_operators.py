"""What token mixing and the axes of the block compute, what they cost, and where the ladder finds their faults."""

from tests.mutants.fault import Row

FAULTS: dict[str, list[Row]] = {
    "backends/models/mixing.py": [
        ("GATE_EPSILON, GATE_STD = 1e-5", "GATE_EPSILON, GATE_STD = 1e-6", "golden_blocks -k gmlp"),
        ("macs=2 * tokens * tokens * channels", "macs=tokens * tokens * channels", "variants -k prints"),
    ],
    "backends/models/tables.py": [
        ("np.linspace(0, 1, channels // 4)", "np.linspace(0, 1, channels // 4 + 1)[:-1]", "golden_blocks -k sincos2d"),
        ("np.mgrid[:side, :side])", "np.mgrid[:side, :side][::-1])", "options_of_the_block -k sincos2d"),
    ],
    "backends/models/folds.py": [
        ("items() if param.trained}", "items()}", "operator_counts -k constant"),
    ],
    "backends/models/mixer.py": [
        ("and set(spec.operators) <= set(WITH_D_S)", "", "options_of_the_block -k published_size"),
        ('if "token_mixing" in own:', "if False:", "variants -k formula"),
    ],
    "backends/models/family.py": [
        ("exponentials.sum(-1, keepdims=True)", "exponentials.sum(0, keepdims=True)", "initial_values -k softmax"),
        ("math.sqrt(6 / (fan_in + fan_out))", "math.sqrt(3 / (fan_in + fan_out))", "initial_values -k xavier"),
    ],
    "backends/torch/grid.py": [
        ("before, num = stride // 2", "before, num = (size - stride) // 2", "options_of_the_block -k overlapping"),
    ],
    "experiments/parity/own.py": [
        ("if size(state[name] - before) > rounding", "if True", "operator_faults -k constant"),
    ],
    "experiments/parity/ladder.py": [
        ("reversed(folds.trained_shapes(model))", "reversed(folds.shapes(model))", "operator_faults -k random"),
    ],
}  # fmt: skip
