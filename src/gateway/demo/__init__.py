"""A world to try the gateway on: payments with delayed labels, all from a seed.

    seasons     the week, the year, Black Friday
    merchants   categories with their MCCs, cities, shops
    customers   homes, habits, devices, age bands
    spending    a day of genuine payments
    fraud       the scenarios, their onset and intensity
    crime       a day of attacks
    labels      when the truth arrives, if it does
    history     features, as known just before each payment
    helping     what relatives buy for a customer: genuine, and it looks like fraud
    chapters    what a stretch of the story holds besides
    world       all of it: `World.payments`
    months      four of them that end now, with what an evaluation is to find
    reports     what is told about a payment, by what was decided
    rivals      models that decide a share of the months, and what is believed of them
    truth       what an evaluation of the months is held against
    products    where the products are, and what the months change of them

Nothing here is measured on real cards; the models under `models/` were trained on it.
"""

from gateway.demo.payment import CARD_NOT_PRESENT, CARD_PRESENT, Label, Payment
from gateway.demo.world import Batch, World, batch, build_world

__all__ = [
    "CARD_NOT_PRESENT",
    "CARD_PRESENT",
    "Batch",
    "Label",
    "Payment",
    "World",
    "batch",
    "build_world",
]
