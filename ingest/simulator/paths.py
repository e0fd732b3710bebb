"""The hidden state of the synthetic market, minute by minute.

One market-wide factor (volatility regime, slow volatility, common shocks) and one state per
symbol. Days are generated in order, each from a generator keyed by (seed, day, symbol), so the
same day is the same however it is reached.
"""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np

from ingest.simulator.instruments import Instrument
from ingest.simulator.source import Array

MINUTES = 1440
PRESSURE_HALF_LIFE = 15.0
# Return per minute, in units of the minute's volatility, that a unit of pressure causes at edge 1.
DRIFT = 0.25
ORDERS_PER_MINUTE = 7.5
SECOND_FILL = 0.35
COMMON_SHARE = 0.6
_REGIMES = np.log([0.7, 1.0, 1.7])
_REGIME_STAY = 0.9


@dataclass(frozen=True)
class CommonDay:
    """The market-wide factor of a day: log volatility and shocks, one per minute."""

    regime: int
    slow: Array
    log_volatility: Array
    shocks: Array


@dataclass(frozen=True)
class SymbolDay:
    """A symbol's day: per minute, except ``log_mid`` (both ends), interest and funding."""

    log_mid: Array
    volatility: Array
    own_volatility: Array
    pressure: Array
    book_noise: Array
    premium: Array
    orders: Array
    trades: Array
    open_interest: Array
    funding_rates: Array
    first_order: int
    first_trade: int


def decay(half_life: float) -> float:
    """Return the factor per step of a half-life in steps."""
    return float(0.5 ** (1.0 / half_life))


def autoregression(previous: float, shocks: Array, factor: float) -> Array:
    """Return ``x[t] = factor * x[t-1] + shocks[t]`` for one day.

    The closed form stays exact to double precision while ``factor ** -len(shocks)`` is finite,
    which holds for half-lives of two minutes and more.
    """
    powers: Array = factor ** np.arange(1, len(shocks) + 1)
    path: Array = powers * (previous + np.cumsum(shocks / powers))
    return path


def stationary(generator: np.random.Generator, previous: float, half_life: float) -> Array:
    """Return a day of an autoregression of unit variance."""
    factor = decay(half_life)
    shocks = generator.standard_normal(MINUTES) * np.sqrt(1.0 - factor**2)
    return autoregression(previous, shocks, factor)


def _heavy_tailed(generator: np.random.Generator) -> Array:
    shocks: Array = generator.standard_t(5.0, MINUTES) * np.sqrt(3.0 / 5.0)
    return shocks


def common_day(seed: int, day: int, previous: CommonDay | None) -> CommonDay:
    """Generate the market-wide factor of a day since the epoch."""
    generator = np.random.default_rng([seed, day])
    regime = 1 if previous is None else previous.regime
    regimes = np.empty(24, dtype=int)
    for hour, chance in enumerate(generator.random(24)):
        if chance > _REGIME_STAY:
            regime = int(generator.integers(len(_REGIMES)))
        regimes[hour] = regime
    slow = stationary(generator, 0.0 if previous is None else float(previous.slow[-1]), 300.0)
    hours = np.arange(MINUTES) / 60.0
    season = 0.25 * np.cos((hours - 15.0) * 2.0 * np.pi / 24.0)
    return CommonDay(
        regime=regime,
        slow=slow,
        log_volatility=0.3 * slow + season + np.repeat(_REGIMES[regimes], 60),
        shocks=_heavy_tailed(generator),
    )


def symbol_day(
    seed: int,
    day: int,
    common: CommonDay,
    previous: SymbolDay | None,
    instrument: Instrument,
    *,
    edge: float,
) -> SymbolDay:
    """Generate a symbol's day.

    Pressure shows in the book and in the takers' side whatever the edge; it moves the price only
    by ``edge * DRIFT`` times the minute's volatility. The price moves at orders alone: a minute
    without orders has no return, so no last price is ever stale.
    """
    generator = np.random.default_rng([seed, day, crc32(instrument.symbol.encode())])

    def last(name: str) -> float:
        return 0.0 if previous is None else float(getattr(previous, name)[-1])

    own = stationary(generator, last("own_volatility"), 120.0)
    volatility = instrument.volatility * np.exp(common.log_volatility + 0.2 * own)
    pressure = stationary(generator, last("pressure"), PRESSURE_HALF_LIFE)
    shocks = np.sqrt(COMMON_SHARE) * common.shocks + np.sqrt(1.0 - COMMON_SHARE) * _heavy_tailed(
        generator
    )
    activity = (volatility / instrument.volatility) ** 0.7 * generator.gamma(3.0, 1 / 3.0, MINUTES)
    orders = generator.poisson(ORDERS_PER_MINUTE * activity)
    trades = orders + generator.binomial(orders, SECOND_FILL)
    returns = np.where(orders > 0, volatility * (shocks + edge * DRIFT * pressure), 0.0)
    first = np.log(instrument.first_price) if previous is None else last("log_mid")
    premium = stationary(generator, last("premium"), 90.0)
    interest_before = (
        np.log(instrument.open_interest) if previous is None else np.log(last("open_interest"))
    )
    interest = interest_before + np.cumsum(generator.standard_normal(288) * 1.5e-3)
    funding = 1.0e-4 + 0.6e-4 * premium[[0, 480, 960]]
    return SymbolDay(
        log_mid=first + np.concatenate([[0.0], np.cumsum(returns)]),
        volatility=volatility,
        own_volatility=own,
        pressure=pressure,
        book_noise=generator.standard_normal(MINUTES),
        premium=premium,
        orders=orders,
        trades=trades,
        open_interest=np.exp(interest),
        funding_rates=np.round(np.clip(funding, -7.5e-3, 7.5e-3), 8),
        first_order=1 if previous is None else previous.first_order + int(previous.orders.sum()),
        first_trade=1 if previous is None else previous.first_trade + int(previous.trades.sum()),
    )
