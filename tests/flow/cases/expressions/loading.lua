-- refused
load("return 1")()
