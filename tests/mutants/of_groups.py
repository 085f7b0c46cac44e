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
        ("self._check_step(message.first + message.num)\n", "\n", "group_leader -k where_all_exchange"),
        ("self._check_step(message.step)\n", "\n", "group_faults -k does_other_work"),
        ("signal.signal(number, signal.SIG_IGN)", "pass", "group_faults -k signal_to_one"),
        ("connection.send(failure(error))\n        traceback", "pass\n        traceback", "group_faults -k exception"),
        ("self.connection.send(Waits())", "pass", "group_waits -k evaluation_waits"),
        ("self.feeds.check(message.num)", "pass", "group_waits -k cannot_read"),
    ],
    "experiments/running/group.py": [
        ("if self.step != until:", "if False:", "group_faults -k leader_that_stops_early"),
        ("self.watch.begin()\n", "pass\n", "group_waits -k first_steps"),
        ("self._halt()\n\n", "pass\n\n", "group_waits -k broken_off"),
        ("return answer\n            idle()", "return answer", "group_waits -k stop_is_answered"),
        ("{signal.SIGTERM})", "set())", "group_faults -k signal_while"),
    ],
    "experiments/running/watch.py": [
        ("if limit.is_over():", "if False:", "group_waits -k do_not_end"),
        ("bool(self.longest_s) and since", "since", "group_waits -k first_steps"),
        ("- (compile_s() - compiled)", "", "group_waits -k lasts_too_long"),
        ("            self.since = None\n", "            pass\n", "group_waits -k lasts_too_long"),
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
        ("while not silence.is_too_long():", "while True:", "group_leader -k those_that_follow"),
        ("if now - self._looked < GAP_S:", "if True:", "group_leader -k awake"),
        ("self._heard > SILENT_S", "self._heard > 2 * SILENT_S", "group_leader -k awake"),
        ("            connection.send(None)\n", "            pass\n", "nodes -k comes_first"),
        ("socket.create_connection((LOCAL, listener", "print((LOCAL, listener", "nodes -k nobody_listens"),
    ],
    "experiments/running/local.py": [
        ("slot.process.kill()\n                continue", "pass\n                continue", "group_leader -k hangs_is"),
        ("                slot.silence.hear()\n", "                pass\n", "group_leader -k works_for_long"),
        ("elif failure.cause in NOT_ITS_OWN:", "elif False:", "group_leader -k by_the_cause_of_it"),
        ("        if slot.lost:\n", "        if False:\n", "group_leader -k by_the_cause_of_it"),
    ],
    "experiments/running/hiring.py": [
        (
            "slot.silence = slot.lost = None",
            "import experiments.running.meeting as m; slot.silence, slot.lost = m.Silence(), None",
            "group_leader -k long_to_begin",
        ),
    ],
    "experiments/running/outcome.py": [
        ("isinstance(error, GroupLost) and is_stopping", "False", "group_faults -k after_a_stop"),
    ],
    "backends/torch/ranks.py": [
        ("del os.environ[name]", "pass", "nodes -k reaches_the_leader"),
    ],
    "experiments/running/worker.py": [
        ("trial = self.opener.stored_as_here(trial)", "pass", "group_waits -k finds_room"),
        (", self.leader.predictor, self.leader.fed)", ", self.leader.predictor)", "group_waits -k disk_that"),
    ],
    "backends/jax/ranks.py": [
        ('"jax_enable_preemption_service", False', '"jax_enable_preemption_service", True', "nodes -k signals_of"),
    ],
    "experiments/running/process.py": [
        ("        send(Beat())\n", "        pass\n", "group_leader -k hangs_is"),
    ],
}
