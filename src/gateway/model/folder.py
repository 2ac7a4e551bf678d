"""A product's folder, read whole into memory: what is checked is what will be served."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from gateway import product as product_yaml
from gateway.errors import ModelError, ProductError, UsageError, Violation
from gateway.model.registry import PRODUCT_YAML
from gateway.product import Challenger, Champion, Product

_FILE_BYTES_MAX = 64 * 2**20
"""Of a calibration or of golden vectors."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What stands in a folder: product.yaml, and every file that one of its models names.

    `path` is that of product.yaml; `files` are by their names in it.
    """

    path: Path
    text: str
    product: Product
    files: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        """The sha256 of product.yaml, the models and the calibrations together, in hex."""
        together = sha256(self.text.encode())
        for _, arm in arms_in(self.product):
            together.update(sha256(self.files[arm.path]).hexdigest().encode())
            if arm.calibration.path is not None:
                together.update(self.files[arm.calibration.path])
        return together.hexdigest()

    def place(self, name: str) -> Path:
        """Return where a file that product.yaml names is."""
        return self.path.parent / name


def read_product(folder: Path) -> Product:
    """Read and check a folder's product.yaml.

    Raises:
        UsageError: there is no such folder or file, or it cannot be read.
        ProductError: with every violation.
    """
    path, text = _read_yaml(folder)
    return product_yaml.parse(text, str(path))


def read_folder(folder: Path) -> Contents:
    """Read a product's folder.

    Raises:
        UsageError, ProductError: as `read_product`.
        ModelError: a file that product.yaml names is missing, too large, or cannot be read.
    """
    path, text = _read_yaml(folder)
    product = product_yaml.parse(text, str(path))
    files: dict[str, bytes] = {}
    for key, arm in arms_in(product):
        for name, what, bytes_max in _files_of(arm, product.models.limits.file_mib << 20):
            if name not in files:
                files[name] = _read(path.parent / name, bytes_max, what=f"{key}.{what}")
    return Contents(path, text, product, files)


def arms_in(product: Product) -> Iterator[tuple[str, Champion | Challenger]]:
    """Yield each model that is declared, the champion first, with its key in product.yaml."""
    yield "models.champion", product.models.champion
    for i, challenger in enumerate(product.models.challengers):
        yield f"models.challengers[{i}]", challenger


def files_named(product: Product) -> frozenset[str]:
    """Return the names of all files that the product's models need."""
    arms = (arm for _, arm in arms_in(product))
    return frozenset(name for arm in arms for name, _, _ in _files_of(arm, 0))


def _files_of(arm: Champion | Challenger, model_bytes: int) -> Iterator[tuple[str, str, int]]:
    """Yield the files of a model: name, key, and how large it may be."""
    yield arm.path, "path", model_bytes
    if arm.calibration.path is not None:
        yield arm.calibration.path, "calibration.path", _FILE_BYTES_MAX
    if arm.golden is not None:
        yield arm.golden, "golden", _FILE_BYTES_MAX


def _read_yaml(folder: Path) -> tuple[Path, str]:
    """Return where a folder's product.yaml is, and its text. Raises as `read_product`."""
    path = folder
    try:
        path = folder / PRODUCT_YAML if folder.is_dir() else folder
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(
            "there is no product.yaml here",
            subject=str(folder),
            hint="Name a product's folder, such as models/card-not-present.",
        ) from None
    except UnicodeDecodeError as error:
        violation = Violation(str(path), 1, "", f"is not UTF-8 (byte {error.start})")
        raise ProductError((violation,)) from None
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", subject=str(path)) from None
    return path, text


def _read(path: Path, bytes_max: int, *, what: str) -> bytes:
    try:
        if not path.is_file() and path.exists():
            raise ModelError("is no regular file", subject=str(path))
        if path.stat().st_size > bytes_max:
            raise ModelError(
                f"is larger than {bytes_max // 2**20} MiB",
                subject=str(path),
                hint="models.limits.file_mib is what a model's file may have.",
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelError(
            "there is no such file", subject=str(path), hint=f"{what} names it."
        ) from None
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", subject=str(path)) from None
