-- refused
require("ffi").C.exit(1)
