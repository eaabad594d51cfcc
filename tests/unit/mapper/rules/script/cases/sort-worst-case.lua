-- version: 1
-- error: E5054
local list = {}
for place = 1, 20000 do list[place] = place % 7 end
return function(frame)
  while true do table.sort(list) end
end
