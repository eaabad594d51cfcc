"""Drivers in C, Go or Rust: a shared library that keeps contract/driver.h, as a Driver of the gateway."""

from framegate.carrier.native.driver import NativeDriver
from framegate.carrier.native.elf import NativeFile, preflight

__all__ = ["NativeDriver", "NativeFile", "preflight"]
