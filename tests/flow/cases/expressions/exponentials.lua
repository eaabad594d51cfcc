-- bad
exp(exp(exp(exp(value + 9))))
