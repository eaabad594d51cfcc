"""Python drivers in a process of their own."""

from framegate.carrier.python.driver import ProcessDriver

__all__ = ["ProcessDriver"]
