"""Adapters: one sub-package per provider, all behind the contract in `contract.py`, found through `registry.py`."""
