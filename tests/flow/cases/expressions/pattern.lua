-- refused
string.find(("a"):rep(3000), "a*a*a*a*b")
