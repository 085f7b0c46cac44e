"""What an ablation asks: values that are drawn, names of settings, widths that are solved, what is called equal."""

from tests.mutants.fault import Row

FAULTS: dict[str, list[Row]] = {
    "experiments/design/axes.py": [
        ('f"axis/{self.field}", i, 1, ()', 'f"axis/", i, 1, ()', "axes -k its_name_alone"),
        ("high / low) ** (i / (number - 1))", "high / low) ** (i / number)", "axes -k geometric"),
        ('float(f"{value:.{DIGITS}g}")', "float(value)", "axes -k by_hand"),
        ("found.setdefault(tuple(point.values()), point)", "found.setdefault((i,), point)", "axes -k no_two"),
        ("int(unit * (self.high - self.low + 1))", "int(unit * (self.high - self.low))", "axes -k evenly"),
    ],
    "experiments/design/names.py": [
        ("known.setdefault((axis, name), point) != point", "False", "asking -k cannot_be_meant"),
    ],
    "experiments/design/base.py": [
        ("base | dict.fromkeys(taken_back) | values", "base | values", "ablation -k epochs"),
        ("in (\"family\", *VARIANTS[variant])]", "in ()]", "later_fields -k takes_back"),
    ],
    "experiments/design/matched.py": [
        ("if number(middle) < wanted else", "if number(middle) <= 2 * wanted else", "matched"),
        ("if abs(number - wanted) > WITHIN * wanted:", "if False:", "matched -k cannot_be_matched"),
        ("if other != width and best and abs", "if not best and abs", "matched -k in_place_of_another"),
        ("(own | dict(instead))", "(own | {})", "matched -k as_many"),
        ("next(filter(fits, side), None)", "next(iter(side), None)", "matched -k groups_divide"),
        ('if number(least) == number(WIDEST):', "if False:", "matched -k changes_nothing"),
    ],
    "experiments/design/report_spec.py": [
        (" and not own & set(sets)]", "]", "asking -k no_row_by_itself"),
        ("if axis in places)", "if axis)", "asking -k may_be_the_rows"),
    ],
    "experiments/design/labels.py": [
        ("if written != FIELD and written not in values:", "if False:", "asking -k names_no_value"),
    ],
    "analysis/matching.py": [
        ("abs(self.low - 1), abs(self.high - 1)", "0.0, abs(self.high - 1)", "words -k one_percent"),
        ("WITHIN_COUNTS = 0.01", "WITHIN_COUNTS = 0.012", "words -k one_percent"),
    ],
}  # fmt: skip
