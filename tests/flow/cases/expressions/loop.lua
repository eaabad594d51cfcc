-- refused
(function() while true do end end)()
