"""Where the two products of the demo are: inside the installed package, or in the checkout."""

from __future__ import annotations

from pathlib import Path

from gateway.errors import UsageError

NAMES = ("card-not-present", "card-present")


def product_folders() -> tuple[Path, ...]:
    """Return the folders of the demo's products.

    Raises:
        UsageError: they are neither in the package nor in a checkout around it.
    """
    here = Path(__file__).resolve()
    for models in (here.parent / "products", here.parents[3] / "models"):
        folders = tuple(models / name for name in NAMES)
        if all(folder.is_dir() for folder in folders):
            return folders
    raise UsageError("the demo's products are missing", hint="Install the package again.")
