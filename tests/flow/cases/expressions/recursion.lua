-- refused
(function(f) return f(f) end)(function(f) return f(f) end)
