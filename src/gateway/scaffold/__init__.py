"""`gateway init`: from a stranger's ONNX file, and a table, to a product's folder.

table     CSV or Parquet -> columns (the only door to pyarrow)
columns   which column is the label, and which feed the model's inputs (pure)
features  a column -> its type, range, texts and defaults (pure)
bare      rows -> a bare `session.run`, past everything that serves
fit       AUC, and the logistic map (pure)
output    which output is the score, with the evidence (pure)
draft     the way through all of it
page      product.yaml as text (pure)
folder    what is written, and that `check` takes it
"""

from gateway.scaffold.draft import Asked, Sketch
from gateway.scaffold.folder import Written, checked, write_product

__all__ = ["Asked", "Sketch", "Written", "checked", "write_product"]
