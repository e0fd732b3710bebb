"""The tape: exchange clients, archives, the live recorder, the exchange simulator and landing."""
