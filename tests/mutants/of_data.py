"""Which files, rows and columns are examples of which class and split, and what is known of them later."""

from tests.mutants.fault import Row

FAULTS: dict[str, list[Row]] = {
    "experiments/data/layout.py": [
        ('return config.layout == "splits"', 'return config.layout == "classes"', "layout -k held_to"),
        ("if len(words) == 1 and len(flat) == len(first):", "if len(words) == 1:", "layout -k question"),
        ("if len(words) > 1 and not flat:", "if len(words) > 1:", "layout -k question"),
        ("files.sort()", "files.sort(reverse=True)", "layout -k order_of_their_paths"),
        ('line.split("\\t")[:2]', 'line.split("\\t")[:3]', "layout -k tiny_imagenet"),
        ("return {} if set(with_images) <= INNER else with_images", "return with_images", "layout -k tiny_imagenet"),
        ("if len(set(map(canonical, inside))) > 1:", "if False:", "layout -k below_classes"),
    ],
    "experiments/data/tables.py": [
        ("setdefault(next(iter(words[name]), split), [])", "setdefault(split, [])", "tables -k word_in_a_file"),
        ("names = own or names", "names = names or own", "tables -k beside_metadata"),
        ("(not words[name] and any(words.values()))", "False", "tables -k beside_names_with_one"),
        ("rowless = sorted(files - set(inside.values()))", "rowless: list[str] = []", "tables -k without_a_row"),
        ('return {"train": tree.folders["data"]}, []', 'return {"train": tree}, []', "tables -k called_data"),
    ],
    "experiments/data/columns.py": [
        ("NEARLY_ALL = 0.9", "NEARLY_ALL = 1.9", "tables"),
        ("if COUNTING.fullmatch(word) or", "if False or", "tables -k counts_rows"),
        ("THING_ID.fullmatch(word):", "False:", "tables -k counts_rows"),
        ("return [_whole(text) for text in texts]", "return list(texts)", "tables -k texts_of_numbers"),
        (" and text in (repr(number), str(int(number)))", "", "tables -k texts_of_numbers"),
        ("or is_truth(values) or", "or", "tables -k counts_rows"),
    ],
    "experiments/data/numbering.py": [
        ('value in (-1, "")', 'value in ("",)', "tables -k without_a_class"),
        (
            'for name in ("test", "validation") if',
            'for name in ("validation", "test") if',
            "layout -k tested_on_before",
        ),
        (
            "{name: row for row, name in enumerate(found.classes)}",
            "{name: -row for row, name in enumerate(found.classes)}",
            "layout -k sort_by_value",
        ),
        (
            "order = sorted(seen, key=lambda value: (isinstance(value, str), value))",
            "order = list(dict.fromkeys(values))",
            "tables -k whichever_comes",
        ),
        ("notes += _untrained(test, labels, config, where)", "pass", "layout -k other_classes_altogether"),
    ],
    "experiments/data/words.py": [
        ("key=lambda name: (int(name), name)", "key=lambda name: name", "layout -k sort_by_value"),
    ],
    "experiments/data/fingerprints.py": [
        ("{size},{time}]", "{size},0]", "data_cache -k same_size"),
        ('total.update(f"{name}\\0{content}\\n"', 'total.update(f"\\0{content}\\n"', "data_cache -k moves_to_another"),
    ],
    "experiments/data/known.py": [
        ('    "label_column",\n', "", "data_cache -k question_of_its_own"),
        ('    "train_split",\n', "", "data_cache -k question_of_its_own"),
        ('    "image_channels",\n', "", "data_cache -k question_of_its_own"),
        ('"layout", "background",', '"layout",', "data_cache -k question_of_its_own"),
        ('"bits", ', "", "data_cache -k question_of_its_own"),
        ('"shorter_side", "interpolation"', '"shorter_side",', "data_cache -k question_of_its_own"),
        (
            '("num_classes", "num_examples", "split_seed")',
            '("num_classes", "num_examples")',
            "data -k follows_the_split_seed",
        ),
        ("if last_at(cache, config) != about:", "if last_at(cache, config) is None:", "data_cache -k was_last"),
    ],
    # What planning may read and decode, and what a source that is known spares it.
    "experiments/data/limits.py": [
        ("decoded_bytes(about) > PLANNED_BYTES", "decoded_bytes(about) >= PLANNED_BYTES", "prepare -k decoded_once"),
        ("PLANNING and sum(sizes) > PLANNED_BYTES:", "PLANNING and not sizes:", "prepare -k by_the_listing"),
        ("if purpose is Purpose.TRAINING:", "if purpose is not Purpose.PREPARING:", "prepare -k look_at_the_memory"),
        ("num_bytes is not None and num_bytes <=", "num_bytes is None or num_bytes <=", "prepare -k of_the_hub"),
    ],
    "experiments/data/splits.py": [
        ("    noted = noted_fingerprint(config, tree, cache)\n", "    noted = None\n", "prepare -k neither_pixels_nor"),
        ("if error.about:", "if False:", "prepare -k not_opened_again"),
    ],
    # Prepared data.
    "experiments/data/damage.py": [
        ("if found != expected:", "if found < expected:", "prepared -k damaged"),
        ("if number > FORMAT:", "if False:", "prepared -k damaged"),
    ],
    "experiments/data/prepared.py": [
        ("return not (as_made or unchanged)", "return not unchanged", "prepared -k another_frame"),
        ("return not (as_made or unchanged)", "return not as_made", "prepared -k another_frame"),
        ("if value != made[name]:", "if False:", "prepared -k cannot_be_others"),
        ("is None or made == here:", "is None or True:", "preparing -k gives_other_pixels"),
    ],
    "experiments/data/preparing.py": [
        ("self.decoder.channels, raw, stamp)", "raw, stamp)", "preparing -k of_colour_came"),
        ("islice(self._items(), done, None)", "self._items()", "preparing -k goes_on_where"),
        ("self._read_back()\n        bar", "bar", "preparing -k goes_on_where"),
        ("if self.stream and not all(one.height", "if False and not all(one.height", "preparing -k ends_with_another"),
    ],
    "experiments/files.py": [
        ("-{stat.st_ino}", "", "preparing -k have_changed_their_names"),
    ],
    "experiments/data/staging.py": [
        (" (self.rows, self.done * ROW.itemsize)", " (self.rows, len(rows) * ROW.itemsize)", "preparing -k cut_off"),
        ('if held["question"] == self.question:', "if True:", "preparing -k what_comes_before_stays"),
        ("or now != held[at : at + MARK_BYTES]", "", "preparing -k what_comes_before_stays"),
        (" or bits & DEEP:", ":", "preparing -k 16_bits"),
        ("            self._note_safe()\n        else", "            pass\n        else", "preparing -k kill_leaves"),
        ("{LOCK, SCRATCH}.difference(more)", "{LOCK}", "preparing -k names"),
        ("fcntl.LOCK_EX | fcntl.LOCK_NB", "fcntl.LOCK_SH | fcntl.LOCK_NB", "preparing -k second_process"),
    ],
    "experiments/data/treating.py": [
        ("and not opening.may_be_transparent(image)", "", "preparing -k cannot_be_kept"),
        ("and not several\n", "\n", "preparing -k cannot_be_kept"),
        ('and not opening.is_deep(b"", image)\n', "\n", "preparing -k cannot_be_kept"),
        ("    parent.join()\n    os._exit(1)", "    parent.join()", "preparing -k signal"),
    ],
    "experiments/data/room.py": [
        ("if needed > free:", "if False:", "preparing -k without_room"),
    ],
    "experiments/data/pixels.py": [
        ("if len(data) != num_bytes:", "if False:", "prepared -k cut_off_after"),
    ],
    "experiments/data/checks.py": [
        ("seen = np.unique(hashes[train])", "seen = np.unique(hashes)", "leakage -k trains_on"),
        ("Repeats(test_equal, validation_equal,", "Repeats(validation_equal, test_equal,", "leakage -k are_counted"),
        ("TOO_MANY = 0.01", "TOO_MANY = 0.1", "leakage -k report_marks"),
        ("(image == first).all()", "(image == first).any()", "leakage -k same_pixel"),
        (
            "if len(np.unique(self.labels[rows])) > 1",
            "if len(np.unique(self.labels[rows])) > 2",
            "leakage -k one_colour",
        ),
    ],
    "experiments/data/real.py": [
        ("told[int(found[1]) - 1]", "told[int(found[1])]", "real -k found_by"),
        ("0 < int(found[1])", "0 <= int(found[1])", "real -k one_sentence"),
    ],
    "experiments/streams.py": [
        ("outside = numbers >= size", "outside = numbers > size", "real -k one_permutation"),
        ("left ^ (_mixed(right ^ key) & mask)", "left ^ (_mixed(right) & mask)", "real -k one_permutation"),
    ],
}
