"""An exchange on the loopback interface that speaks Binance's spot and USD-M formats."""

from ingest.simulator.books import write_books
from ingest.simulator.faults import Faults
from ingest.simulator.market import Market
from ingest.simulator.replay import Replay
from ingest.simulator.server import Simulator, serving, simulator

__all__ = ["Faults", "Market", "Replay", "Simulator", "serving", "simulator", "write_books"]
