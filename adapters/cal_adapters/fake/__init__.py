"""The adapter `demo`: a made-up GPU market with prices, delays and faults, and the fake that tests script.

The market is a file outside the operator (`ledger.py`), so what was bought survives any crash, as at a real provider.
"""

from __future__ import annotations

from cal_adapters.fake.adapter import DemoAdapter, create, ledger_path
from cal_adapters.fake.ledger import Ledger

__all__ = ["DemoAdapter", "Ledger", "create", "ledger_path"]
