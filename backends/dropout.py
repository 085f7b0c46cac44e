"""Where dropout acts, and which elements it zeroes: the same in every backend."""


def dropout_site(block: int, mixing: int, layer: int) -> int:
    """Number of a place where dropout acts.

    The mask of a site is one 32-bit hash a element, the same in every backend:

        x = element * 0x9E3779B9 + key + site * 0x85EBCA6B      (mod 2^32)
        x = (x ^ x >> 16) * 0x21F0AAAD;  x = (x ^ x >> 15) * 0xD35A2D97;  x = x ^ x >> 15
        kept = (x >> 8) >= round(rate * 2^24);  a kept element is divided by 1 - rate

    where `element` counts the elements of the activation in row-major order, hidden units of token mixing laid out as
    (batch, D_S, columns) and those of channel mixing as (batch, tokens, D_C), and `key` is drawn for each step.

    Args:   mixing: 0 token, 1 channel.    layer: 0 after the activation, 1 after the second Dense.
    Source: the multipliers are those of the "lowbias32" family, github.com/skeeto/hash-prospector.
    """
    return 4 * block + 2 * mixing + layer
