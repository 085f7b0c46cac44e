"""Public formats of weights by name, in the order in which a model is written in the first of its code that has it.

A further format is a table in the module of its family. Sizes are read from shapes. What shapes cannot tell
(activation, epsilon of the norms, final norm, dropout) comes with the format, or is asked for.
"""

from backends.weights import bits, convmixers, metaformers, mixers, mlps, vits

MODULES = (mixers, vits, mlps, metaformers, convmixers, bits)
FORMATS = {form.name: form for module in MODULES for form in module.FORMATS}
