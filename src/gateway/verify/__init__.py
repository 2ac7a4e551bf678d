"""What a model must hold before it decides.

    labelled   a table of labelled payments, as a product's model is fed it

What is exported is loaded when it is asked for: `gates` are printed by commands that need no
NumPy.
"""

from gateway.verify.labelled import Labelled, LeftOut, read_labelled

__all__ = ["Labelled", "LeftOut", "read_labelled"]
