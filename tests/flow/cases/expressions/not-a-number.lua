-- bad
(value - value) / (value - value)
