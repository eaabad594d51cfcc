-- bad
value * 1e308 * 1e308 + 1 / (value - value)
