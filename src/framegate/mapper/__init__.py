"""Raw values become engineering values here, once, when a batch enters the bus.

`mapping` holds what is stateless and linear: rename, scale, offset. Expressions, deadbands and the inverse for
writes are modules of their own beside it; stateful rules are subscribers of the bus and do not live in this package.
"""
