"""The few-shot probes that there are metrics of. Without imports, as the help of commands names metrics."""

SHOTS = (1, 5, 10, 25)  # examples of each class.  Source: google-research/big_vision, evaluators/fewshot_lsr.py
