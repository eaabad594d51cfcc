-- refused
loadstring("\27LJ\2")()
