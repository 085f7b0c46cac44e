"""From text to values: numbers of two readings, variables, what one command keeps for the next."""

from tests.mutants.fault import Row

FAULTS: dict[str, list[Row]] = {
    "experiments/spec/scalars.py": [
        ("if looks != by_yaml and not _is_decimal(text):", "if False:", "yaml -k both_readings"),
        ('WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")', 'WHOLE = re.compile(r"[-+]?[0-9]+")', "yaml -k leading_zero"),
        ("return value + 0.0  # -0.0 is 0.0", "return value", "yaml -k minus_zero"),
        ("if math.isinf(value) or (value == 0 and", "if math.isinf(value) or (False and", "yaml -k does_not_fit"),
        ('"no": False', '"no": True', "yaml -k one_reading"),
        ("if match := RANGE.fullmatch(text):", "if match := None:", "overrides -k otherwise"),
    ],
    "experiments/spec/yaml_files.py": [
        ("        if node.flow_style:\n            self._check_calls(node)\n", "", "yaml -k way_out"),
    ],
    "experiments/spec/fields.py": [
        ("ALIASES.get(short(name), short(name))", "short(name)", "spec -k misspelt_key"),
    ],
    "experiments/spec/values.py": [
        ("return value + 0.0 if kind is float", "return value if kind is float", "yaml -k minus_zero"),
        ("value < self.low) or", "value <= self.low) or", "spec -k limits_are_allowed"),
        ("value > self.high)", "value >= self.high)", "spec -k limits_are_allowed"),
        ("if isinstance(value, float) and not math.isfinite(value):", "if False:", "spec -k nan_or_infinite"),
        ("if self.words and value not in self.words:", "if False:", "spec -k words_are_those_allowed"),
    ],
    "experiments/spec/expand.py": [
        ("if not (value := os.environ.get(name)):", "if (value := os.environ.get(name)) is None:", "expand -k refused"),
        ('        return "$"', '        return "$$"', "expand -k a_text_is_expanded"),
        ('match["braced"] or match["bare"]', 'match["bare"] or "HOME"', "expand -k a_text_is_expanded"),
    ],
    "experiments/design/archive.py": [
        ("return not set(before) <= set(labels)", "return not set(labels) <= set(before)", "archive -k losing"),
        (
            "{folder / FILE: _content(ablation, trials), **copies}",
            "{**copies, folder / FILE: _content(ablation, trials)}",
            "archive -k between_two_writes",
        ),
    ],
}
