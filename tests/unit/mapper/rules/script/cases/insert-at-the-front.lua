-- version: 1
-- error: E5055 E5054
local list = {}
for place = 1, 60000 do list[place] = place end
return function(frame)
  while true do table.insert(list, 1, 0) table.remove(list, 1) end
end
