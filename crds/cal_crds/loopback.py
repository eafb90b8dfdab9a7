"""What counts as this machine: said once, for the servers that serve nobody else and for clients that need no proxy to it."""

from __future__ import annotations

import ipaddress
from argparse import ArgumentTypeError
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine, whatever DNS says."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def leads_here(url: str) -> bool:
    """The same of a URL, or of `//` and a Host header. False for what is no URL."""
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


def host_argument(text: str) -> str:
    """For argparse. Nobody is asked for a key yet, so nobody from outside may get in."""
    if not is_loopback(text):
        raise ArgumentTypeError(f"{text!r} isn't a loopback address; without key checks nothing else may be served")
    return text


def port_argument(text: str) -> int:
    """For argparse: a TCP port; 0 means any that is free."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise ArgumentTypeError(f"{text!r} isn't a port (0 to 65535)")
    return int(text)
