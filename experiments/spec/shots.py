"""Numbers of shots of the few-shot probe. A module of its own: what names metrics needs no NumPy for them."""

SHOTS = (1, 5, 10, 25)  # examples of each class.  Source: google-research/big_vision, evaluators/fewshot_lsr.py
