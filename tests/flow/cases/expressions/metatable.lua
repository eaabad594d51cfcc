-- refused
setmetatable({}, {__index = value})[1]
