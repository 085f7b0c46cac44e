"""Where dropout acts, and which elements it zeroes: the same in every backend.

A site is a layer of folds.dropout_sites, and its number the place of its name there. The mask of a site is one 32-bit
hash an element:

    x = element * ELEMENT + key + site * SITE      (mod 2^32)
    x = (x ^ x >> 16) * FIRST;  x = (x ^ x >> 15) * SECOND;  x = x ^ x >> 15
    kept = (x >> 8) >= round(rate * 2^24);  a kept element is divided by 1 - rate

where `element` counts the elements of the activation in row-major order, hidden units of token mixing laid out as
(batch, D_S, columns) and those of channel mixing as (batch, tokens, D_C), and `key` is drawn for each step.

Source: the multipliers are those of the "lowbias32" family, github.com/skeeto/hash-prospector.
"""

ELEMENT, SITE = 0x9E3779B9, 0x85EBCA6B
FIRST, SECOND = 0x21F0AAAD, 0xD35A2D97
