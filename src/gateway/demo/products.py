"""Where the two products of the demo are: inside the installed package, or in the checkout."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from gateway.demo.payment import CARD_NOT_PRESENT
from gateway.errors import UsageError
from gateway.product.edit import content_of, with_generation, with_key

NAMES = ("card-not-present", "card-present")

EXPLORATION = {
    "share": 0.8,
    "max_amount": 10_000,
    "loss_per_day": 200_000,
    "declines_per_day": 20,
}
"""What may be learned of declines where there are a handful a day, and no money is real: nearly
all, of any amount, so that what is said of them needs no guess."""

MATURITY = "30d"
"""A chargeback's, in months of which there are four."""

HOLIDAY_SHIFT = -0.2
"""More is bought on holiday, and not more is stolen."""


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


def for_months(text: str, *, holiday: tuple[date, date], generation: int) -> str:
    """Return a product.yaml as the simulated months are decided and evaluated by.

    It explores more, since they hold few declines, and waits for labels as long as the months
    allow. The holiday is announced to card-not-present alone: to the other product it is a drift
    that nothing explains. No other event lies in the months.

    Raises:
        UsageError: the text cannot be read or changed.
    """
    first, last = (day.isoformat() for day in holiday)
    event = {"event": "holiday", "from": first, "to": last, "log_odds_shift": HOLIDAY_SHIFT}
    announced = content_of(text).get("product") == CARD_NOT_PRESENT
    text = with_key(text, ("exploration",), EXPLORATION)
    text = with_key(text, ("labels", "maturity", "chargeback"), MATURITY)
    text = with_key(text, ("calendar",), [event] if announced else [])
    return with_generation(text, generation)
