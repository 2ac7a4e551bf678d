"""The attacks of a day: how many of each scenario, on whom, and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gateway.demo.customers import Customers
from gateway.demo.fraud import SCENARIOS, SPOOFED, Scenario, Scene
from gateway.demo.merchants import Merchants
from gateway.demo.payment import Purchase
from gateway.demo.seasons import DAY_S, day_start_s, is_black_friday
from gateway.demo.spending import Spending

_BLACK_FRIDAY_ATTACKS = 2.4
"""More than the traffic grows: the base rate rises too."""


@dataclass(frozen=True, slots=True)
class Crime:
    """Draws attacks on customers, by how their age band attracts each scenario."""

    rng: np.random.Generator
    customers: Customers
    merchants: Merchants
    spending: Spending
    device_ids: Iterator[int]
    scenarios: tuple[Scenario, ...] = SCENARIOS

    def day(self, day: int) -> list[Purchase]:
        """Return the fraudulent payments of attacks that begin on a day, in no order.

        The last of them may lie on the days after.
        """
        season = _BLACK_FRIDAY_ATTACKS if is_black_friday(day) else 1.0
        purchases: list[Purchase] = []
        for scenario in self.scenarios:
            rate = scenario.per_thousand * scenario.intensity(day) * season
            for _ in range(int(self.rng.poisson(rate * len(self.customers) / 1_000.0))):
                purchases.extend(scenario.attack(self._scene(scenario, day)))
        return purchases

    def _scene(self, scenario: Scenario, day: int) -> Scene:
        rng = self.rng
        weight = self.customers.activity * np.array(scenario.targets)[self.customers.age_band]
        victim = int(rng.choice(len(self.customers), p=weight / weight.sum()))
        # Half of them know, or guess, when the victim shops.
        hour = float(rng.normal(self.customers.peak_hour[victim], 4.0)) % 24.0
        if rng.random() < 0.5:
            hour = float(rng.uniform(0.0, 24.0))
        start_s = day_start_s(day) + min(hour * 3_600.0, DAY_S - 1.0)
        own_device = int(self.spending.device[victim, 0])
        spoofs = rng.random() < SPOOFED
        return Scene(
            rng=rng,
            customers=self.customers,
            merchants=self.merchants,
            scenario=scenario.name,
            day=day,
            start_s=start_s,
            victim=victim,
            device=own_device if spoofs else next(self.device_ids),
            own_device=own_device,
            contact_age_days=max(0.0, (start_s - self.spending.contact_since_s[victim]) / DAY_S),
        )
