-- version: 1
-- error: E5055 E5054
local list = {5, 4, 3, 2, 1}
return function(frame)
  table.sort(list, function(a, b) while true do end end)
end
