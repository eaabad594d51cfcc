-- refused
os.execute("true")
