"""A trial on several devices: who evaluates what, who is at which step, who waits for whom."""

from tests.mutants.fault import Row

FAULTS: dict[str, list[Row]] = {
    "experiments/running/shares.py": [
        ("[group.rank :: group.size]", "[:: group.size]", "shares -k counts_each_example"),
        ("if answer is None or not np.array_equal(", "if not np.array_equal(", "shares -k other_examples"),
        (
            "if answer is None or not np.array_equal(answer.examples, examples):",
            "if answer is None:",
            "shares -k other_examples",
        ),
        ("range(0, len(indices), PREDICT_BATCH)]", "range(0, len(indices) - 255, 256)]", "shares -k counts_each"),
        (
            "if isinstance(answer, Failure):",
            "if False:",
            "shares -k failure_in_an_evaluation",
        ),
    ],
    "experiments/training/evaluate.py": [
        ("min(PREDICT_BATCH, len(indices) - first)", "PREDICT_BATCH", "shares -k counts_each_example"),
        ("predict(indices), strict=True)", "predict(indices))", "shares -k more_or_fewer"),
    ],
    "experiments/running/follower.py": [
        ("self._check_step(message.first)\n", "\n", "group_faults -k does_other_work"),
        ("self._check_step(message.first + message.num)\n", "\n", "group_faults -k where_all_exchange"),
        ("self._check_step(message.step)\n", "\n", "group_faults -k does_other_work"),
        ("signal.signal(number, signal.SIG_IGN)", "pass", "group_faults -k signal_to_one"),
        ("connection.send(failure(error))\n        traceback", "pass\n        traceback", "group_faults -k exception"),
    ],
    "experiments/running/group.py": [
        ("if self.step != until:", "if False:", "group_faults -k leader_that_stops_early"),
        ("self.watch.begin()\n", "pass\n", "group_faults -k first_steps"),
        ("self._halt()\n\n", "pass\n\n", "group_faults -k broken_off"),
    ],
    "experiments/running/watch.py": [
        ("if since and self.longest_s and", "if False and", "group_faults -k do_not_end"),
        ("if since and self.longest_s and", "if since and", "group_faults -k first_steps"),
        ("if silences[member.rank].is_too_long():", "if False:", "group_faults -k process_that_hangs"),
    ],
    "experiments/training/loop.py": [
        ("beside=self.group.size > 1 and not stops", "beside=False", "saving -k group_trains_on"),
    ],
    "experiments/training/trial_run.py": [
        ("saving.result()", "saving.exception()", "saving -k could_not"),
        ("        self.finish_saving()\n        for step", "        for step", "saving -k next_checkpoint"),
    ],
    "experiments/running/meeting.py": [
        ("while not silence.is_too_long():", "while True:", "group_faults -k those_that_follow"),
        ("if now - self._looked > GAP_S:", "if False:", "group_faults -k awake"),
        ("return now - self._heard > SILENT_S", "return now - self._heard > 2 * SILENT_S", "group_faults -k awake"),
    ],
    "experiments/running/local.py": [
        ("slot.silence = Silence() if", "slot.silence = None if", "group_faults -k leader_that_hangs_is"),
        ("                slot.silence.hear()\n", "                pass\n", "group_faults -k works_for_long"),
    ],
    "experiments/running/process.py": [
        ("        send(Beat())\n", "        pass\n", "group_faults -k works_for_long"),
    ],
}
