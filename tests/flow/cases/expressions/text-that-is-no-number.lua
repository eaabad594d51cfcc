-- bad
number("nan" .. 1) + value
