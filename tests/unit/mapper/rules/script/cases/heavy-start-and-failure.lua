-- version: 1
-- error: E5055 E5054 E5052
local sum = 0
for place = 1, 400000 do sum = sum + place end
return function(frame)
  while true do end
end
