-- refused
("x"):rep(1000000000)
