"""The benchmark's model and product: 100 trees x 31 leaves over 30 features.

`gateway bench` makes the same ones, so they are made in the package.
"""

from gateway.bench.product import FEATURES, LEAVES, TREES, tree_ensemble, write_product

__all__ = ["FEATURES", "LEAVES", "TREES", "tree_ensemble", "write_product"]
