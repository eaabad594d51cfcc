-- bad
sqrt(-1 - value * value)
