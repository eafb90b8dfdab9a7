"""A real etcd and kube-apiserver as child processes: the cluster of whoever has none, and of the tests.

`find` looks for the programs (and builds them when nobody has them), `start` brings a control plane up in a state directory.
"""

from __future__ import annotations

from cal_cli.controlplane.binaries import BinariesNotFound, find
from cal_cli.controlplane.plane import ControlPlane, Options, start
from cal_cli.controlplane.process import Process, ProcessFailed

__all__ = ["BinariesNotFound", "ControlPlane", "Options", "Process", "ProcessFailed", "find", "start"]
