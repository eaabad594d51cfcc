-- refused
debug.getregistry()
