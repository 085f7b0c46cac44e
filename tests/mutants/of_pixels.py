"""From files to bytes: transparency, 16 bits, squares."""

from tests.mutants.fault import Row

FAULTS: dict[str, list[Row]] = {
    "experiments/data/pictures.py": [
        ("(255 / (2 ** self._bits() - 1))", "(255 / 2 ** self._bits())", "pixels -k stay_what_they_are"),
        ("np.rint(scaled)", "np.floor(scaled)", "pixels -k sixteen"),
        ("(1 - cover)).astype", "cover).astype", "pixels -k show_the_background"),
        ("pixels[..., 3] / 255", "pixels[..., 3] / 254", "pixels -k show_the_background"),
        ("return self.config.bits or self.range.bits", "return self.range.bits", "pixels -k place_of_the_survey"),
        ("alpha / (2**self.range.alpha_bits - 1)", "alpha / 65535", "pixels -k range_of_alpha"),
        (
            "largest = max(largest, int(values.max()))",
            "largest = int(values.max())",
            "pixels -k of_all_splits or range_that",
        ),
        (
            "for split in self.source.splits:\n            for row,",
            "for split in self.source.splits[:1]:\n            for row,",
            "pixels -k of_all_splits",
        ),
        ("coloured = len(set(self.background)) > 1", "coloured = False", "pixels -k background"),
    ],
    "experiments/data/depth.py": [
        ("256 * _turned(image) + _turned(second)", "256 * _turned(image) + _turned(image)", "pixels -k lower_bytes"),
        ("256 * upper_lower[..., ::2] + upper_lower[..., 1::2]", "257 * upper_lower[..., ::2]", "pixels"),
        ("return max(8, int(largest).bit_length())", "return 16", "pixels -k range_that"),
        (
            "return max(8, int(largest).bit_length())",
            "return int(largest).bit_length()",
            "pixels -k stay_what_they_are",
        ),
        ("np.array(transparent)).all(-1), 0, MOST)", "np.array(transparent)).all(-1), MOST, 0)", "pixels -k declared"),
        ("np.array(transparent)).all(-1)", "np.array(transparent)).any(-1)", "pixels -k all_three_values"),
        ('GREY_MODES = ("I;16", "I;16L", "I;16B",', 'GREY_MODES = ("I;16", "I;16L",', "pixels -k orders_of_bytes"),
        ("ImageOps.exif_transpose(image, in_place=True)", "ImageOps.exif_transpose(image)", "pixels -k turned"),
    ],
    "experiments/data/opening.py": [
        ('"L;4": 17', '"L;4": 16', "pixels -k at_every_depth"),
    ],
    "experiments/data/framing.py": [
        ("ImageOps.exif_transpose(image, in_place=True)", "ImageOps.exif_transpose(image)", "data -k turned_as"),
        ("round((width - size) / 2), round((height - size) / 2)", "0, round((height - size) / 2)", "evaluate_recipe"),
        ("config.shorter_side * side // short for", "config.shorter_side for", "evaluate_recipe"),
    ],
}
