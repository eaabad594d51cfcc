-- fine
lshift(1e300, 1e300) + rshift(-1e300, -1e300) + value
