-- refused
log("again")
